"""The oracle's views of a video and its resizing of positions: SPEC.md's EVAL clauses and POS-3."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from spec.reference import softmax

# Positions on another grid -----------------------------------------------------------------------


def linear(distance: float) -> float:
    """The weight of a neighbour `distance` away: a tent."""
    return max(1 - abs(distance), 0.0)


def cubic(distance: float, a: float = -0.75) -> float:
    """The weight of a neighbour `distance` away: Keys' kernel, two arcs that meet at 1."""
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resize_axis(
    values: np.ndarray, axis: int, count: int, kernel: Callable[[float], float]
) -> np.ndarray:
    """Resizes one axis to `count` values, each a sum over its neighbours. POS-3."""
    old = values.shape[axis]
    if count == old:
        return values
    values = np.moveaxis(values, axis, 0)
    resized = np.zeros((count, *values.shape[1:]))
    for i in range(count):
        source = (i + 0.5) * old / count - 0.5
        for neighbour in range(int(np.floor(source)) - 1, int(np.floor(source)) + 3):
            inside = min(max(neighbour, 0), old - 1)
            resized[i] += kernel(source - neighbour) * values[inside]
    return np.moveaxis(resized, 0, axis)


def resize_positions(table: np.ndarray, grid: Sequence[int], new_grid: Sequence[int]) -> np.ndarray:
    """(t h w, d) on `grid` -> (t' h' w', d) on `new_grid`, float64. POS-3."""
    values = np.asarray(table, np.float64).reshape(*grid, -1)
    for axis, kernel in enumerate((linear, cubic, cubic)):
        values = resize_axis(values, axis, new_grid[axis], kernel)
    return values.reshape(-1, values.shape[-1])


# Views in time: positions of frames --------------------------------------------------------------


def dense_views(count: int, frames: int, stride: int, clips: int) -> np.ndarray:
    """-> (clips, frames): runs of every `stride`-th of `count` frames. EVAL-1."""
    positions = list(range(0, count, stride))
    while len(positions) < frames:
        positions.append(positions[-1])
    spare = len(positions) - frames
    starts = [spare // 2] if clips == 1 else [int(j * (spare / (clips - 1))) for j in range(clips)]
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
    spare = max(height, width) - size
    starts = [spare // 2] if crops == 1 else [int(j * (spare / (crops - 1))) for j in range(crops)]
    return [(start, 0) if height > width else (0, start) for start in starts]


# The views' votes --------------------------------------------------------------------------------


def average_views(logits: np.ndarray) -> np.ndarray:
    """(views, K) -> probabilities (K). EVAL-4."""
    return softmax(np.asarray(logits, np.float64)).mean(0)
