"""Sliding windows of a long video: their positions and times."""

import numpy as np

from vmae_keras.data.checks import check_at_least


def window_starts(count: int, frames: int, sampling_stride: int, stride: int) -> np.ndarray:
    """Return the first position of each window in a video, 0, stride, ...: (W,) int64.

    Returns every window that lies within the video. A video shorter than a window has a single window.

    Args:
        count: Number of positions in the video.
        frames: Number of frames T in a window.
        sampling_stride: Positions between two frames of a window.
        stride: Positions between two windows.

    Raises:
        ValueError: A number is below 1.

    Source: official `extract_tad_feature.py`; clause FEATURE-1.
    """
    check_at_least(1, count=count, stride=stride)
    return np.arange(0, max(count - window_span(frames, sampling_stride), 0) + 1, stride)


def window_span(frames: int, sampling_stride: int) -> int:
    """Return the number of positions from a window's first frame to its last, inclusive."""
    check_at_least(1, frames=frames, sampling_stride=sampling_stride)
    return (frames - 1) * sampling_stride + 1


def window_times(starts: np.ndarray, span: int, count: int, rate: float) -> np.ndarray:
    """Return the start and end of each window in seconds: (W,) first positions -> (W, 2) float64.

    A frame lasts until the next one. A window that is longer than the video ends with the video.

    Args:
        starts: First position of each window, from `window_starts`.
        span: Number of positions in a window, from `window_span`.
        count: Number of positions in the video.
        rate: Positions per second.

    Source: clause FEATURE-2.
    """
    return np.stack([starts, np.minimum(starts + span, count)], axis=1) / rate


def in_a_window(position: int, starts: np.ndarray, span: int, sampling_stride: int) -> bool:
    """Return True if any window contains the frame at a position."""
    first, end = np.searchsorted(starts, [position - span + 1, position + 1])
    return bool(np.any((position - starts[first:end]) % sampling_stride == 0))
