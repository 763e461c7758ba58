"""Which ticks of a video make a clip: those of a window, or one of each segment.

All return T ascending positions in [0, ticks), integers, for `decode.read_frames`.
"""

import numpy as np


def dense(
    ticks: int, frames: int, stride: int, generator: np.random.Generator | None = None
) -> np.ndarray:
    """A window of `frames * stride` ticks, every `stride`-th of it: (frames,) int64.

    The window is drawn from `generator`, or the centre one without. A video shorter than the window
    is taken from its beginning, its last tick filling up the clip.

    Source: official VideoMAE V1 and V2 pretraining (stride 4 for Kinetics, 2 for SSv2); clauses
    DATA-1, DATA-2.

    Raises:
        ValueError: a count below 1.
    """
    _check(ticks=ticks, frames=frames, stride=stride)
    spare = max(ticks - frames * stride, 0)
    start = spare // 2 if generator is None else generator.integers(spare + 1)
    return np.minimum(start + stride * np.arange(frames), ticks - 1)


def spread(
    ticks: int, frames: int, stride: int, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Spread positions evenly over a window of `frames * stride` ticks: (frames,) int64.

    Fine-tuning samples clips from the window's first tick to its last: 16 frames of 64 ticks are 4.27
    apart, and not 4 as with `dense`. The window is drawn from `generator`, or the centre one without. In a
    video shorter than the window, ticks are about `stride` apart, and the last one fills up the clip.

    Source: official `kinetics.py`, VideoMAE V2's `datasets.py`; clause AUG-11.

    Raises:
        ValueError: a count below 1.
    """
    _check(ticks=ticks, frames=frames, stride=stride)
    window = min(frames * stride, ticks)
    spare = ticks - window
    start = spare // 2 if generator is None else generator.integers(max(spare, 1))
    step = window / max(window // stride - 1, 1)
    return np.minimum(start + step * np.arange(frames), start + window - 1).astype(np.int64)


def uniform(ticks: int, frames: int, generator: np.random.Generator | None = None) -> np.ndarray:
    """One tick of each of `frames` equal segments: (frames,) int64.

    Drawn from `generator` within segments of ticks // frames, or without it the centres of segments
    of ticks / frames. In a video of fewer ticks than segments, segments share a tick.

    Source: temporal segment networks, as official VideoMAE uses for SSv2; clause DATA-3.

    Raises:
        ValueError: a count below 1.
    """
    _check(ticks=ticks, frames=frames)
    segments = np.arange(frames)
    length = ticks // frames
    if generator is None or not length:
        return (2 * segments + 1) * ticks // (2 * frames)
    return segments * length + generator.integers(length, size=frames)


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={count}.")
