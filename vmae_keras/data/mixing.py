"""Mixup and cutmix: mix the videos of a batch in pairs, and their labels in the same ratio.

Clip i is mixed with clip B - 1 - i. The result is float32 in [0, 1], because uint8 would round the mixture
of two videos and the official code does not.
"""

import math
from dataclasses import dataclass

import numpy as np

from vmae_keras.data.checks import check_at_least, check_probabilities
from vmae_keras.data.crops import Box, Size

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

    Raises:
        ValueError: A setting is out of range.

    Source: official `mixup.py` in mode "batch", which official fine-tuning uses; clauses MIX-1 to MIX-5.
    """

    classes: int
    label_smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch_probability: float = 0.5

    def __post_init__(self) -> None:
        check_at_least(1, classes=self.classes)
        check_probabilities(
            label_smoothing=self.label_smoothing,
            probability=self.probability,
            switch_probability=self.switch_probability,
        )
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"`{name}` must not be negative, 0 turns it off. "
                    f"Received: {name}={getattr(self, name)}."
                )

    @property
    def on(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def draw(self, picture: Size, generator: np.random.Generator) -> Choice:
        """Draw the choice for a batch of clips whose frames have the size `picture`, (height, width)."""
        if not self.on or generator.random() >= self.probability:
            return 1.0, None
        if not self.mixup or (self.cutmix and generator.random() < self.switch_probability):
            ratio = generator.beta(self.cutmix, self.cutmix)
            box = _box_around(
                picture, ratio, generator.integers(picture[0]), generator.integers(picture[1])
            )
            # The actual share of the box, after rounding to pixels and clipping at the frame's edges.
            return 1 - _area(box) / (picture[0] * picture[1]), box
        return generator.beta(self.mixup, self.mixup), None

    def mix(
        self, videos: np.ndarray, labels: np.ndarray, choice: Choice
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mix videos (B, T, H, W, C), uint8 or floats in [0, 1], and their class numbers (B,).

        Returns float32 videos of the same shape, and float32 targets (B, classes).

        Raises:
            ValueError: The number of videos is odd and mixing is on.
        """
        if self.on and len(videos) % 2:
            raise ValueError(
                "Clips are mixed in pairs, so a batch must have an even number of them. "
                f"Received: {len(videos)}. Change the batch size, or set `mixup` and `cutmix` to 0."
            )
        targets = soft_targets(labels, self.classes, self.label_smoothing, choice[0])
        return mix_videos(videos, choice), targets


def mix_videos(videos: np.ndarray, choice: Choice) -> np.ndarray:
    """Mix video i with video B - 1 - i: (B, T, H, W, C) -> float32 of the same shape, in [0, 1]."""
    ratio, box = choice
    mixed = np.empty(videos.shape, np.float32)
    for own, other, out in zip(videos, videos[::-1], mixed, strict=True):
        out[...] = _unit(own)
        if box:
            left, top, right, bottom = box
            out[:, top:bottom, left:right] = _unit(other[:, top:bottom, left:right])
        elif ratio != 1:
            out *= np.float32(ratio)
            out += _unit(other) * np.float32(1 - ratio)
    return mixed


def soft_targets(labels: np.ndarray, classes: int, smoothing: float, ratio: float) -> np.ndarray:
    """Smooth labels (B,) and mix them as the videos: -> (B, classes) float32, whose rows sum to 1.

    Source: official `mixup.py`; clause MIX-1.
    """
    own = np.full((len(labels), classes), smoothing / classes)
    own[np.arange(len(labels)), labels] += 1 - smoothing
    return (ratio * own + (1 - ratio) * own[::-1]).astype(np.float32)


def _unit(video: np.ndarray) -> np.ndarray:
    return video / np.float32(255) if video.dtype == np.uint8 else video


def _box_around(picture: Size, ratio: float, y: np.integer, x: np.integer) -> Box:
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
