"""Augmentation for fine-tuning: RandAugment, random crop, horizontal flip, random erasing.

All frames of a clip are changed alike. The result is float32 in [0, 1], because the official code resizes
crops in floating point. Only the noise in an erased region exceeds this range.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vmae_keras.data.checks import check_probabilities
from vmae_keras.data.crops import Box, Size
from vmae_keras.data.rand_augment import RandAugment

_OFFICIAL = RandAugment()
_CROP_TRIES, _ERASING_TRIES = 10, 100
_ERASED_AREA, _ERASED_ASPECT = (0.02, 1 / 3), (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Augmentation:
    """Clip augmentation of official fine-tuning. The defaults are the official settings.

    RandAugment works on whole frames, so its time grows with their area: downscale large videos.

    Args:
        size: (height, width) of the result.
        rand_augment: Random operations before the crop, or None.
        crop_area: (least, most) share of the frame's area that the crop covers.
        crop_aspect: (least, most) aspect ratio of the crop, width over height, relative to that of `size`.
        flip_probability: Probability of a horizontal flip. Use 0 if classes distinguish left from right, as
            in Something-Something V2.
        erasing_probability: Probability that a region is replaced by noise.
        mean: Mean of this noise per channel; use the model's.
        std: Standard deviation of this noise per channel; use the model's.

    Raises:
        ValueError: A setting is out of range.

    Source: official `ssv2.py`, `kinetics.py` in training; clauses AUG-1 to AUG-10, AUG-12.
    """

    size: Size
    rand_augment: RandAugment | None = _OFFICIAL
    crop_area: tuple[float, ...] = (0.08, 1.0)
    crop_aspect: tuple[float, ...] = (0.75, 1.3333)
    flip_probability: float = 0.5
    erasing_probability: float = 0.25
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        check_probabilities(
            flip_probability=self.flip_probability, erasing_probability=self.erasing_probability
        )
        _check_range("crop_area", self.crop_area, most=1)
        _check_range("crop_aspect", self.crop_aspect, most=math.inf)

    def __call__(self, frames: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Augment a clip: (T, H, W, 3) uint8 -> (T, *size, 3) float32.

        Raises:
            ValueError: `frames` is not uint8, or not RGB.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(
                "`frames` must be (T, H, W, 3) uint8, as read from a video. "
                f"Received: shape {frames.shape}, {frames.dtype}."
            )
        if self.rand_augment:
            frames = self.rand_augment(frames, generator)
        proportion = self.size[1] / self.size[0]
        aspect = (self.crop_aspect[0] * proportion, self.crop_aspect[1] * proportion)
        box = random_crop(frames.shape[1:3], self.crop_area, aspect, generator)
        mirror = generator.random() < self.flip_probability
        clip = resize_linearly(frames, box, self.size, mirror=mirror)
        if generator.random() < self.erasing_probability:
            erase(clip, self.mean, self.std, generator)
        return clip


def random_crop(
    picture: Size,
    area: Sequence[float],
    aspect: Sequence[float],
    generator: np.random.Generator,
) -> Box:
    """Draw a crop by its share of the picture's area and by its aspect ratio, width over height.

    `picture` is (height, width). After ten draws that do not fit, falls back to the largest centred box
    with an allowed aspect ratio.

    Source: official `video_transforms.py`; clauses AUG-2, AUG-3.
    """
    height, width = picture
    for _ in range(_CROP_TRIES):
        pixels, ratio = _area_and_aspect(picture, area, aspect, generator)
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(generator.integers(width - w + 1))
            top = int(generator.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < aspect[0]:
        h = max(round(width / aspect[0]), 1)
    elif width / height > aspect[1]:
        w = max(round(height * aspect[1]), 1)
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resize_linearly(
    frames: np.ndarray, box: Box, size: Size, *, mirror: bool = False
) -> np.ndarray:
    """Cut `box` out of every frame and resize it: (T, H, W, C) uint8 -> (T, *size, C) float32 in [0, 1].

    Interpolates linearly between the two nearest pixels, without antialiasing or rounding. `mirror` flips
    the result horizontally.

    Source: official `video_transforms.py`; clauses AUG-4, AUG-5.
    """
    left, top, right, bottom = box
    above, below, down = neighbours(bottom - top, size[0])
    before, after, across = neighbours(right - left, size[1])
    if mirror:
        before, after, across = before[::-1], after[::-1], across[::-1]
    down, across = down[:, None, None], across[:, None]
    clip = np.empty((len(frames), *size, frames.shape[-1]), np.float32)
    # Frame by frame and in place, so that a frame stays in the processor's cache.
    for frame, out in zip(frames[:, top:bottom, left:right], clip, strict=True):
        frame = frame / np.float32(255)
        rows, other = frame[above], frame[below]
        other -= rows
        other *= down
        rows += other
        pixels, other = np.take(rows, before, axis=1), np.take(rows, after, axis=1)
        other -= pixels
        other *= across
        np.add(pixels, other, out=out)
    return clip


def erase(
    clip: np.ndarray, mean: Sequence[float], std: Sequence[float], generator: np.random.Generator
) -> None:
    """Replace one region of the clip (T, H, W, C) with noise of `mean` and `std` per channel, in place.

    All frames share the region but not the noise. The noise is not clipped to [0, 1]: after normalisation
    it has zero mean and unit variance.

    Source: official `random_erasing.py`, mode "pixel"; clauses AUG-9, AUG-10.
    """
    height, width = clip.shape[1:3]
    for _ in range(_ERASING_TRIES):
        pixels, ratio = _area_and_aspect((height, width), _ERASED_AREA, _ERASED_ASPECT, generator)
        # The ratio here is height over width, unlike in a crop.
        h, w = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if h < height and w < width:
            left = int(generator.integers(width - w + 1))
            top = int(generator.integers(height - h + 1))
            region = clip[:, top : top + h, left : left + w]
            noise = generator.standard_normal(region.shape, np.float32)
            region[...] = np.asarray(mean, np.float32) + np.asarray(std, np.float32) * noise
            return


def _area_and_aspect(
    picture: Size,
    area: Sequence[float],
    aspect: Sequence[float],
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Draw an area in pixels, and an aspect ratio for which r is as likely as 1 / r."""
    pixels = generator.uniform(area[0], area[1]) * (picture[0] * picture[1])
    return pixels, math.exp(generator.uniform(math.log(aspect[0]), math.log(aspect[1])))


def neighbours(count: int, new_count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two neighbours of `new_count` places along `count` pixels, and the second's weight."""
    place = (np.arange(new_count) + 0.5) * count / new_count - 0.5
    first = np.floor(place).astype(np.int64)
    weight = (place - first).astype(np.float32)
    return np.clip(first, 0, count - 1), np.clip(first + 1, 0, count - 1), weight


def _check_range(name: str, values: Sequence[float], most: float) -> None:
    least, largest = values
    if not 0 < least <= largest <= most:
        raise ValueError(
            f"`{name}` must be (least, most), above 0"
            + (f" and at most {most}" if most < math.inf else "")
            + f". Received: {name}={values}."
        )
