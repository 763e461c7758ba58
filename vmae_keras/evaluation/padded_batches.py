"""Batches of one size from any number of clips, so that a model is compiled once."""

from collections.abc import Iterable, Iterator

import numpy as np


def pad_batches(clips: Iterable[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield batches (size, T, H, W, C) and the number of clips in each; pad the last with black."""
    held = []
    for clip in clips:
        held.append(clip)
        if len(held) == size:
            yield np.stack(held), size
            held = []
    if held:
        yield np.stack(held + [np.zeros_like(held[0])] * (size - len(held))), len(held)
