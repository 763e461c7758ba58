"""The sliding windows of a long video: which frames each has, and when it begins and ends."""

import numpy as np

from vmae_keras.data.stream import check_at_least


def window_starts(count: int, frames: int, sampling_stride: int, stride: int) -> np.ndarray:
    """(W,) int64: the first position of each window in a video of `count` frames, 0, stride, ...

    Every window that lies in the video; in one that is shorter than a window, a single one.

    Args:
        frames: T, of a window.
        sampling_stride: positions between two frames of a window.
        stride: positions between two windows.

    Source: official `extract_tad_feature.py`; clause FEATURE-1.

    Raises:
        ValueError: a number below 1.
    """
    check_at_least(1, count=count, stride=stride)
    return np.arange(0, max(count - window_span(frames, sampling_stride), 0) + 1, stride)


def window_span(frames: int, sampling_stride: int) -> int:
    """Positions from a window's first frame to its last, with both."""
    check_at_least(1, frames=frames, sampling_stride=sampling_stride)
    return (frames - 1) * sampling_stride + 1


def window_times(starts: np.ndarray, span: int, count: int, rate: float) -> np.ndarray:
    """(W,) first positions -> (W, 2) float64 seconds at which windows begin and end.

    A frame is shown until the next one; a window that is longer than the video ends with the video.

    Args:
        span: of `window_span`.
        count: positions of the video.
        rate: positions in a second.

    Source: clause FEATURE-2.
    """
    return np.stack([starts, np.minimum(starts + span, count)], axis=1) / rate


def in_a_window(position: int, starts: np.ndarray, span: int, sampling_stride: int) -> bool:
    """Whether a window takes the frame at a position."""
    first, end = np.searchsorted(starts, [position - span + 1, position + 1])
    return bool(np.any((position - starts[first:end]) % sampling_stride == 0))
