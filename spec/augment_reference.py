"""The oracle's augmentation and mixing of fine-tuning: SPEC.md's AUG and MIX clauses.

Nothing is drawn here: given the drawn numbers, what must come out. A box is (left, top, right, bottom).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spec.position_reference import cubic, linear, resize_axis

Box = tuple[int, int, int, int]
# (share of the area, logarithm of the aspect ratio)
Try = tuple[float, float]

# The clip ----------------------------------------------------------------------------------------


def clip_positions(count: int, frames: int, stride: int, start: int) -> np.ndarray:
    """-> (frames,): evenly over a window that begins at the drawn start. AUG-11."""
    window = frames * stride
    if count > window:
        positions = np.linspace(start, start + window, frames)
        return np.clip(positions, start, start + window - 1).astype(np.int64)
    positions = np.linspace(0, count, max(count // stride, 1))
    positions = np.concatenate([positions, np.full(frames - len(positions), count)])
    return np.clip(positions, 0, count - 1).astype(np.int64)


# The crop ----------------------------------------------------------------------------------------


def crop_size(height: int, width: int, tries: Sequence[Try]) -> tuple[int, int] | None:
    """-> (height, width) of the first of ten tries that fits, or None. AUG-2."""
    for share, log_aspect in tries[:10]:
        area, aspect = share * (height * width), math.exp(log_aspect)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return h, w
    return None


def crop_box(
    height: int, width: int, tries: Sequence[Try], corner: tuple[int, int], proportion: float = 1.0
) -> Box:
    """-> the first crop that fits at the drawn corner (x, y), else the centred one. AUG-2, AUG-3.

    For clips that are no squares `proportion` is W / H. AUG-12.
    """
    size = crop_size(height, width, tries)
    if size:
        (h, w), (x, y) = size, corner
        return x, y, x + w, y + h
    h, w = height, width
    narrowest, widest = 0.75 * proportion, 1.3333 * proportion
    if width / height < narrowest:
        h = max(round(width / narrowest), 1)
    elif width / height > widest:
        w = max(round(widest * height), 1)
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def resize_crop(frames: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """(T, H0, W0, C) uint8 -> (T, H, W, C) in [0, 1], float64. AUG-4."""
    left, top, right, bottom = box
    crop = np.asarray(frames, np.float64)[:, top:bottom, left:right] / 255
    return resize_axis(resize_axis(crop, 1, size[0], linear), 2, size[1], linear)


# RandAugment -------------------------------------------------------------------------------------

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
GREY = 128


def argument(operation: str, magnitude: float, sign: int) -> float | int | None:
    """Return the operation's argument for a magnitude in 0..10; None if it takes none. AUG-7."""
    level = magnitude / 10
    match operation:
        case "Posterize":
            return 4 - int(level * 4)
        case "Solarize":
            return 256 - int(level * 256)
        case "SolarizeAdd":
            return int(level * 110)
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return 1 + sign * (level * 0.9)
        case "Rotate":
            return sign * (level * 30)
        case "ShearX" | "ShearY":
            return sign * (level * 0.3)
        case "TranslateXRel" | "TranslateYRel":
            return sign * (level * 0.45)
    return None


def changed(frame: np.ndarray, operation: str, told: float | int | None) -> np.ndarray:
    """One frame (H0, W0, 3) uint8 after an operation, uint8. AUG-7, AUG-8."""
    value = frame.astype(np.int64)
    match operation:
        case "AutoContrast":
            return _by_channel(frame, _stretched)
        case "Equalize":
            return _by_channel(frame, _equalized)
        case "Invert":
            return (255 - value).astype(np.uint8)
        case "Posterize":
            return (value - value % 2 ** (8 - told)).astype(np.uint8)
        case "Solarize":
            return np.where(value < told, value, 255 - value).astype(np.uint8)
        case "SolarizeAdd":
            return np.where(value < 128, np.minimum(value + told, 255), value).astype(np.uint8)
        case "Color":
            return _blended(_grey(frame)[..., None], frame, told)
        case "Contrast":
            return _blended(int(_grey(frame).mean() + 0.5), frame, told)
        case "Brightness":
            return _blended(0, frame, told)
        case "Sharpness":
            return _blended(_smoothed(frame), frame, told)
    return _moved(frame, operation, told)


def source(
    operation: str, told: float, height: int, width: int, x: float, y: float
) -> tuple[float, float]:
    """Where what is put at (x, y) comes from, both from the frame's corner. AUG-8."""
    match operation:
        case "Rotate":
            angle, across, down = math.radians(told), x - width / 2, y - height / 2
            cos, sin = math.cos(angle), math.sin(angle)
            return across * cos - down * sin + width / 2, across * sin + down * cos + height / 2
        case "ShearX":
            return x + told * y, y
        case "ShearY":
            return x, y + told * x
        case "TranslateXRel":
            return x + told * width, y
        case "TranslateYRel":
            return x, y + told * height
    raise ValueError(f"Received: operation={operation!r}. Use one of {', '.join(OPERATIONS)}.")


def _moved(frame: np.ndarray, operation: str, told: float) -> np.ndarray:
    height, width, _ = frame.shape
    moved = np.full_like(frame, GREY)
    for row, column in np.ndindex(height, width):
        x, y = source(operation, told, height, width, column + 0.5, row + 0.5)
        if not (0 <= x < width and 0 <= y < height):
            continue
        x, y = x - 0.5, y - 0.5
        value = np.zeros(3)
        for j in range(math.floor(y) - 1, math.floor(y) + 3):
            for i in range(math.floor(x) - 1, math.floor(x) + 3):
                weight = cubic(y - j, a=-1.0) * cubic(x - i, a=-1.0)
                value += weight * frame[min(max(j, 0), height - 1), min(max(i, 0), width - 1)]
        moved[row, column] = _whole(value)
    return moved


