"""Mixing the videos of a batch with one another, and their labels alike: mixup and cutmix.

Clip i is mixed with clip B - 1 - i. What comes out is float32 in [0, 1]: uint8 would round the mixture
of two videos, which the official programs do not.
"""

import math
from dataclasses import dataclass

import numpy as np

from vmae_keras.data.augment import Box, Size

MODES = ("batch", "pair", "elem")
# The ratio, what is left of a clip's own, and of cutmix the box that the other's pixels fill.
Choice = tuple[float, Box | None]


@dataclass(frozen=True)
class Mixing:
    """Mixes a batch as official fine-tuning does; the defaults are its settings.

    `mixup` and `cutmix` are the parameters of the beta distributions that ratios are drawn from; 0
    means not at all. A batch is mixed with `probability`, by cutmix with `switch_probability` if
    both are on. `mode` says what shares one draw: the "batch", a "pair", or nothing ("elem").

    Source: official `mixup.py`; clauses MIX-1 to MIX-5. Boxes are of rows and columns, as in the official
    mode "batch", which its fine-tuning uses; the official mode "pair" cuts frames and rows.

    Raises:
        ValueError: a setting out of range.
    """

    classes: int
    label_smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch_probability: float = 0.5
    mode: str = "batch"

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(
                f"`mode` must be one of {', '.join(MODES)}. Received: mode={self.mode!r}."
            )
        if self.classes < 1:
            raise ValueError(f"`classes` must be at least 1. Received: classes={self.classes}.")
        for name in ("label_smoothing", "probability", "switch_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"`{name}` must be from 0 to 1. Received: {name}={getattr(self, name)}."
                )
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"`{name}` must not be negative, 0 turns it off. "
                    f"Received: {name}={getattr(self, name)}."
                )

    def __call__(
        self, videos: np.ndarray, labels: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Videos (B, T, H, W, C), uint8 or floats in [0, 1], and labels (B,) int -> both mixed.

        Returns float32 videos of the same shape, and float32 targets (B, classes).

        Raises:
            ValueError: an odd number of videos, unless mixing is off; labels that are not one of
                `classes` for each video.
        """
        labels = np.asarray(labels)
        integers = np.issubdtype(labels.dtype, np.integer)
        if not integers or labels.shape != (len(videos),):
            raise ValueError(
                "`labels` must be whole numbers, one for each video. Received: "
                f"shape {labels.shape}, {labels.dtype}, for {len(videos)} videos."
            )
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(
                f"`labels` must be from 0 to {self.classes - 1}, as there are {self.classes} "
                f"classes. Received: labels from {labels.min()} to {labels.max()}."
            )
        return self.mix(videos, labels, self.draw(len(videos), videos.shape[2:4], generator))

    def mix(self, videos, labels, choices: list[Choice]) -> tuple[np.ndarray, np.ndarray]:
        """As the call, with what was drawn for each clip."""
        ratios = [ratio for ratio, _ in choices]
        targets = soft_targets(labels, self.classes, self.label_smoothing, ratios)
        return mix_videos(videos, choices), targets

    @property
    def on(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def draw(self, clips: int, picture: Size, generator: np.random.Generator) -> list[Choice]:
        """What becomes of each of `clips` clips of frames of `picture`, (height, width)."""
        if not self.on:
            return [(1.0, None)] * clips
        if clips % 2:
            raise ValueError(
                "Clips are mixed in pairs, so a batch must have an even number of them. "
                f"Received: {clips}. Change the batch size, or set `mixup` and `cutmix` to 0."
            )
        if self.mode == "batch":
            return [self._draw_one(picture, generator)] * clips
        if self.mode == "elem":
            return [self._draw_one(picture, generator) for _ in range(clips)]
        pairs = [self._draw_one(picture, generator) for _ in range(clips // 2)]
        return pairs + pairs[::-1]

    def _draw_one(self, picture: Size, generator: np.random.Generator) -> Choice:
        if generator.random() >= self.probability:
            return 1.0, None
        if not self.mixup or (self.cutmix and generator.random() < self.switch_probability):
            ratio = generator.beta(self.cutmix, self.cutmix)
            box = _box_around(
                picture, ratio, generator.integers(picture[0]), generator.integers(picture[1])
            )
            # The box's share as it came out: whole pixels, cut at the frame's edges.
            return 1 - _area(box) / (picture[0] * picture[1]), box
        return generator.beta(self.mixup, self.mixup), None


def mix_videos(videos: np.ndarray, choices: list[Choice]) -> np.ndarray:
    """Mix each video with its mirror image's: (B, T, H, W, C) -> float32 of this shape, in [0, 1]."""
    mixed = np.empty(videos.shape, np.float32)
    for own, other, (ratio, box), out in zip(videos, videos[::-1], choices, mixed, strict=True):
        out[...] = _unit(own)
        if box:
            left, top, right, bottom = box
            out[:, top:bottom, left:right] = _unit(other[:, top:bottom, left:right])
        elif ratio != 1:
            out *= np.float32(ratio)
            out += _unit(other) * np.float32(1 - ratio)
    return mixed


def soft_targets(labels, classes: int, smoothing: float, ratios) -> np.ndarray:
    """Labels (B,), smoothed, and mixed as the videos were: (B, classes) float32, rows of sum 1.

    Source: official `mixup.py`; clause MIX-1.
    """
    own = np.full((len(labels), classes), smoothing / classes)
    own[np.arange(len(labels)), labels] += 1 - smoothing
    ratios = np.asarray(ratios)[:, None]
    return (ratios * own + (1 - ratios) * own[::-1]).astype(np.float32)


def _unit(video):
    return video / np.float32(255) if video.dtype == np.uint8 else video


def _box_around(picture, ratio, y, x) -> Box:
    side = math.sqrt(1 - ratio)
    height, width = int(picture[0] * side) // 2, int(picture[1] * side) // 2
    return (
        max(int(x) - width, 0),
        max(int(y) - height, 0),
        min(int(x) + width, picture[1]),
        min(int(y) + height, picture[0]),
    )


def _area(box: Box) -> int:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)
