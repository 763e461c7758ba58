"""Reader for selected frames of a video, as upright RGB images."""

import os
from collections.abc import Callable

import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from vmae_keras.data.video import (
    NotAsFromTheStart,
    Numbered,
    OnDamage,
    UnreadableVideo,
    open_video,
)


def read_frames(
    path: str | os.PathLike,
    choose: Callable[[int], np.ndarray],
    on_damage: OnDamage = lambda reason: None,
) -> np.ndarray:
    """Read the T frames that `choose` selects: (T, H, W, 3) uint8 RGB, rotated upright.

    Reads the first video stream that is not cover art. Pixels are assumed to be square.

    Frames are selected by tick, the usual time between two frames. At a constant frame rate, ticks are
    frame numbers. At a variable frame rate they are points in time: a tick shows the last frame at or
    before it, with a tolerance of half a tick. A frame that cannot be decoded is replaced by the last frame
    before it.

    Args:
        choose: Function from the video's number of ticks to T of them, in any order.
        on_damage: Callback for the reason why frames cannot be decoded, if any are encountered.

    Raises:
        UnreadableVideo: The file does not exist, is not a video, has no video stream, or no frame of it
            can be decoded.
    """
    with open_video(path) as video:
        shown = video.timeline.frames_at(np.asarray(choose(video.timeline.ticks)))
        wanted, order = np.unique(shown, return_inverse=True)
        try:
            picked = _pick(video.frames_from(int(wanted[0])), wanted)
        except NotAsFromTheStart:
            picked = _pick(video.frames(on_damage), wanted)
        if not picked:
            raise UnreadableVideo(video.path, "none of its frames can be decoded")
    return np.stack([picked[index] for index in order])


def _pick(numbered: Numbered, wanted: np.ndarray) -> list[np.ndarray]:
    """Return the last frame at or before each wanted number, as RGB. `wanted` is ascending.

    Stops decoding at the last wanted frame. A number after the last frame gets the last frame, and a number
    before the first frame gets the first one.
    """
    to_rgb, wanted = ToRgb(), wanted.tolist()
    picked: list[np.ndarray] = []
    shown = None
    for number, frame in numbered:
        shown = shown or frame
        while wanted[len(picked)] < number:
            picked.append(to_rgb(shown))
            if len(picked) == len(wanted):
                return picked
        shown = frame
        if wanted[len(picked)] == number:
            picked.append(to_rgb(shown))
            if len(picked) == len(wanted):
                return picked
    if shown is not None:
        picked += [to_rgb(shown)] * (len(wanted) - len(picked))
    return picked


class ToRgb:
    """Converter from VideoFrame to (H, W, 3) uint8, upright. All frames get the size of the first."""

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()
        self.width = self.height = 0  # of the first frame

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        if not self.width:
            self.width, self.height = frame.width, frame.height
        # One thread, because starting more takes longer than converting a frame.
        converted = self.reformatter.reformat(
            frame, width=self.width, height=self.height, format="rgb24", threads=1
        )
        # A view, because `to_ndarray` would copy the pixels and callers stack (copy) them anyway.
        plane = converted.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(self.height, plane.line_size)
        rgb = rows[:, : 3 * self.width].reshape(self.height, self.width, 3)
        matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
        return rgb if matrix is None else upright(rgb, np.frombuffer(matrix, np.int32))


def upright(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotate (H, W, 3) by quarter turns and mirror it, following a display matrix (9,). Clause DECODE-3."""
    # The matrix displays the stored pixel (x, y) at (a x + c y, b x + d y).
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
