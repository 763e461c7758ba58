"""Frame sampling: select the ticks of a clip, from a window or one per segment.

All functions return T ascending integer positions in [0, ticks), for `frames.read_frames`.
"""

import numpy as np

from vmae_keras.data.checks import check_at_least


def dense(
    ticks: int, frames: int, stride: int, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Return every `stride`-th tick of a window of `frames * stride` ticks: (frames,) int64.

    The window is drawn from `generator`; without one, it is the centre window. In a video shorter than the
    window, the clip starts at the beginning and repeats the last tick.

    Raises:
        ValueError: A count is below 1.

    Source: official VideoMAE V1 and V2 pretraining (stride 4 for Kinetics, 2 for SSv2); clauses
    DATA-1, DATA-2.
    """
    check_at_least(1, ticks=ticks, frames=frames, stride=stride)
    spare = max(ticks - frames * stride, 0)
    start = spare // 2 if generator is None else generator.integers(spare + 1)
    return np.minimum(start + stride * np.arange(frames), ticks - 1)


def spread(
    ticks: int, frames: int, stride: int, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Spread positions evenly over a window of `frames * stride` ticks: (frames,) int64.

    Fine-tuning samples from the window's first tick to its last: 16 frames of 64 ticks are 4.27 ticks
    apart, not 4 as with `dense`. The window is drawn from `generator`; without one, it is the centre
    window. In a video shorter than the window, positions are about `stride` apart and the last one repeats.

    Raises:
        ValueError: A count is below 1.

    Source: official `kinetics.py`, VideoMAE V2's `datasets.py`; clause AUG-11.
    """
    check_at_least(1, ticks=ticks, frames=frames, stride=stride)
    window = min(frames * stride, ticks)
    spare = ticks - window
    start = spare // 2 if generator is None else generator.integers(max(spare, 1))
    step = window / max(window // stride - 1, 1)
    return np.minimum(start + step * np.arange(frames), start + window - 1).astype(np.int64)


def uniform(ticks: int, frames: int, generator: np.random.Generator | None = None) -> np.ndarray:
    """Return one tick from each of `frames` equal segments: (frames,) int64.

    With a generator, ticks are drawn within segments of length ticks // frames. Without one, they are the
    centres of segments of length ticks / frames. In a video with fewer ticks than segments, segments share
    ticks.

    Raises:
        ValueError: A count is below 1.

    Source: temporal segment networks, as used by official VideoMAE for SSv2; clause DATA-3.
    """
    check_at_least(1, ticks=ticks, frames=frames)
    segments = np.arange(frames)
    length = ticks // frames
    if generator is None or not length:
        return (2 * segments + 1) * ticks // (2 * frames)
    return segments * length + generator.integers(length, size=frames)
