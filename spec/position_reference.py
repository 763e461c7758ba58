"""The oracle for position tables and their resizing: SPEC.md's POS clauses and IMAGE-4."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def linear(distance: float) -> float:
    """Return the weight of a neighbour at `distance`: a triangle."""
    return max(1 - abs(distance), 0.0)


def cubic(distance: float, a: float = -0.75) -> float:
    """Return the weight of a neighbour at `distance`: Keys' kernel, two cubics that meet at 1."""
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resize_axis(
    values: np.ndarray, axis: int, count: int, kernel: Callable[[float], float]
) -> np.ndarray:
    """Resize one axis to `count` values, each a weighted sum of its neighbours. POS-3."""
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
    """Resize (t h w, d) on `grid` to (t' h' w', d) on `new_grid`, in float64. POS-3."""
    values = np.asarray(table, np.float64).reshape(*grid, -1)
    for axis, kernel in enumerate((linear, cubic, cubic)):
        values = resize_axis(values, axis, new_grid[axis], kernel)
    return values.reshape(-1, values.shape[-1])


def sinusoid_positions(count: int, dim: int) -> np.ndarray:
    """Return a table (count, dim) of one-dimensional sinusoids over the token id. POS-1."""
    position = np.arange(count, dtype=np.float64)[:, None]
    column = np.arange(dim)[None, :]
    angle = position / np.power(10000.0, 2 * (column // 2) / dim)
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle))


def planar_positions(height: int, width: int, dim: int) -> np.ndarray:
    """Return a table (height width, dim): sines and cosines of the column, then the row. IMAGE-4."""
    rows, columns = np.divmod(np.arange(height * width), width)
    frequency = 10000.0 ** (-np.arange(dim // 4) / (dim // 4))
    across, down = (np.outer(place, frequency) for place in (columns, rows))
    return np.concatenate([np.sin(across), np.cos(across), np.sin(down), np.cos(down)], axis=1)


def fixed_positions(config: Any, video: np.ndarray, dim: int) -> np.ndarray:
    """Return the table (N, dim) for a video, which may be longer than the configuration's. POS-4."""
    grid = [size // part for size, part in zip(np.shape(video)[1:4], config.tubelet, strict=True)]
    made_for = config.position_grid or grid
    if config.planar_positions:
        table = planar_positions(*made_for[1:], dim)
    else:
        table = sinusoid_positions(math.prod(made_for), dim)
    return resize_positions(table, made_for, grid) if config.position_grid else table
