"""Reads the frames of a video that are asked for, as upright RGB pictures."""

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
    """Read the T frames that `choose` asks for: (T, H, W, 3) uint8 RGB, turned upright.

    `choose` is given the number of ticks of the video and returns T of them, in any order. A tick
    is the usual time between two frames. So ticks are frame numbers in a video of constant frame
    rate, and moments in one of variable frame rate: a tick shows the last frame at or before it,
    with half a tick of tolerance. Where frames cannot be decoded, the last frame before them is
    shown, and `on_damage` is called with the reason if such frames are met.

    Reads the first video stream that is not a cover picture; pixels are taken as square.

    Raises:
        UnreadableVideo: no such file, not a video, no video stream, or no frame can be decoded.
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
    """Return for each wanted number, ascending, the last frame at or before it, as RGB.

    Stops decoding at the last wanted frame. What lies after the last frame shows the last frame, and
    what lies before the first frame shows the first one.
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
    """VideoFrame -> (H, W, 3) uint8, upright; all of the first frame's size."""

    def __init__(self):
        self.reformatter = VideoReformatter()
        self.width = self.height = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        if self.width is None:
            self.width, self.height = frame.width, frame.height
        # One thread: starting more takes longer than converting a frame.
        converted = self.reformatter.reformat(
            frame, width=self.width, height=self.height, format="rgb24", threads=1
        )
        # A view: `to_ndarray` would copy the pixels, and callers put them together anyway.
        plane = converted.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(self.height, plane.line_size)
        rgb = rows[:, : 3 * self.width].reshape(self.height, self.width, 3)
        matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
        return rgb if matrix is None else upright(rgb, np.frombuffer(matrix, np.int32))


def upright(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turn and mirror (H, W, 3) as a display matrix (9,) says, by quarter turns. Clause DECODE-3."""
    # A stored pixel (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
