"""Fixed position tables, and resizing of a table to another grid, in NumPy."""

import functools
import math
from collections.abc import Callable

import numpy as np

from vmae_keras.config import VideoMAEConfig

Grid = tuple[int, int, int]


@functools.lru_cache(maxsize=32)
def sinusoid(count: int, dim: int) -> np.ndarray:
    """Return a table over flattened token ids: float32 (count, dim), sine on even, cosine on odd columns.

    It is computed in float64 and then rounded. In float32, the angles of late tokens would be off by 1e-4.

    Source: VideoMAE section 3.4 and official `get_sinusoid_encoding_table`; clauses POS-1, POS-2.
    """
    return _read_only(_sinusoid(count, dim))


@functools.lru_cache(maxsize=32)
def fixed(
    grid: Grid, dim: int, position_grid: Grid | None = None, planar: bool = False
) -> np.ndarray:
    """Return the table for a grid, or that of `position_grid` resized to it: float32 (t h w, dim).

    Args:
        planar: Use MAE's table of one temporal slot instead of the sinusoid over token ids.

    Source: clauses POS-1, POS-4, IMAGE-4.
    """
    made_for = position_grid or grid
    if planar:
        table = _planar(*made_for[1:], dim)
    elif made_for == grid:
        return sinusoid(math.prod(grid), dim)
    else:
        table = _sinusoid(math.prod(made_for), dim)
    return _read_only(resize(table, made_for, grid))


def _planar(height: int, width: int, dim: int) -> np.ndarray:
    """Return sine and cosine of the column, then of the row. MAE `util/pos_embed.py`; clause IMAGE-4."""
    row, column = np.divmod(np.arange(height * width), width)
    period = np.power(10000.0, 4 * np.arange(dim // 4) / dim)
    angles = (place[:, None] / period for place in (column, row))
    return np.concatenate([wave(a) for a in angles for wave in (np.sin, np.cos)], axis=1)


def _sinusoid(count: int, dim: int) -> np.ndarray:
    columns = np.arange(dim)
    angles = np.arange(count)[:, None] / np.power(10000.0, 2 * (columns // 2) / dim)
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))


def _read_only(table: np.ndarray) -> np.ndarray:
    table = table.astype(np.float32)
    table.setflags(write=False)  # the cache shares it
    return table


def resize(table: np.ndarray, grid: Grid, new_grid: Grid) -> np.ndarray:
    """Resize a table (t h w, d) on `grid` to (t' h' w', d) on `new_grid`, in the table's dtype.

    Interpolation is linear in time and cubic in height and width, one axis after the other in float64. An
    axis of unchanged length is not touched.

    Source: official `run_class_finetuning.py`, which resizes only squares and only in space; clause POS-3.

    Raises:
        ValueError: The table does not have one row for each place of `grid`, or a grid is empty.
    """
    table = np.asarray(table)
    if table.ndim != 2 or len(table) != math.prod(grid):
        raise ValueError(
            f"`table` must have the shape (t h w, d), here ({math.prod(grid)}, d). "
            f"Received: shape={table.shape}, grid={tuple(grid)}. Pass the grid that it was made for."
        )
    if min(*grid, *new_grid) < 1:
        raise ValueError(
            "Grids must be three positive integers (t, h, w). "
            f"Received: grid={tuple(grid)}, new_grid={tuple(new_grid)}."
        )
    values = table.astype(np.float64).reshape(*grid, -1)
    for axis, kernel in enumerate((_linear, _cubic, _cubic)):
        if grid[axis] != new_grid[axis]:
            shares = _shares(grid[axis], new_grid[axis], kernel)
            values = np.moveaxis(np.tensordot(shares, values, (1, axis)), 0, axis)
    return values.reshape(-1, table.shape[1]).astype(table.dtype)


def _shares(count: int, new_count: int, kernel: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the contribution of each old place to each new one: (new_count, count)."""
    source = (np.arange(new_count) + 0.5) * count / new_count - 0.5
    shares = np.zeros((new_count, count))
    for offset in (-1, 0, 1, 2):
        neighbour = np.floor(source).astype(int) + offset
        inside = np.clip(neighbour, 0, count - 1)  # repeat the edge
        np.add.at(shares, (np.arange(new_count), inside), kernel(np.abs(source - neighbour)))
    return shares


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - distance, 0.0)


def _cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    x = distance
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def fixed_positions(config: VideoMAEConfig, dim: int) -> np.ndarray:
    """Return the fixed table of an encoder or decoder of width `dim`: float32 (N, dim).

    It has no row for a class token.
    """
    return fixed(config.grid, dim, config.position_grid, config.planar_positions)
