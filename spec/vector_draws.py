"""The random numbers of golden vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


class Draws:
    """A random generator with equal numbers in every version of NumPy, which the oracle's masks accept."""

    def __init__(self, seed: int):
        self._bits = np.random.PCG64(seed)

    def _raw(self, shape: Sequence[int]) -> np.ndarray:
        return self._bits.random_raw(math.prod(shape)).reshape(shape)

    def dyadic(self, *shape: int) -> np.ndarray:
        """Draw float32 multiples of 2^-11 in [-1, 1)."""
        return ((self._raw(shape) >> 52).astype(np.float32) - 2048) / 2048

    def pixels(self, *shape: int) -> np.ndarray:
        """Draw uint8 values in 0..255."""
        return (self._raw(shape) >> 56).astype(np.uint8)

    def integers(self, high: int) -> int:
        return int(self._bits.random_raw()) % high

    def random(self, count: int) -> np.ndarray:
        return np.ldexp(self._raw((count,)).astype(np.float64), -64)

    def permutation(self, of: int | np.ndarray) -> np.ndarray:
        values = np.arange(of) if isinstance(of, int) else of
        return values[np.argsort(self._raw(values.shape), kind="stable")]
