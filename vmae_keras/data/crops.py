"""Crops and resizing of whole clips. A box is (left, top, right, bottom) in pixels, as in Pillow.

There is no flip, because VideoMAE pretrains without one.
"""

import numpy as np
from PIL import Image

SCALES = (1, 0.875, 0.75, 0.66)
MAX_DISTORTION = 1
# Crop offsets (x, y) in quarters of the free space: corners, edge centres, centre and half-way points.
OFFSETS = (
    (0, 0),
    (4, 0),
    (0, 4),
    (4, 4),
    (2, 2),
    (0, 2),
    (4, 2),
    (2, 0),
    (2, 4),
    (1, 1),
    (3, 1),
    (1, 3),
    (3, 3),
)

Box = tuple[int, int, int, int]
Size = tuple[int, int]


def multi_scale_crop(picture: Size, target: Size, generator: np.random.Generator) -> Box:
    """Draw a multi-scale crop as in VideoMAE V1: first its size, then one of 13 offsets.

    `picture` and `target` are (height, width). The crop's height and width are the short side of the
    picture, each scaled by 1, .875, .75 or .66. The two scales are at most one step of this list apart.
    For a target that is not square, the largest box with its aspect ratio replaces the short side.
    A side within two pixels of the target's side becomes the target's side if the picture has room.

    Source: GroupMultiScaleCrop with more_fix_crop, as in official VideoMAE pretraining.
    """
    base = _largest_box(picture, target)
    heights, widths = (
        [_snap(max(int(base[side] * scale), 1), target[side], picture[side]) for scale in SCALES]
        for side in (0, 1)
    )
    sizes = [
        (height, width)
        for i, height in enumerate(heights)
        for j, width in enumerate(widths)
        if abs(i - j) <= MAX_DISTORTION
    ]
    height, width = sizes[generator.integers(len(sizes))]
    across, down = OFFSETS[generator.integers(len(OFFSETS))]
    left = across * ((picture[1] - width) // 4)
    top = down * ((picture[0] - height) // 4)
    return left, top, left + width, top + height


def centre_crop(picture: Size, target: Size) -> Box:
    """Return the largest centred box with the target's aspect ratio.

    `picture` and `target` are (height, width). For a square target, the box's side is the short side of
    the picture.
    """
    height, width = _largest_box(picture, target)
    left, top = (picture[1] - width) // 2, (picture[0] - height) // 2
    return left, top, left + width, top + height


def resize(frames: np.ndarray, box: Box, size: Size) -> np.ndarray:
    """Cut `box` out of every frame and resize it: (T, H, W, C) uint8 -> (T, *size, C) uint8.

    `size` is (height, width); C is 1 or 3. The filter is Pillow's bilinear with antialiasing. The frame is
    cropped before it is resized, as in the official code: with Pillow's own `box` argument, pixels outside
    the box would bleed into its edges.
    """
    left, top, right, bottom = box
    height, width = size
    resized = np.empty((len(frames), height, width, frames.shape[-1]), np.uint8)
    for frame, out in zip(frames[:, top:bottom, left:right], resized, strict=True):
        image = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        out[:] = np.asarray(image).reshape(out.shape)
    return resized


def luma(frames: np.ndarray) -> np.ndarray:
    """Convert RGB to ITU-R 601 luma: (T, H, W, 3) uint8 -> (T, H, W, 1) uint8."""
    return np.stack(
        [np.asarray(Image.fromarray(frame).convert("L"))[..., None] for frame in frames]
    )


def _largest_box(picture: Size, target: Size) -> Size:
    height, width = picture
    if height * target[1] > width * target[0]:
        return max(width * target[0] // target[1], 1), width
    return height, max(height * target[1] // target[0], 1)


def _snap(side: int, target: int, room: int) -> int:
    return target if abs(side - target) < 3 and target <= room else side