def _whole(values: np.ndarray) -> np.ndarray:
    """Cut to 0..255, then truncated; what is short of a whole level by rounding alone is that level."""
    return np.clip(values + 1e-9, 0, 255).astype(np.uint8)


def _by_channel(frame: np.ndarray, table) -> np.ndarray:
    """Each channel through the table of 256 values that its own histogram leads to."""
    channels = [table(np.bincount(c.ravel(), minlength=256))[c] for c in np.moveaxis(frame, -1, 0)]
    return np.stack(channels, -1).astype(np.uint8)


def _stretched(histogram: np.ndarray) -> np.ndarray:
    low, high = np.flatnonzero(histogram)[[0, -1]]
    if high <= low:
        return np.arange(256)
    scale = 255.0 / (high - low)
    return np.clip((np.arange(256) * scale - low * scale).astype(np.int64), 0, 255)


def _equalized(histogram: np.ndarray) -> np.ndarray:
    step = (histogram.sum() - histogram[np.flatnonzero(histogram)[-1]]) // 255
    if step == 0:
        return np.arange(256)
    below = np.cumsum(histogram) - histogram
    return np.minimum((step // 2 + below) // step, 255)


def _grey(frame: np.ndarray) -> np.ndarray:
    """ITU-R 601 brightness (H0, W0), its weights .299, .587 and .114 in 65536ths; rounded."""
    return np.floor(frame @ np.array([19595, 38470, 7471]) / 65536 + 0.5)


def _smoothed(frame: np.ndarray) -> np.ndarray:
    """The mean of 3 x 3 pixels, the middle one counted five times; the frame's border as it is."""
    value = frame.astype(np.float64)
    total = 4 * value[1:-1, 1:-1]
    height, width, _ = frame.shape
    for down, across in np.ndindex(3, 3):
        total = total + value[down : down + height - 2, across : across + width - 2]
    smoothed = value.copy()
    smoothed[1:-1, 1:-1] = np.floor(total / 13 + 0.5)
    return smoothed


def _blended(other, frame: np.ndarray, share: float) -> np.ndarray:
    """In float32, then truncated: which level a whole number becomes depends on it."""
    other = np.asarray(other, np.float32)
    return np.clip(other + np.float32(share) * (frame - other), 0, 255).astype(np.uint8)


# Erasing -----------------------------------------------------------------------------------------


def erased_box(
    height: int, width: int, tries: Sequence[Try], corner: tuple[int, int]
) -> Box | None:
    """-> the first region of a hundred tries that fits, at the drawn corner (x, y). AUG-9."""
    for share, log_aspect in tries[:100]:
        area, aspect = share * (height * width), math.exp(log_aspect)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            x, y = corner
            return x, y, x + w, y + h
    return None


def erase(clip: np.ndarray, box: Box, noise: np.ndarray, mean, std) -> np.ndarray:
    """(T, H, W, C) with noise (T, h, w, C) of no mean and unit variance in the box. AUG-10."""
    left, top, right, bottom = box
    erased = np.array(clip, np.float64)
    erased[:, top:bottom, left:right] = np.asarray(mean) + np.asarray(std) * noise
    return erased


# Mixing ------------------------------------------------------------------------------------------


def cutmix_box(height: int, width: int, ratio: float, centre: tuple[int, int]) -> Box:
    """-> the box around the drawn centre (x, y), for the ratio as it was drawn. MIX-4."""
    x, y = centre
    half_height = int(height * math.sqrt(1 - ratio)) // 2
    half_width = int(width * math.sqrt(1 - ratio)) // 2
    return (
        max(x - half_width, 0),
        max(y - half_height, 0),
        min(x + half_width, width),
        min(y + half_height, height),
    )


def cutmix_ratio(height: int, width: int, box: Box) -> float:
    """-> the share that is left of a clip's own. MIX-4."""
    left, top, right, bottom = box
    return 1 - (bottom - top) * (right - left) / (height * width)


def choices_of_clips(choices: Sequence, mode: str, clips: int) -> list:
    """Return the choice for each clip, drawn once per batch, per pair or per clip. MIX-5."""
    if clips % 2:
        raise ValueError(f"Clips are mixed in pairs. Received: {clips} clips. Use an even number.")
    if mode == "batch":
        return [choices[0]] * clips
    if mode == "pair":
        return [choices[min(i, clips - 1 - i)] for i in range(clips)]
    return list(choices)


def mixed_videos(videos: np.ndarray, choices: Sequence[tuple[float, Box | None]]) -> np.ndarray:
    """(B, T, H, W, C) in [0, 1] and a (ratio, box or None) for each -> the same. MIX-3, MIX-4."""
    videos = np.asarray(videos, np.float64)
    mixed = videos.copy()
    for i, (ratio, box) in enumerate(choices):
        other = videos[len(videos) - 1 - i]
        if box is None:
            mixed[i] = ratio * videos[i] + (1 - ratio) * other
        else:
            left, top, right, bottom = box
            mixed[i, :, top:bottom, left:right] = other[:, top:bottom, left:right]
    return mixed


def soft_targets(
    labels: Sequence[int], classes: int, smoothing: float, ratios: Sequence[float]
) -> np.ndarray:
    """(B,) labels and ratios -> (B, K) targets, value by value. MIX-1."""

    def smoothed(label: int, number: int) -> float:
        return smoothing / classes + (1 - smoothing if number == label else 0)

    last = len(labels) - 1
    return np.array(
        [
            [
                ratio * smoothed(labels[i], k) + (1 - ratio) * smoothed(labels[last - i], k)
                for k in range(classes)
            ]
            for i, ratio in enumerate(ratios)
        ]
    )
