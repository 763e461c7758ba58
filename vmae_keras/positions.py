"""The fixed position tables, and a table for another grid, in NumPy."""

import functools
import math

import numpy as np

Grid = tuple[int, int, int]


@functools.lru_cache(maxsize=32)
def sinusoid(count: int, dim: int) -> np.ndarray:
    """float32 (count, dim): sine on even, cosine on odd columns, over the flattened token index.

    Computed in float64, then rounded: in float32 the angles of late tokens are off by 1e-4.

    Source: VideoMAE section 3.4 and official `get_sinusoid_encoding_table`; clauses POS-1, POS-2.
    """
    return _read_only(_sinusoid(count, dim))


@functools.lru_cache(maxsize=32)
def fixed(
    grid: Grid, dim: int, position_grid: Grid | None = None, planar: bool = False
) -> np.ndarray:
    """float32 (t h w, dim): the table for a grid, or the one of `position_grid` resized to it.

    Args:
        planar: MAE's table of one temporal slot, in place of the sinusoid over token ids.

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


def _planar(height, width, dim):
    """Sine and cosine of the column, then of the row. MAE `util/pos_embed.py`; clause IMAGE-4."""
    row, column = np.divmod(np.arange(height * width), width)
    period = np.power(10000.0, 4 * np.arange(dim // 4) / dim)
    angles = (place[:, None] / period for place in (column, row))
    return np.concatenate([wave(a) for a in angles for wave in (np.sin, np.cos)], axis=1)


def _sinusoid(count, dim):
    columns = np.arange(dim)
    angles = np.arange(count)[:, None] / np.power(10000.0, 2 * (columns // 2) / dim)
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))


def _read_only(table):
    table = table.astype(np.float32)
    table.setflags(write=False)  # a cached table has many readers
    return table


def resize(table: np.ndarray, grid: Grid, new_grid: Grid) -> np.ndarray:
    """(t h w, d) on `grid` to (t' h' w', d) on `new_grid`, in the table's dtype.

    Linear in time, cubic in height and width, one axis after the other in float64; an axis of
    unchanged length is left alone.

    Source: official `run_class_finetuning.py`, which resizes squares in space alone; clause POS-3.

    Raises:
        ValueError: the table does not have one row for each place of `grid`, or a grid has none.
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


def _shares(count, new_count, kernel):
    """(new_count, count): how much each old place contributes to each new one."""
    source = (np.arange(new_count) + 0.5) * count / new_count - 0.5
    shares = np.zeros((new_count, count))
    for offset in (-1, 0, 1, 2):
        neighbour = np.floor(source).astype(int) + offset
        inside = np.clip(neighbour, 0, count - 1)  # outside: the edge again
        np.add.at(shares, (np.arange(new_count), inside), kernel(np.abs(source - neighbour)))
    return shares


def _linear(distance):
    return np.maximum(1.0 - distance, 0.0)


def _cubic(distance, a=-0.75):
    x = distance
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def fixed_positions(config, dim):
    """Return the table of an encoder or decoder of width `dim`: float32 (N, dim), no class token's row."""
    return fixed(config.grid, dim, config.position_grid, config.planar_positions)
