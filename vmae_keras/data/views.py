"""The views that a video is judged by: which frames, which crops, and how their votes are joined."""

import numpy as np


def dense_views(count: int, frames: int, stride: int, clips: int) -> np.ndarray:
    """Positions in a video of `count` frames of clips spread over it: (clips, frames) int64.

    Every `stride`-th frame, the last of them repeated where the video is too short for a clip. A
    single clip is taken from the middle.

    Source: official `kinetics.py` in testing, 5 clips; clause EVAL-1.

    Raises:
        ValueError: a number below 1.
    """
    _check(count=count, frames=frames, stride=stride, clips=clips)
    positions = np.arange(0, count, stride)
    starts = _starts(max(len(positions) - frames, 0), clips)
    rows = np.minimum(starts[:, None] + np.arange(frames), len(positions) - 1)
    return positions[rows]


def uniform_views(count: int, frames: int, clips: int) -> np.ndarray:
    """Positions in a video of `count` frames, one of each of `frames` segments: (clips, frames) int64.

    Of two clips, the first has the segments' first frames, the second their middles; a single clip
    has the middles.

    Source: official `ssv2.py` in testing, 2 clips; clause EVAL-2.

    Raises:
        ValueError: a number below 1, or more than two clips.
    """
    _check(count=count, frames=frames, clips=clips)
    if clips > 2:
        raise ValueError(
            "Uniform sampling has one or two clips of a video. "
            f"Received: clips={clips}. Use 1 or 2, or `dense_views`."
        )
    tick = count / frames
    first = tick * np.arange(frames)
    middle = tick / 2 + tick * np.arange(frames)
    return np.array([first, middle] if clips == 2 else [middle]).astype(np.int64)


def view_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) of a frame once its short side is resized to `size` pixels.

    Source: official `functional.py`; clause EVAL-3.

    Raises:
        ValueError: a number below 1.
    """
    _check(height=height, width=width, size=size)
    short = min(height, width)
    return size * height // short, size * width // short


def view_crops(height: int, width: int, size: int, crops: int) -> list[tuple[int, int]]:
    """Corners (y, x) of square crops of `size` pixels, spread along the long side of a resized frame.

    A single crop is the centre one.

    Source: official `kinetics.py` in testing, 3 crops; clause EVAL-3.

    Raises:
        ValueError: a number below 1, or a frame whose short side is not `size`.
    """
    _check(height=height, width=width, size=size, crops=crops)
    if min(height, width) != size:
        raise ValueError(
            "The frame's short side must be the crop's size. Received: "
            f"height={height}, width={width}, size={size}. Resize it to `view_size` first."
        )
    starts = _starts(max(height, width) - size, crops).tolist()
    return [(start, 0) if height > width else (0, start) for start in starts]


def average_views(logits: np.ndarray) -> np.ndarray:
    """Logits of a video's views (S R, K) to its probabilities (K,), float64.

    The mean of the views' softmax, not the softmax of their mean.

    Source: official `engine_for_finetuning.py`, `merge`; clause EVAL-4.
    """
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).mean(axis=0)


def _starts(spare, count):
    """(count,) int64: from 0 to `spare`, or the middle alone."""
    if count == 1:
        return np.array([spare // 2])
    return (np.arange(count) * (spare / (count - 1))).astype(np.int64)


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={count}.")
