"""Clips of videos: which frames they have, and reading them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vmae_keras.data import SAMPLINGS, crops, sampling
from vmae_keras.data.checks import check_at_least
from vmae_keras.data.frames import read_frames
from vmae_keras.data.video import OnDamage


class ClipSizes(Protocol):
    """Clip sizes, the part of a model configuration that sampling needs."""

    @property
    def frames(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def channels(self) -> int: ...


@dataclass(frozen=True)
class ClipReader:
    """Function that reads one clip of a video. Its settings are checked when it is created.

    Args:
        sizes: T, H, W and C, for example a model configuration.
        sampling: "dense" for a window of `frames * stride` ticks, "uniform" for one tick per segment.
        stride: Ticks between the frames of a dense clip.
        spread: If true, spread the frames of a dense clip evenly over its window, as in fine-tuning
            (clause AUG-11).

    Raises:
        ValueError: A setting is out of range.
    """

    sizes: ClipSizes
    sampling: str
    stride: int
    spread: bool = False

    def __post_init__(self) -> None:
        check_clip(self.sizes.channels, self.sampling, self.stride)

    def __call__(
        self, path: str, generator: np.random.Generator | None, on_damage: OnDamage
    ) -> np.ndarray:
        """Read a random clip, or without a generator the centre clip: (T, H0, W0, C) uint8.

        H0 and W0 are the video's own size.
        """
        rgb = read_frames(path, lambda ticks: self.positions(ticks, generator), on_damage)
        return rgb if self.sizes.channels == 3 else crops.luma(rgb)

    def positions(self, ticks: int, generator: np.random.Generator | None) -> np.ndarray:
        """Return the ticks of a random clip, or without a generator of the centre clip: (T,)."""
        if self.sampling == "uniform":
            return sampling.uniform(ticks, self.sizes.frames, generator)
        choose = sampling.spread if self.spread else sampling.dense
        return choose(ticks, self.sizes.frames, self.stride, generator)


def check_clip(channels: int, sampling: str, stride: int) -> None:
    """Raise ValueError unless clips can be read with these settings."""
    if channels not in (1, 3):
        raise ValueError(
            f"`channels` must be 3 (RGB) or 1 (brightness) to read videos. Received: {channels}."
        )
    if sampling not in SAMPLINGS:
        raise ValueError(
            f"`sampling` must be one of {', '.join(SAMPLINGS)}. Received: sampling={sampling!r}."
        )
    check_at_least(1, stride=stride)
