"""Evaluation views of a video: their frames and crops, and the average of their predictions."""

import numpy as np

from vmae_keras.data.checks import check_at_least

Size = tuple[int, int]
CLIPS = {"dense": 5, "uniform": 2}  # published clips per video by sampling; the maximum for uniform


def dense_views(count: int, frames: int, stride: int, clips: int) -> np.ndarray:
    """Return positions of clips spread over a video of `count` frames: (clips, frames) int64.

    A clip has every `stride`-th frame. If the video is too short for a clip, its last position repeats. A
    single clip is taken from the middle.

    Raises:
        ValueError: A number is below 1.

    Source: official `kinetics.py` in testing, 5 clips; clause EVAL-1.
    """
    check_at_least(1, count=count, frames=frames, stride=stride, clips=clips)
    positions = np.arange(0, count, stride)
    starts = _starts(max(len(positions) - frames, 0), clips)
    rows = np.minimum(starts[:, None] + np.arange(frames), len(positions) - 1)
    return positions[rows]


def uniform_views(count: int, frames: int, clips: int) -> np.ndarray:
    """Return positions in a video of `count` frames, one per segment: (clips, frames) int64.

    The video is divided into `frames` segments. A single clip has the middle frame of each segment. Of two
    clips, the first has the segments' first frames and the second their middle frames.

    Raises:
        ValueError: A number is below 1, or there are more than two clips.

    Source: official `ssv2.py` in testing, 2 clips; clause EVAL-2.
    """
    check_at_least(1, count=count, frames=frames, clips=clips)
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
    """Return the (height, width) to which a frame is resized so that crops of `size` just fit.

    `size` is (height, width). For square crops, the frame's short side becomes the crop's side.

    Raises:
        ValueError: A number is below 1.

    Source: official `functional.py`, for squares; clauses EVAL-3, EVAL-5.
    """
    high, wide = size
    check_at_least(1, height=height, width=width, size=min(size))
    if height * wide > width * high:  # room above and below
        return wide * height // width, wide
    return high, high * width // height


def view_crops(height: int, width: int, size: Size, crops: int) -> list[tuple[int, int]]:
    """Return the corners (y, x) of crops of `size`, (height, width), spread over a resized frame.

    The crops are spread along the side that is longer than the crop's. A single crop is the centre crop.

    Raises:
        ValueError: A number is below 1, or the crop does not exactly fit one side of the frame.

    Source: official `kinetics.py` in testing, 3 crops; clauses EVAL-3, EVAL-5.
    """
    check_at_least(1, height=height, width=width, crops=crops)
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
    """Average a video's views: logits (S R, K) -> probabilities (K,), float64.

    Returns the mean of the views' softmax, not the softmax of their mean.

    Source: official `engine_for_finetuning.py`, `merge`; clause EVAL-4.
    """
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).mean(axis=0)


def _starts(spare: int, count: int) -> np.ndarray:
    """Return `count` starts from 0 to `spare`, or only the middle: (count,) int64."""
    if count == 1:
        return np.array([spare // 2])
    return (np.arange(count) * (spare / (count - 1))).astype(np.int64)
