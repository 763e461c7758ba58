"""Frozen configuration of a VideoMAE model."""

import dataclasses
import math
from typing import Any

from vmae_keras.variants import ACTIVATIONS, VARIANTS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A configuration may come from an untrusted file. Larger sizes are a mistake or an attack.
DEEPEST = 1024  # blocks
LARGEST = 2**16  # limit of every other size
MOST_TOKENS = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
    """Sizes and options of one transformer, the encoder or the decoder.

    Args:
        dim, depth, heads, mlp_dim: Sizes. `dim` is a multiple of `heads`.
        drop_path: Rate of the last block. The rates rise linearly from 0 in the first block.
        layer_scale: Initial value of the residual scales; 0 for none.
        cosine_attention: L2-normalised queries and keys with a learned logit scale per head.
        epsilon: Epsilon of the LayerNorms in the blocks.
        activation: Activation of the MLPs, one of `ACTIVATIONS`.
        query_value_bias: Whether queries and values have biases. Keys never do.
        kernel_std: Standard deviation of the initial kernels; see `initializers.block_kernel`.
        final_norm: Whether a LayerNorm follows the last block.
        final_epsilon: Epsilon of the final norm; None for `epsilon`.

    Source: clauses BLOCK-*, ENC-2, DEC-2, FT-1.
    """

    dim: int
    depth: int
    heads: int
    mlp_dim: int
    drop_path: float = 0.0
    layer_scale: float = 0.0
    cosine_attention: bool = False
    epsilon: float = 1e-6
    activation: str = "gelu"
    query_value_bias: bool = True
    kernel_std: float | None = None
    final_norm: bool = True
    final_epsilon: float | None = None


