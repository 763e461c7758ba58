"""A random generator that records its calls and results, for comparison with the oracle."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Draw:
    """One call of a generator's method."""

    method: str
    arguments: tuple
    value: Any


class RecordedGenerator:
    """Replacement for `np.random.default_rng(seed)` that lists its calls in `draws`, in order."""

    def __init__(self, seed: int):
        self.draws: list[Draw] = []
        self._generator = np.random.default_rng(seed)

    def __getattr__(self, method):
        def draw(*arguments, **named):
            value = getattr(self._generator, method)(*arguments, **named)
            self.draws.append(Draw(method, arguments, value))
            return value

        return draw
