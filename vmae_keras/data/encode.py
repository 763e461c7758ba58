"""Writer for video files."""

import os
from fractions import Fraction

import av
import numpy as np

from vmae_keras.process.files import replacing


def write_video(
    path: str | os.PathLike, video: np.ndarray, rate: int | Fraction, *, near_lossless: bool = False
) -> None:
    """Write a uint8 video (T, H, W, 3) as an .mp4 file: H.264, or MPEG-4 if PyAV lacks libx264.

    Files with the default settings play everywhere. `near_lossless` keeps colour at full resolution, which
    every decoder reads but many players reject. The file is written atomically, so a killed writer
    leaves no truncated clip.

    Raises:
        ValueError: The video is not uint8 (T, H, W, 3) with at least one frame and even H and W.
    """
    shape = video.shape
    if video.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not all(shape):
        raise ValueError(
            "`video` must be uint8 of shape (T, H, W, 3). "
            f"Received: dtype={video.dtype}, shape={shape}."
        )
    if shape[1] % 2 or shape[2] % 2:
        raise ValueError(
            "Both sides of `video` must be even, as players expect. "
            f"Received: shape={shape}. Use {shape[1] // 2 * 2} x {shape[2] // 2 * 2}."
        )
    with replacing(path, shared=True) as partial:
        _encode(str(partial), video, rate, near_lossless)


def _encode(path: str, video: np.ndarray, rate: int | Fraction, near_lossless: bool) -> None:
    with av.open(path, "w", format="mp4") as container:
        if "libx264" in av.codecs_available:
            stream = container.add_stream("libx264", rate=rate)
            stream.options = {"crf": "4" if near_lossless else "14", "preset": "veryfast"}
            stream.pix_fmt = "yuv444p" if near_lossless else "yuv420p"
        else:
            stream = container.add_stream("mpeg4", rate=rate)
            stream.options = {"qmin": "1", "qmax": "2"}
            stream.pix_fmt = "yuv420p"
        stream.height, stream.width = video.shape[1:3]
        stream.thread_count = 1  # so that every machine writes the same bytes
        for picture in video:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
