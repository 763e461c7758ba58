"""The model, weights and batches that every backend computes with, drawn by NumPy from a seed."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from vmae_keras import masks
from vmae_keras.config import VideoMAEConfig
from vmae_keras.data.random_streams import Purpose, check_seed, generator

PRECISIONS = ("float32", "mixed_bfloat16")
CLIPS = 2
RATE = 1e-3
SIGMA = 0.2  # standard deviation of all weights except kernels


@dataclasses.dataclass(frozen=True)
class Setup:
    """A model, its weights and its batches.

    Keras draws nothing, because its draws differ between backends.

    Args:
        config: Configuration of the model.
        steps: Number of AdamW updates, each on its own batch.
        seed: Random seed for weights and batches.

    Raises:
        ValueError: The model draws random numbers in training, or the seed is out of range.
    """

    config: VideoMAEConfig
    steps: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.config.drop_path:
            raise ValueError(
                "Backends cannot be compared with `drop_path`: each draws in its own way. "
                f"Received: drop_path={self.config.drop_path}. Use drop_path=0."
            )

    def weights(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Draw float32 weights: kernels with their usual standard deviation, all others not 0.

        A fresh model's biases are 0 and its gammas 1, which would hide mistakes in their use. Larger
        kernels would saturate attention, where rounding errors grow faster than the effect of a mistake.
        """
        draws = generator(self.seed, Purpose.CONSISTENCY_WEIGHTS)
        weights = {}
        for name in sorted(shapes):
            sigma = shapes[name][0] ** -0.5 if name.endswith("kernel") else SIGMA
            draw = sigma * draws.standard_normal(shapes[name], dtype=np.float32)
            weights[name] = (draw + name.endswith("gamma")).astype(np.float32)
        return weights

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Draw a step's clips of random pixels, with V2's two masks."""
        c, draws = self.config, generator(self.seed, Purpose.CONSISTENCY_BATCH, step)
        ids = [
            masks.pretraining(c.grid, draws, ratio=0.75, decoder_ratio=0.5) for _ in range(CLIPS)
        ]
        batch = {name: np.stack([clip[name] for clip in ids]) for name in ids[0]}
        shape = (CLIPS, c.frames, c.height, c.width, c.channels)
        return {**batch, "video": draws.integers(0, 256, shape, dtype=np.uint8)}

    def save(self, path: Path) -> None:
        """Write the setup as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self)), "utf-8")

    @classmethod
    def load(cls, path: Path) -> "Setup":
        """Read a setup that `save` wrote."""
        fields = json.loads(path.read_text("utf-8"))
        return cls(**{**fields, "config": VideoMAEConfig(**fields["config"])})
