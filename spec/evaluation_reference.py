"""The oracle for the views of a video: SPEC.md's EVAL clauses."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from spec.layers_reference import softmax

# Views in time: positions of frames --------------------------------------------------------------


def dense_views(count: int, frames: int, stride: int, clips: int) -> np.ndarray:
    """Return positions (clips, frames), with every `stride`-th of `count` frames. EVAL-1."""
    positions = list(range(0, count, stride))
    while len(positions) < frames:
        positions.append(positions[-1])
    starts = _starts(len(positions) - frames, clips)
    return np.array([positions[start : start + frames] for start in starts])


def uniform_views(count: int, frames: int, clips: int) -> np.ndarray:
    """Return positions (clips, frames) at the starts and middles of `frames` segments. EVAL-2.

    A single clip has the middles.

    Raises:
        ValueError: The number of clips is neither 1 nor 2.
    """
    if clips not in (1, 2):
        raise ValueError(
            "Uniform sampling knows one or two clips of a video. "
            f"Received: clips={clips}. Use 1 or 2, or dense views."
        )
    tick = count / frames
    starts = [int(tick * i) for i in range(frames)]
    middles = [int(tick / 2 + tick * i) for i in range(frames)]
    return np.array([middles] if clips == 1 else [starts, middles])


# Views in space ----------------------------------------------------------------------------------


def view_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the (height, width) whose short side is `size`. EVAL-3."""
    if width < height:
        return int(size * height / width), size
    return size, int(size * width / height)


def view_crops(height: int, width: int, size: int, crops: int) -> list[tuple[int, int]]:
    """Return the corners (y, x) of `crops` squares along the long side. EVAL-3."""
    starts = _starts(max(height, width) - size, crops)
    return [(start, 0) if height > width else (0, start) for start in starts]


def fitted_size(height: int, width: int, crop: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) scaled by the larger of the ratios of crop to frame. EVAL-5."""
    ratio = max(Fraction(crop[0], height), Fraction(crop[1], width))
    return math.floor(ratio * height), math.floor(ratio * width)


def fitted_crops(
    height: int, width: int, crop: tuple[int, int], crops: int
) -> list[tuple[int, int]]:
    """Return the corners (y, x) of `crops` crops, spread over the spare pixels of each side. EVAL-5."""
    return list(zip(_starts(height - crop[0], crops), _starts(width - crop[1], crops), strict=True))


def _starts(spare: int, count: int) -> list[int]:
    """Round `count` evenly spaced places in 0..spare down to integers. EVAL-1, EVAL-3.

    A single place is the middle, rounded down.
    """
    places = np.arange(spare + 1)
    if count == 1:
        return [int(places[places <= spare - places][-1])]
    step = spare / (count - 1)  # divided before it is multiplied, as upstream
    return [int(np.searchsorted(places, j * step, side="right")) - 1 for j in range(count)]


# Average over views ------------------------------------------------------------------------------


def average_views(logits: np.ndarray) -> np.ndarray:
    """Average the softmax probabilities of views: logits (views, K) -> (K). EVAL-4."""
    return softmax(np.asarray(logits, np.float64)).mean(0)
