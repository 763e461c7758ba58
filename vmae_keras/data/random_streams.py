"""Independent random streams, one for each purpose, all derived from one seed."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SEED_LIMIT = 2**64
DRAWS = 2  # version of all random draws; increment it when the streams or the hold-out change


class Purpose(enum.IntEnum):
    """Purposes of random streams. A number is never reused or given another meaning."""

    KERAS = 0  # initial weights, drop-path, dropout
    HOLD_OUT = 1
    FILE_ORDER = 2  # epoch
    SAMPLE = 3  # sample; for its frames, crop, augmentation, masks
    REPLACEMENT = 4  # sample whose file is unreadable
    MIXING = 5  # step
    VALIDATION_MASK = 6  # index of the clip
    PROBE_HOLD_OUT = 7
    PROBE_ORDER = 8  # epoch
    RECONSTRUCTION_MASK = 9
    SYNTHETIC_CLIP = 10  # index of the clip
    CONSISTENCY_WEIGHTS = 11
    CONSISTENCY_BATCH = 12  # step


def generator(seed: int, purpose: Purpose, *numbers: int) -> np.random.Generator:
    """Return the generator for a seed, a purpose, and the numbers listed beside it in `Purpose`.

    Raises:
        ValueError: The seed or a number is not from 0 to 2**64 - 1.

    Source: clause RANDOM-1.
    """
    import numpy as np  # imported late, because `vmae --help` imports this module

    check_seed(seed)
    key = [int(purpose)]
    for number in map(int, numbers):
        _check("Numbers of a random stream", number)
        # Always two 32-bit words. NumPy makes one word of 1 but two of 2**32, and concatenates them all,
        # so keys of variable length could collide.
        key += [number % 2**32, number // 2**32]
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=key))


def check_seed(seed: int) -> None:
    """Raise ValueError unless `seed` is from 0 to 2**64 - 1."""
    _check("`seed`", seed)


def keras_seed(seed: int) -> int:
    """Return a seed for Keras, which accepts at most 32 bits."""
    return int(generator(seed, Purpose.KERAS).integers(2**32))


def _check(name: str, number: int) -> None:
    if not 0 <= number < SEED_LIMIT:
        raise ValueError(f"{name} must be from 0 to {SEED_LIMIT - 1}. Received: {number}.")
