"""Crop and resize whole clips. A box is (left, top, right, bottom) in pixels, as in Pillow.

There is no flip: VideoMAE pretrains without one.
"""

import numpy as np
from PIL import Image

SCALES = (1, 0.875, 0.75, 0.66)
MAX_DISTORTION = 1
# The crop's offset in quarters of the room that it leaves: corners, edges, centre, half-way points.
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
    """Draw one of the multi-scale crops of VideoMAE V1: its size, then one of 13 offsets.

    `picture` and `target` are (height, width). Height and width of the crop are scaled by 1, .875,
    .75 or .66, at most one step of that list apart, from the short side of the picture (for a
    target that is not square: from the largest box of its proportions). A side within two pixels of
    the target's becomes the target's, where the picture has room.

    Source: GroupMultiScaleCrop with more_fix_crop, as official VideoMAE pretrains.
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
    """The largest box of the target's proportions, in the middle: for a square the short side.

    `picture` and `target` are (height, width).
    """
    height, width = _largest_box(picture, target)
    left, top = (picture[1] - width) // 2, (picture[0] - height) // 2
    return left, top, left + width, top + height


def resize(frames: np.ndarray, box: Box, size: Size) -> np.ndarray:
    """Cut `box` out of every frame and resize it: (T, H, W, C) uint8 -> (T, *size, C) uint8.

    `size` is (height, width), C is 1 or 3. Bilinear with antialiasing, Pillow's. The cut comes
    first, as officially: Pillow's own `box` would let pixels around it into the edges.
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
    """RGB to brightness, ITU-R 601: (T, H, W, 3) uint8 -> (T, H, W, 1) uint8."""
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
