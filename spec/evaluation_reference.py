"""The oracle's views of a video: SPEC.md's EVAL clauses."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from spec.reference import softmax

# Views in time: positions of frames --------------------------------------------------------------


def dense_views(count: int, frames: int, stride: int, clips: int) -> np.ndarray:
    """-> (clips, frames): runs of every `stride`-th of `count` frames. EVAL-1."""
    positions = list(range(0, count, stride))
    while len(positions) < frames:
        positions.append(positions[-1])
    starts = _starts(len(positions) - frames, clips)
    return np.array([positions[start : start + frames] for start in starts])


def uniform_views(count: int, frames: int, clips: int) -> np.ndarray:
    """-> (clips, frames): the starts and the middles of `frames` segments, or these. EVAL-2."""
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
    """-> (height, width) whose short side is `size`. EVAL-3."""
    if width < height:
        return int(size * height / width), size
    return size, int(size * width / height)


def view_crops(height: int, width: int, size: int, crops: int) -> list[tuple[int, int]]:
    """-> the corners (y, x) of `crops` squares along the long side. EVAL-3."""
    starts = _starts(max(height, width) - size, crops)
    return [(start, 0) if height > width else (0, start) for start in starts]


def fitted_size(height: int, width: int, crop: tuple[int, int]) -> tuple[int, int]:
    """-> (height, width) enlarged by the larger of the two ratios that make the sides equal. EVAL-5."""
    ratio = max(Fraction(crop[0], height), Fraction(crop[1], width))
    return math.floor(ratio * height), math.floor(ratio * width)


def fitted_crops(
    height: int, width: int, crop: tuple[int, int], crops: int
) -> list[tuple[int, int]]:
    """-> the corners (y, x) of `crops` crops, spread along either side by what it has spare. EVAL-5."""
    return list(zip(_starts(height - crop[0], crops), _starts(width - crop[1], crops), strict=True))


def _starts(spare: int, count: int) -> list[int]:
    """The last whole place of 0..spare that is not beyond each of `count` even steps. EVAL-1, EVAL-3.

    A single one is the last with no more before it than behind it.
    """
    places = np.arange(spare + 1)
    if count == 1:
        return [int(places[places <= spare - places][-1])]
    step = spare / (count - 1)  # as upstream, the quotient comes before the product
    return [int(np.searchsorted(places, j * step, side="right")) - 1 for j in range(count)]


# The views' votes --------------------------------------------------------------------------------


def average_views(logits: np.ndarray) -> np.ndarray:
    """(views, K) -> probabilities (K). EVAL-4."""
    return softmax(np.asarray(logits, np.float64)).mean(0)
