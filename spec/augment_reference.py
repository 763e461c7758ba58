"""The oracle for augmentation in fine-tuning: SPEC.md's AUG clauses.

The functions take the drawn numbers as arguments. A box is (left, top, right, bottom).
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
    """Return positions (frames,), spread evenly over a window from the drawn start. AUG-11."""
    window = frames * stride
    if count > window:
        positions = np.linspace(start, start + window, frames)
        return np.clip(positions, start, start + window - 1).astype(np.int64)
    positions = np.linspace(0, count, max(count // stride, 1))
    positions = np.concatenate([positions, np.full(frames - len(positions), count)])
    return np.clip(positions, 0, count - 1).astype(np.int64)


# The crop ----------------------------------------------------------------------------------------


def crop_size(height: int, width: int, tries: Sequence[Try]) -> tuple[int, int] | None:
    """Return (height, width) of the first of ten tries that fits, or None. AUG-2."""
    for share, log_aspect in tries[:10]:
        area, aspect = share * (height * width), math.exp(log_aspect)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return h, w
    return None


def crop_box(
    height: int, width: int, tries: Sequence[Try], corner: tuple[int, int], proportion: float = 1.0
) -> Box:
    """Return the first crop that fits, at the drawn corner (x, y), else the centred one. AUG-2, AUG-3.

    For clips that are not square, `proportion` is W / H. AUG-12.
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
    """Crop and resize (T, H0, W0, C) uint8 to (T, H, W, C) float64 in [0, 1]. AUG-4."""
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
    """Return the operation's argument for a magnitude in 0..10, or None if it takes none. AUG-7."""
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
    """Apply an operation with argument `told` to a frame (H0, W0, 3) uint8. AUG-7, AUG-8."""
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
    """Return the source point of (x, y), both measured from the frame's corner. AUG-8."""
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
    """Clip to 0..255 and truncate, without losing a level to floating-point error."""
    return np.clip(values + 1e-9, 0, 255).astype(np.uint8)


def _by_channel(frame: np.ndarray, table) -> np.ndarray:
    """Map each channel through the table of 256 values computed from its histogram."""
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
    """Compute rounded ITU-R 601 brightness (H0, W0): weights .299, .587, .114 in units of 1/65536."""
    return np.floor(frame @ np.array([19595, 38470, 7471]) / 65536 + 0.5)


def _smoothed(frame: np.ndarray) -> np.ndarray:
    """Average 3 x 3 pixels, with the centre weighted 5; the frame's border stays unchanged."""
    value = frame.astype(np.float64)
    total = 4 * value[1:-1, 1:-1]
    height, width, _ = frame.shape
    for down, across in np.ndindex(3, 3):
        total = total + value[down : down + height - 2, across : across + width - 2]
    smoothed = value.copy()
    smoothed[1:-1, 1:-1] = np.floor(total / 13 + 0.5)
    return smoothed


def _blended(other, frame: np.ndarray, share: float) -> np.ndarray:
    """Blend in float32, then truncate: the precision decides which level an exact integer becomes."""
    other = np.asarray(other, np.float32)
    return np.clip(other + np.float32(share) * (frame - other), 0, 255).astype(np.uint8)


# Erasing -----------------------------------------------------------------------------------------


def erased_box(
    height: int, width: int, tries: Sequence[Try], corner: tuple[int, int]
) -> Box | None:
    """Return the first region of a hundred tries that fits, at the drawn corner (x, y). AUG-9."""
    for share, log_aspect in tries[:100]:
        area, aspect = share * (height * width), math.exp(log_aspect)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            x, y = corner
            return x, y, x + w, y + h
    return None


def erase(clip: np.ndarray, box: Box, noise: np.ndarray, mean, std) -> np.ndarray:
    """Fill the box of a clip (T, H, W, C) with standard normal noise (T, h, w, C), scaled. AUG-10."""
    left, top, right, bottom = box
    erased = np.array(clip, np.float64)
    erased[:, top:bottom, left:right] = np.asarray(mean) + np.asarray(std) * noise
    return erased
