"""Independent streams of random numbers: one seed, and a stream of its own for each purpose."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SEED_LIMIT = 2**64
DRAWS = 2  # version of how a run draws; a change of streams or hold-out makes it one more


class Purpose(enum.IntEnum):
    """Purposes of random numbers. A number is never reused, nor given another meaning."""

    KERAS = 0  # initial weights, drop-path, dropout
    HOLD_OUT = 1
    FILE_ORDER = 2  # epoch
    SAMPLE = 3  # sample: frames, crop, augmentation, masks
    REPLACEMENT = 4  # sample whose file is broken
    MIXING = 5  # step
    VALIDATION_MASK = 6  # place of the clip
    PROBE_HOLD_OUT = 7
    PROBE_ORDER = 8  # epoch
    RECONSTRUCTION_MASK = 9
    SYNTHETIC_CLIP = 10  # number of the clip
    CONSISTENCY_WEIGHTS = 11
    CONSISTENCY_BATCH = 12  # step


def generator(seed: int, purpose: Purpose, *numbers: int) -> np.random.Generator:
    """Return the generator of a seed, a purpose and the numbers beside it in `Purpose`.

    Raises:
        ValueError: a seed or number that is not from 0 to 2**64 - 1.

    Source: clause RANDOM-1.
    """
    import numpy as np  # here, as `vmae --help` imports this module

    check_seed(seed)
    key = [int(purpose)]
    for number in map(int, numbers):
        _check("Numbers of a random stream", number)
        # Two words of 32 bits each: NumPy makes one word of 1 and two of 2**32, and joins them all.
        key += [number % 2**32, number // 2**32]
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=key))


def check_seed(seed: int) -> None:
    """Raise ValueError unless `seed` is from 0 to 2**64 - 1."""
    _check("`seed`", seed)


def keras_seed(seed: int) -> int:
    """Return the 32-bit seed for Keras, which takes no longer one."""
    return int(generator(seed, Purpose.KERAS).integers(2**32))


def _check(name, number):
    if not 0 <= number < SEED_LIMIT:
        raise ValueError(f"{name} must be from 0 to {SEED_LIMIT - 1}. Received: {number}.")
