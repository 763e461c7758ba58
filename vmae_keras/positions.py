"""The fixed sinusoid position table, in NumPy."""

import functools

import numpy as np


@functools.lru_cache(maxsize=32)
def sinusoid(count: int, dim: int) -> np.ndarray:
    """float32 (count, dim): sine on even, cosine on odd columns, over the flattened token index.

    Computed in float64, then rounded: in float32 the angles of late tokens are off by 1e-4.

    Source: VideoMAE section 3.4 and official `get_sinusoid_encoding_table`; clauses POS-1, POS-2.
    """
    columns = np.arange(dim)
    angles = np.arange(count)[:, None] / np.power(10000.0, 2 * (columns // 2) / dim)
    table = np.where(columns % 2 == 0, np.sin(angles), np.cos(angles)).astype(np.float32)
    table.setflags(write=False)  # the cached table is shared
    return table
