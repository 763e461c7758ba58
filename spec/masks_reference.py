"""The oracle for masks: SPEC.md's MASK, CELL and DUAL clauses, one clip at a time, with loops.

`grid` is (t, h, w); token id = (ti * h + hi) * w + wi. Ids are sorted int32 arrays.
The library may consume the generator in another order. So compare counts and properties, and
compare running cells by `running_cell_pattern`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Ids = np.ndarray


def tube(grid: Sequence[int], ratio: float, generator: np.random.Generator) -> tuple[Ids, Ids]:
    """Draw visible (V,) and masked (M,): the same random places in every temporal slot. MASK-2."""
    t, h, w = grid
    places = generator.permutation(h * w)[: int(ratio * (h * w))]
    return _split(grid, ratio, [slot * h * w + place for slot in range(t) for place in places])


def random(grid: Sequence[int], ratio: float, generator: np.random.Generator) -> tuple[Ids, Ids]:
    """Draw visible and masked: int(ratio * N) of all tokens are masked. MASK-3."""
    total = int(np.prod(grid))
    return _split(grid, ratio, generator.permutation(total)[: int(ratio * total)])


def frame(grid: Sequence[int], ratio: float, generator: np.random.Generator) -> tuple[Ids, Ids]:
    """Draw visible and masked: int(ratio * t) whole temporal slots are masked. MASK-4."""
    t, h, w = grid
    slots = generator.permutation(t)[: int(ratio * t)]
    return _split(grid, ratio, [slot * h * w + place for slot in slots for place in range(h * w)])


def agnostic(grid: Sequence[int], ratio: float, generator: np.random.Generator) -> tuple[Ids, Ids]:
    """Draw visible and masked: the int(N * (1 - ratio)) tokens of least noise stay visible. MASK-5."""
    total = int(np.prod(grid))
    return _split(grid, ratio, np.argsort(generator.random(total))[int(total * (1 - ratio)) :])


def _split(grid: Sequence[int], ratio: float, masked: Iterable[int]) -> tuple[Ids, Ids]:
    chosen = {int(token) for token in masked}
    total = int(np.prod(grid))
    if not 0 < ratio < 1 or not 0 < len(chosen) < total:
        raise ValueError(
            "A mask must leave at least one visible and one masked token. "
            f"Received: ratio={ratio}, grid={tuple(grid)}, which masks {len(chosen)} of {total}. "
            "Use another ratio or a larger grid."
        )
    visible = [token for token in range(total) if token not in chosen]
    return np.array(visible, np.int32), np.array(sorted(chosen), np.int32)


def running_cell_pattern(grid: Sequence[int], ratio: float, pointer: int) -> np.ndarray:
    """Return the pattern of a pointer in 0..3, (t, h, w) bool: True where decoded. CELL-1, CELL-2.

    The surplus of CELL-4 is included.
    """
    ones = int(4 * ratio)
    if not 1 <= ones <= 3:
        raise ValueError(
            "`ratio` of a running cell must give 1, 2 or 3 hidden of 4. "
            f"Received: ratio={ratio}, int(4 * ratio)={ones}. Use 0.25, 0.5 or 0.75."
        )
    queue = [1] * ones + [0] * (4 - ones)
    pattern = np.empty(tuple(grid), bool)
    for s, y, x in np.ndindex(*grid):
        place = 2 * (y % 2) + x % 2  # row-major in the 2 x 2 cell
        pattern[s, y, x] = queue[(place + pointer + 1 + s) % 4] == 0
    return pattern


def running_cell_count(grid: Sequence[int], ratio: float) -> int:
    """Return the static number of decoded tokens: the smallest over the four pointers. CELL-4."""
    return min(int(running_cell_pattern(grid, ratio, pointer).sum()) for pointer in range(4))


def running_cell(grid: Sequence[int], ratio: float, generator: np.random.Generator) -> Ids:
    """Draw decoded (M,): the pattern of a random pointer, less a random surplus. CELL-3, CELL-4."""
    pattern = running_cell_pattern(grid, ratio, int(generator.integers(4)))
    kept = generator.permutation(np.flatnonzero(pattern))[: running_cell_count(grid, ratio)]
    return np.sort(kept).astype(np.int32)


def pretraining(
    grid: Sequence[int],
    generator: np.random.Generator,
    *,
    kind: str = "tube",
    ratio: float = 0.9,
    decoder_ratio: float | None = None,
) -> dict[str, np.ndarray]:
    """Draw one clip's ids: visible, decoded and, with a decoder ratio, weight. DUAL-1 to DUAL-3."""
    draw = {"tube": tube, "random": random, "frame": frame, "agnostic": agnostic}[kind]
    visible, masked = draw(grid, ratio, generator)
    if decoder_ratio is None:
        return {"visible": visible, "decoded": masked}
    decoded = running_cell(grid, decoder_ratio, generator)
    weight = np.isin(decoded, masked).astype(np.float32)
    return {"visible": visible, "decoded": decoded, "weight": weight}
