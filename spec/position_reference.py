"""The oracle's resizing of a position table: SPEC.md's POS-3."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


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
