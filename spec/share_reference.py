"""The samples of a batch that each device trains on, in order: the oracle of SHARD-1 and SHARD-2."""


def places(batch: int, part: int, parts: int) -> list[int]:
    """Return the samples of one part. SHARD-1."""
    if batch % parts:
        raise ValueError(f"{parts} parts do not divide a batch of {batch}.")
    return [sample for sample in range(batch) if sample * parts // batch == part]


def mixed_order(clips: int, part: int, parts: int) -> list[int]:
    """Return the clips of one part, where clip i of n is mixed with clip n - 1 - i. SHARD-2."""
    if clips % (2 * parts):
        raise ValueError(f"{parts} parts do not divide the pairs of {clips} clips.")
    order = [clip for first in range(clips // 2) for clip in (first, clips - 1 - first)]
    size = clips // parts
    return order[part * size : (part + 1) * size]
