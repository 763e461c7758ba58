"""Encoder and decoder masks in NumPy: which tokens are visible, masked, decoded.

A mask is represented by sorted int32 token ids. Their number depends only on the sizes and the ratio, so
that every shape is static. Every function takes the random generator to draw from.
A grid is (t, h, w); the id of a token is (ti * h + hi) * w + wi.

Example:
    import numpy as np
    from vmae_keras import masks

    visible, masked = masks.tube((8, 14, 14), 0.9, np.random.default_rng(0))
"""

import functools
import math

import numpy as np

Grid = tuple[int, int, int]
Ids = np.ndarray


def tube(grid: Grid, ratio: float, generator: np.random.Generator) -> tuple[Ids, Ids]:
    """Mask the same int(ratio * (h * w)) places in every temporal slot. Return (visible, masked).

    Source: VideoMAE section 3.3; clauses MASK-1, MASK-2.
    """
    t, h, w = grid
    frame = np.zeros(h * w, bool)
    frame[_choose(h * w, int(ratio * (h * w)), ratio, grid, generator)] = True
    return _split(np.tile(frame, t))


def random(grid: Grid, ratio: float, generator: np.random.Generator) -> tuple[Ids, Ids]:
    """Mask int(ratio * N) of all tokens. Return (visible, masked). Clause MASK-3."""
    count = math.prod(grid)
    hidden = np.zeros(count, bool)
    hidden[_choose(count, int(ratio * count), ratio, grid, generator)] = True
    return _split(hidden)


def frame(grid: Grid, ratio: float, generator: np.random.Generator) -> tuple[Ids, Ids]:
    """Mask int(ratio * t) whole temporal slots. Return (visible, masked).

    Source: the ablation of VideoMAE section 4.2; clause MASK-4.
    """
    t, h, w = grid
    slots = np.zeros(t, bool)
    slots[_choose(t, int(ratio * t), ratio, grid, generator)] = True
    return _split(np.repeat(slots, h * w))


def agnostic(grid: Grid, ratio: float, generator: np.random.Generator) -> tuple[Ids, Ids]:
    """Keep the int(N * (1 - ratio)) tokens with the lowest random noise. Return (visible, masked).

    Source: space-time agnostic masking of mae_st; clause MASK-5.
    """
    count = math.prod(grid)
    kept = int(count * (1 - ratio))
    _check_count(count - kept, count, ratio, grid)
    hidden = np.ones(count, bool)
    hidden[np.argsort(generator.random(count))[:kept]] = False
    return _split(hidden)


MASKS = {"tube": tube, "random": random, "frame": frame, "agnostic": agnostic}


def running_cell(grid: Grid, ratio: float, generator: np.random.Generator) -> Ids:
    """Draw the ids that V2's decoder mask keeps, from a random phase of the running 2 x 2 cell.

    Every phase returns as many ids as the phase that keeps the fewest. On grids with an even height and
    width all phases keep the same number; on others the surplus of a phase is dropped at random.

    Source: VideoMAE V2 section 3.2; clauses CELL-1 to CELL-4.

    Raises:
        ValueError: The ratio hides none or all of the cell, or the grid is too small.
    """
    hidden = int(4 * ratio)
    if not 0 < hidden < 4:
        raise ValueError(
            "`ratio` of running cells must hide one to three of four places. "
            f"Received: ratio={ratio}. Use 0.25, 0.5 or 0.75."
        )
    phases = [np.flatnonzero(~_cells(grid, hidden, pointer)) for pointer in range(4)]
    kept = min(len(ids) for ids in phases)
    if kept == 0:
        raise ValueError(
            f"The grid is too small for running cells: a phase keeps no token. Received: grid={grid}."
        )
    decoded = phases[generator.integers(4)]
    if len(decoded) > kept:
        decoded = np.sort(generator.choice(decoded, kept, replace=False))
    return decoded.astype(np.int32)


def pretraining(
    grid: Grid,
    generator: np.random.Generator,
    *,
    kind: str = "tube",
    ratio: float = 0.9,
    decoder_ratio: float | None = None,
) -> dict[str, np.ndarray]:
    """Draw the masks of one clip: `visible` (V,), `decoded` (M,) and, with a decoder mask, `weight` (M,).

    Without `decoder_ratio` (V1), all masked tokens are decoded. With it (V2), running cells select the
    decoded tokens, and `weight` is 1.0 where a decoded token is hidden from the encoder, else 0.0.

    Source: clauses DUAL-1 to DUAL-3.

    Raises:
        ValueError: The kind is unknown, or the ratio leaves no token visible or none masked.
    """
    if kind not in MASKS:
        raise ValueError(f"`kind` must be one of {', '.join(MASKS)}. Received: kind={kind!r}.")
    visible, masked = MASKS[kind](grid, ratio, generator)
    if decoder_ratio is None:
        return {"visible": visible, "decoded": masked}
    decoded = running_cell(grid, decoder_ratio, generator)
    hidden = np.isin(decoded, masked, assume_unique=True)
    return {"visible": visible, "decoded": decoded, "weight": hidden.astype(np.float32)}


@functools.cache
def count_tokens(
    grid: Grid, *, kind: str = "tube", ratio: float = 0.9, decoder_ratio: float | None = None
) -> tuple[int, int]:
    """Return the numbers of visible and of decoded tokens of one clip, which every draw has.

    Arguments and errors are those of `pretraining`.
    """
    drawn = pretraining(
        grid, np.random.default_rng(0), kind=kind, ratio=ratio, decoder_ratio=decoder_ratio
    )
    return len(drawn["visible"]), len(drawn["decoded"])


def _cells(grid: tuple[int, int, int], hidden: int, pointer: int) -> np.ndarray:
    """Return (N,) bool, True where not decoded: 2 x 2 cells, rotated by one place in each slot."""
    t, h, w = grid
    queue = np.arange(4) < hidden
    slots = [
        np.tile(np.roll(queue, -(pointer + 1 + slot)).reshape(2, 2), ((h + 1) // 2, (w + 1) // 2))
        for slot in range(t)
    ]
    return np.stack(slots)[:, :h, :w].reshape(-1)


def _split(hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(~hidden).astype(np.int32), np.flatnonzero(hidden).astype(np.int32)


def _choose(
    count: int,
    hidden: int,
    ratio: float,
    grid: tuple[int, int, int],
    generator: np.random.Generator,
) -> np.ndarray:
    _check_count(hidden, count, ratio, grid)
    return generator.choice(count, hidden, replace=False)


def _check_count(hidden: int, count: int, ratio: float, grid: tuple[int, int, int]) -> None:
    if not 0 < hidden < count:
        raise ValueError(
            "`ratio` must leave at least one token visible and one masked. "
            f"Received: ratio={ratio}, which hides {hidden} of {count} on the grid {grid}."
        )
