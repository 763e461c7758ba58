"""The model configuration used by the oracle and the conformance suite."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from pathlib import Path

VARIANTS = tomllib.loads(Path(__file__).with_name("variants.toml").read_text("utf-8"))


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and options of one model, named as in SPEC.md."""

    frames: int = 16
    height: int = 224
    width: int = 224
    channels: int = 3
    tubelet: tuple[int, int, int] = (2, 16, 16)
    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 3072
    decoder_dim: int = 384
    decoder_depth: int = 4
    decoder_heads: int = 6
    decoder_mlp_dim: int = 1536
    norm_pix: bool = True
    drop_path: float = 0.0
    layer_scale: float = 0.0
    cosine_attention: bool = False
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    layer_norm_epsilon: float = 1e-6
    last_norm_epsilon: float | None = None
    activation: str = "gelu"
    query_value_bias: bool = True
    encoder_norm: bool = True
    learned_positions: bool = False
    position_grid: tuple[int, int, int] | None = None
    class_token: bool = False
    planar_positions: bool = False
    bridge_bias: bool = False
    mae_target: bool = False

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of tubelets along each axis: (t, h, w)."""
        p0, p1, p2 = self.tubelet
        return self.frames // p0, self.height // p1, self.width // p2

    @property
    def num_tokens(self) -> int:
        """Number of tokens: N."""
        return math.prod(self.grid)

    @classmethod
    def variant(cls, name: str, **changes) -> Config:
        """Return a published variant from `variants.toml`, with some fields changed.

        Raises:
            ValueError: No variant has this name.
        """
        if name not in VARIANTS:
            raise ValueError(
                f"`name` must be one of {', '.join(VARIANTS)}. Received: name={name!r}."
            )
        fields = {field.name for field in dataclasses.fields(cls)}
        values = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in VARIANTS[name].items()
            if key in fields
        }
        return cls(**{**values, **changes})
