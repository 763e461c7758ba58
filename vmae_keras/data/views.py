"""The views that a video is judged by: which frames, which crops, and how their votes are joined."""

import numpy as np

Size = tuple[int, int]
CLIPS = {"dense": 5, "uniform": 2}  # of a video by its sampling, as published; uniform has no more


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
    if clips > CLIPS["uniform"]:
        raise ValueError(
            "Uniform sampling has one or two clips of a video. "
            f"Received: clips={clips}. Use 1 or 2, or `dense_views`."
        )
    tick = count / frames
    first = tick * np.arange(frames)
    middle = tick / 2 + tick * np.arange(frames)
    return np.array([first, middle] if clips == 2 else [middle]).astype(np.int64)


def view_size(height: int, width: int, size: Size) -> Size:
    """Return (height, width) of a frame resized so that crops of `size`, (height, width), just fit.

    For square crops the frame's short side becomes the crop's side.

    Source: official `functional.py`, for squares; clauses EVAL-3, EVAL-5.

    Raises:
        ValueError: a number below 1.
    """
    high, wide = size
    _check(height=height, width=width, size=min(size))
    if height * wide > width * high:  # room above and below
        return wide * height // width, wide
    return high, high * width // height


def view_crops(height: int, width: int, size: Size, crops: int) -> list[tuple[int, int]]:
    """Return corners (y, x) of crops of `size`, (height, width), spread over a resized frame.

    They lie along the side that has room. A single crop is the centre one.

    Source: official `kinetics.py` in testing, 3 crops; clauses EVAL-3, EVAL-5.

    Raises:
        ValueError: a number below 1, or a frame that does not just hold a crop.
    """
    _check(height=height, width=width, crops=crops)
    above, beside = height - size[0], width - size[1]
    if min(above, beside) != 0:
        raise ValueError(
            "The crop must just fit into the frame: one of its sides must be the frame's, the other no "
            f"longer. Received: height={height}, width={width}, size={size}. Resize the frame to "
            "`view_size` first."
        )
    starts = _starts(max(above, beside), crops).tolist()
    return [(start, 0) if above else (0, start) for start in starts]


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
