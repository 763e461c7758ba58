"""The oracle for a video's time stamps and display matrix: SPEC.md's DECODE-3 and DECODE-5."""

import itertools
import math

import numpy as np


def positions(times):
    """Convert ascending time stamps to the ticks at which the frames appear. DECODE-5."""
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    if not any(gaps):
        return list(range(len(times)))
    median = np.median([gap for gap in gaps if gap])
    usual = [gap for gap in gaps if round(gap / median) <= 4]
    mean = sum(usual) / sum(round(gap / median) for gap in usual)
    period = (times[-1] - times[0]) / sum(round(gap / mean) for gap in gaps)
    return [math.floor((time - times[0]) / period + 0.5) for time in times]


def upright(pixels, matrix):
    """Apply the signs (a, b, c, d) of a display matrix to stored pixels (H, W, C). DECODE-3."""
    a, b, c, d = matrix
    height, width = pixels.shape[:2]
    places = {
        (a * x + c * y, b * x + d * y): pixels[y, x] for y in range(height) for x in range(width)
    }
    left, top = min(x for x, _ in places), min(y for _, y in places)
    size = (width, height) if a else (height, width)
    return np.array([[places[left + x, top + y] for x in range(size[0])] for y in range(size[1])])