@dataclasses.dataclass(frozen=True)
class VideoMAEConfig:
    """Sizes and options of a VideoMAE.

    Sizes are in frames, pixels and units of width. Encoder and decoder masks are not part of the
    configuration: a batch carries the ids of its visible and decoded tokens.

    Args:
        frames, height, width, channels: Size of a clip, (T, H, W, C).
        tubelet: Frames, rows and columns of one token, (p0, p1, p2).
        dim, depth, heads, mlp_dim: Sizes of the encoder.
        decoder_dim, decoder_depth, decoder_heads, decoder_mlp_dim: Sizes of the decoder.
        norm_pix: Predict pixels normalised per tubelet and channel, instead of raw pixels in [0, 1].
        drop_path: Rate of the last block of encoder and decoder. The rates rise linearly from 0.
        layer_scale: Initial value of the residual scales; 0 for none.
        cosine_attention: L2-normalised queries and keys, an option of V2.
        mean, std: Per-channel normalisation of the encoder's input in [0, 1]. The default is ImageNet's
            for three channels, else 0 and 1.
        layer_norm_epsilon: Epsilon of the LayerNorms (1e-6 in the official code).
        last_norm_epsilon: Epsilon of the decoder's norm and of `fc_norm`; None for `layer_norm_epsilon`.
        activation: Activation of the MLPs, one of `ACTIVATIONS`.
        query_value_bias: Whether queries and values have biases.
        encoder_norm: Whether a LayerNorm follows the encoder of the pretraining model.
        learned_positions: Learn the encoder's positions instead of using the fixed table.
        position_grid: Grid (t, h, w) of the fixed table, which is resized to the model's own grid; None
            for the model's own.
        class_token: Put a learned token before the visible ones, as in ViT and MAE. It is never masked.
        planar_positions: Use MAE's fixed tables over rows and columns instead of the sinusoid.
        bridge_bias: Whether the layer from encoder to decoder has a bias, as in MAE.
        mae_target: Predict pixels after mean and std, normalised over a whole patch; see `target`.

    Raises:
        ValueError: Sizes do not divide, or a value is out of range.

    Source: clauses CONFIG-1, CONFIG-2, OPTION-*, IMAGE-*; VideoMAE section 3, VideoMAE V2 section 3.

    Example:
        from vmae_keras import VideoMAEConfig
        config = VideoMAEConfig.variant("v2-b", frames=32)  # config.grid is (16, 14, 14)
    """

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
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
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

    def __post_init__(self) -> None:
        self._check_sizes()
        three = self.channels == 3
        defaults = {
            "mean": IMAGENET_MEAN if three else (0.0,) * self.channels,
            "std": IMAGENET_STD if three else (1.0,) * self.channels,
        }
        for name, default in defaults.items():
            value = getattr(self, name)
            object.__setattr__(self, name, default if value is None else tuple(value))
        self._check()

    def _check_sizes(self) -> None:
        for name in (field.name for field in dataclasses.fields(self) if field.type is int):
            value, largest = getattr(self, name), DEEPEST if "depth" in name else LARGEST
            if not _is_size(value):
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: {name}={value!r}."
                )
            if value > largest:
                received = value if value < 10**20 else "more than 10^20"
                raise ValueError(
                    f"`{name}` must be at most {largest}. Received: {name}={received}."
                )
        for name in ("tubelet", "position_grid"):
            value = getattr(self, name)
            if name == "position_grid" and value is None:
                continue
            value = tuple(value)
            if len(value) != 3 or not all(map(_is_size, value)):
                raise ValueError(
                    f"`{name}` must be three positive integers (time, height, width). "
                    f"Received: {name}={value}."
                )
            object.__setattr__(self, name, value)
        for name, grid in (("grid", self.grid), ("position_grid", self.position_grid or (1, 1, 1))):
            if math.prod(grid) > MOST_TOKENS:
                raise ValueError(
                    f"`{name}` must have at most {MOST_TOKENS} tokens. Received: {grid}."
                )

    def _check(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {', '.join(ACTIVATIONS)}. "
                f"Received: activation={self.activation!r}."
            )
        for name, part in zip(("frames", "height", "width"), self.tubelet, strict=True):
            size = getattr(self, name)
            if size % part:
                down, up = size // part * part, (size // part + 1) * part
                fitting = f"{down} or {up}" if down else f"{up}"
                raise ValueError(
                    f"`{name}` must be a multiple of the tubelet. Received: {name}={size}, "
                    f"tubelet={self.tubelet}. Use {fitting}."
                )
        for width, heads in (("dim", "heads"), ("decoder_dim", "decoder_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"`{width}` must be a multiple of `{heads}`. Received: "
                    f"{width}={getattr(self, width)}, {heads}={getattr(self, heads)}."
                )
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise ValueError(
                    f"`{name}` must have one value per channel. Received: "
                    f"{name}={getattr(self, name)}, channels={self.channels}."
                )
        for name in (field.name for field in dataclasses.fields(self) if field.type is bool):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(
                    f"`{name}` must be True or False. Received: {name}={getattr(self, name)!r}."
                )
        last = self.last_norm_epsilon
        epsilons = (self.layer_norm_epsilon, 1.0 if last is None else last)
        if not all(0.0 < value < math.inf for value in (*(self.std or ()), *epsilons)):
            raise ValueError(
                "`std` and epsilons must be positive. Received: "
                f"std={self.std}, layer_norm_epsilon={self.layer_norm_epsilon}, "
                f"last_norm_epsilon={self.last_norm_epsilon}."
            )
        if not all(map(math.isfinite, self.mean or ())):
            raise ValueError(f"`mean` must be finite. Received: mean={self.mean}.")
        if not 0.0 <= self.layer_scale < math.inf:
            raise ValueError(
                f"`layer_scale` must be a number of at least 0. Received: layer_scale={self.layer_scale}."
            )
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(
                f"`drop_path` must be in [0, 1). Received: drop_path={self.drop_path}."
            )
        if self.planar_positions and (
            self.dim % 4 or self.decoder_dim % 4 or self.frames != self.tubelet[0]
        ):
            raise ValueError(
                "`planar_positions` need one temporal slot, and widths that are multiples of 4. "
                f"Received: frames={self.frames}, tubelet={self.tubelet}, dim={self.dim}, "
                f"decoder_dim={self.decoder_dim}. Use planar_positions=False."
            )
        if self.norm_pix and math.prod(self.tubelet) < 2:
            raise ValueError(
                "`norm_pix` needs tubelets of at least two pixels (one pixel has no variance). "
                f"Received: tubelet={self.tubelet}. Use norm_pix=False."
            )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of tokens along time, height and width, (t, h, w)."""
        p0, p1, p2 = self.tubelet
        return self.frames // p0, self.height // p1, self.width // p2

    @property
    def num_tokens(self) -> int:
        """Number of tokens, N = t * h * w."""
        return math.prod(self.grid)

    @property
    def tubelet_size(self) -> int:
        """Number of values in one tubelet, P = p0 * p1 * p2 * C."""
        return math.prod(self.tubelet) * self.channels

    def encoder_stack(self, **changes: Any) -> Stack:
        """Return the `Stack` of the pretraining model's encoder, with some values changed."""
        sizes = {
            "dim": self.dim,
            "depth": self.depth,
            "heads": self.heads,
            "mlp_dim": self.mlp_dim,
            "final_norm": self.encoder_norm,
        }
        return Stack(**{**self._block_options(), **sizes, **changes})

    def decoder_stack(self) -> Stack:
        """Return the `Stack` of the decoder."""
        return Stack(
            **self._block_options(),
            dim=self.decoder_dim,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            mlp_dim=self.decoder_mlp_dim,
            final_epsilon=self.last_norm_epsilon,
        )

    def _block_options(self) -> dict[str, Any]:
        return {
            "drop_path": self.drop_path,
            "layer_scale": self.layer_scale,
            "cosine_attention": self.cosine_attention,
            "epsilon": self.layer_norm_epsilon,
            "activation": self.activation,
            "query_value_bias": self.query_value_bias,
        }

    def replace(self, **changes: Any) -> "VideoMAEConfig":
        """Return a copy with some fields changed, and validate it."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """Return a dict such that `VideoMAEConfig(**config.to_dict()) == config`."""
        return dataclasses.asdict(self)

    @classmethod
    def variant(cls, name: str, **changes: Any) -> "VideoMAEConfig":
        """Return a variant ("v1-b", "v2-g", "mae-b", "tiny", ...) with some fields changed.

        Raises:
            ValueError: There is no variant with this name.
        """
        if name not in VARIANTS:
            raise ValueError(
                f"`name` must be one of {', '.join(VARIANTS)}. Received: name={name!r}."
            )
        return cls(**{**VARIANTS[name], **changes})


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 1
