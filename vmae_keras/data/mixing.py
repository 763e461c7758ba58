"""Mixup and cutmix: mix the videos of a batch in pairs, and their labels in the same ratio.

Clip i is mixed with clip B - 1 - i. The result is float32 in [0, 1], because uint8 would round the mixture
of two videos and the official code does not.
"""

import math
from dataclasses import dataclass

import numpy as np

from vmae_keras.data.augment import Box, Size

MODES = ("batch", "pair", "elem")
# The ratio is the clip's own share. With cutmix, the box is filled with the partner's pixels.
Choice = tuple[float, Box | None]


@dataclass(frozen=True)
class Mixing:
    """Batch mixing of official fine-tuning. The defaults are the official settings.

    Args:
        classes: Number of classes.
        label_smoothing: Probability mass that is spread evenly over all classes.
        mixup: Parameter of the beta distribution of mixup ratios; 0 turns mixup off.
        cutmix: Parameter of the beta distribution of cutmix ratios; 0 turns cutmix off.
        probability: Probability of mixing.
        switch_probability: Probability of cutmix rather than mixup, if both are on.
        mode: Clips that share one draw: "batch" for all, "pair" for the two of a pair, "elem" for none.

    Raises:
        ValueError: A setting is out of range.

    Source: official `mixup.py`; clauses MIX-1 to MIX-5. Boxes span rows and columns, as in the official
    mode "batch", which official fine-tuning uses. The official mode "pair" cuts frames and rows instead.
    """

    classes: int
    label_smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch_probability: float = 0.5
    mode: str = "batch"

    def __post_init__(self) -> None:
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
        """Mix videos (B, T, H, W, C), uint8 or floats in [0, 1], and their labels (B,) int.

        Returns float32 videos of the same shape, and float32 targets (B, classes).

        Raises:
            ValueError: The number of videos is odd and mixing is on, or `labels` are not one class number
                for each video.
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
        """Mix videos and labels as `__call__` does, with the given draw for each clip."""
        ratios = [ratio for ratio, _ in choices]
        targets = soft_targets(labels, self.classes, self.label_smoothing, ratios)
        return mix_videos(videos, choices), targets

    @property
    def on(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def draw(self, clips: int, picture: Size, generator: np.random.Generator) -> list[Choice]:
        """Draw a choice for each of `clips` clips whose frames have the size `picture`, (height, width)."""
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
            # The actual share of the box, after rounding to pixels and clipping at the frame's edges.
            return 1 - _area(box) / (picture[0] * picture[1]), box
        return generator.beta(self.mixup, self.mixup), None


def mix_videos(videos: np.ndarray, choices: list[Choice]) -> np.ndarray:
    """Mix video i with video B - 1 - i: (B, T, H, W, C) -> float32 of the same shape, in [0, 1]."""
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
    """Smooth labels (B,) and mix them as the videos: -> (B, classes) float32, whose rows sum to 1.

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
