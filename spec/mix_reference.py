"""The oracle for mixing in fine-tuning: SPEC.md's MIX clauses.

The functions take the drawn numbers as arguments. A box is (left, top, right, bottom).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spec.augment_reference import Box

Choice = tuple[float, Box | None]  # ratio, box


def cutmix_box(height: int, width: int, ratio: float, centre: tuple[int, int]) -> Box:
    """Return the box around the drawn centre (x, y), for the drawn ratio. MIX-4."""
    x, y = centre
    half_height = int(height * math.sqrt(1 - ratio)) // 2
    half_width = int(width * math.sqrt(1 - ratio)) // 2
    return (
        max(x - half_width, 0),
        max(y - half_height, 0),
        min(x + half_width, width),
        min(y + half_height, height),
    )


def cutmix_ratio(height: int, width: int, box: Box) -> float:
    """Return the share of a clip's own pixels that remain. MIX-4."""
    left, top, right, bottom = box
    return 1 - (bottom - top) * (right - left) / (height * width)


def choices_of_clips(choice: Choice, clips: int) -> list[Choice]:
    """Return the choice for each clip of a batch: the same for all. MIX-2, MIX-5."""
    if clips % 2:
        raise ValueError(f"Clips are mixed in pairs. Received: {clips} clips. Use an even number.")
    return [choice] * clips


def mixed_videos(videos: np.ndarray, choices: Sequence[Choice]) -> np.ndarray:
    """Mix videos (B, T, H, W, C) in [0, 1] by (ratio, box or None) for each. MIX-3, MIX-4."""
    videos = np.asarray(videos, np.float64)
    mixed = videos.copy()
    for i, (ratio, box) in enumerate(choices):
        other = videos[len(videos) - 1 - i]
        if box is None:
            mixed[i] = ratio * videos[i] + (1 - ratio) * other
        else:
            left, top, right, bottom = box
            mixed[i, :, top:bottom, left:right] = other[:, top:bottom, left:right]
    return mixed


def soft_targets(
    labels: Sequence[int], classes: int, smoothing: float, ratios: Sequence[float]
) -> np.ndarray:
    """Compute targets (B, K) from labels (B,) and ratios (B,). MIX-1."""

    def smoothed(label: int, number: int) -> float:
        return smoothing / classes + (1 - smoothing if number == label else 0)

    last = len(labels) - 1
    return np.array(
        [
            [
                ratio * smoothed(labels[i], k) + (1 - ratio) * smoothed(labels[last - i], k)
                for k in range(classes)
            ]
            for i, ratio in enumerate(ratios)
        ]
    )
