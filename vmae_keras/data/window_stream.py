"""Reads the sliding windows of a video one after another, and holds no more frames than a window has."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vmae_keras.data.augment import luma
from vmae_keras.data.decode import (
    Timeline,
    ToRgb,
    UnreadableVideo,
    decode_frames,
    list_frames,
    open_video,
    video_stream,
)
from vmae_keras.data.stream import ClipSizes, check_at_least, check_clip
from vmae_keras.data.view_dataset import centre_view, resize_plainly
from vmae_keras.data.windows import in_a_window, window_span, window_starts, window_times


@dataclass(frozen=True)
class Windows:
    """How videos are cut into windows; see `window_starts`.

    Args:
        sizes: gives T, H, W and C, as a model configuration does.
        stride: ticks between two windows; a tick is the usual time between two frames of a video.
        sampling_stride: ticks between two frames of a window.
        crop: resize the frame so that a crop of the model's size just fits, and take the one in the
            middle, as in evaluation (clauses EVAL-3, EVAL-5); without it, the whole frame is squeezed
            into the model's size, as the official script does.

    Raises:
        ValueError: a number below 1, or other channels than 1 or 3.
    """

    sizes: ClipSizes
    stride: int = 4
    sampling_stride: int = 1
    crop: bool = True

    def __post_init__(self):
        check_clip(self.sizes.channels, "dense", self.sampling_stride)
        check_at_least(1, stride=self.stride)

    def picture(self, frame: np.ndarray) -> np.ndarray:
        """(H0, W0, 3) uint8 -> (H, W, C) uint8."""
        size = self.sizes.height, self.sizes.width
        frame = (centre_view if self.crop else resize_plainly)(frame[None], size)
        return (frame if self.sizes.channels == 3 else luma(frame))[0]


class WindowStream:
    """The windows of one video, (T, H, W, C) uint8, each read when it is asked for.

    Attributes:
        times: (W, 2) float64 seconds at which the windows begin and end; the first frame's is 0. Where a
            file breaks halfway fewer windows come.
        rate: ticks per second.
        damage: once all are read, why the file does not decode to its end; None if it does.

    Raises:
        UnreadableVideo: no such file, not a video, no video stream; while reading, if no frame can be
            decoded.

    Source: clauses FEATURE-1 to FEATURE-3.
    """

    def __init__(self, path: str | os.PathLike, windows: Windows):
        self.path, self.windows = os.fspath(path), windows
        self.damage: str | None = None
        with self._opened() as (container, stream):
            timeline = list_frames(container, stream)
            if timeline is None:
                raise UnreadableVideo(self.path, "its video stream is empty")
            self._timeline, self.rate = timeline, _rate(timeline, stream)
        sizes = windows.sizes
        self._span = window_span(sizes.frames, windows.sampling_stride)
        self._starts = window_starts(
            timeline.ticks, sizes.frames, windows.sampling_stride, windows.stride
        )
        self.times = window_times(self._starts, self._span, timeline.ticks, self.rate)

    def __iter__(self) -> Iterator[np.ndarray]:
        held: dict[int, np.ndarray] = {}  # by tick, those that a window takes from here on
        pictures = self._pictures()
        for start in self._starts.tolist():
            ticks = range(start, start + self._span, self.windows.sampling_stride)
            held = {tick: picture for tick, picture in held.items() if tick >= start}
            while ticks[-1] not in held:
                tick, picture = next(pictures, (None, None))
                if tick is None:
                    if start == 0:
                        last = max(held)
                        self.times[0, 1] = (last + 1) / self.rate
                        yield np.stack([held[min(tick, last)] for tick in ticks])
                    return
                held[tick] = picture
            yield np.stack([held[tick] for tick in ticks])

    def _pictures(self) -> Iterator[tuple[int, np.ndarray]]:
        """(tick, picture shown then) for the ticks of windows, and for the last tick that decodes."""
        positions = self._timeline.positions
        begin, shown, last = 0, None, 0
        with self._opened() as (container, stream):
            to_rgb = ToRgb()
            for index, frame in self._numbered(container, stream):
                if shown is not None:
                    end = int(positions[index])
                    yield from self._shown(shown, to_rgb, range(begin, end))
                    begin = end
                shown, last = frame, index
            if shown is None:
                raise UnreadableVideo(self.path, "none of its frames can be decoded")
            ends = [*positions[last + 1 : last + 2].tolist(), self._timeline.ticks]
            yield from self._shown(shown, to_rgb, range(begin, ends[0]), last=True)

    def _shown(
        self, frame: VideoFrame, to_rgb: ToRgb, ticks: range, last: bool = False
    ) -> Iterator[tuple[int, np.ndarray]]:
        taken = [
            tick
            for tick in ticks
            if in_a_window(tick, self._starts, self._span, self.windows.sampling_stride)
            or (last and tick == ticks[-1])
        ]
        picture = self.windows.picture(to_rgb(frame)) if taken else None
        yield from ((tick, picture) for tick in taken)

    def _numbered(self, container: InputContainer, stream: VideoStream) -> Iterator:
        """Frames as they decode, each with its number among those that the packets announce.

        By its time stamp; where that is missing or runs backwards, the number after the last one's.
        """
        times = self._timeline.times
        packets = container.demux(stream)
        if times is not None:
            packets = itertools.dropwhile(lambda packet: not packet.is_keyframe, packets)
        number = -1
        for frame in decode_frames(packets, self._note):
            found = -1
            if times is not None and frame.pts is not None:
                if frame.pts < times[0]:
                    continue
                found = int(np.searchsorted(times, frame.pts, side="right")) - 1
            number = max(number + 1, found)
            if number == len(self._timeline.positions):
                return
            yield number, frame

    def _note(self, reason: str) -> None:
        self.damage = reason

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        try:
            with open_video(self.path) as container:
                yield container, video_stream(self.path, container)
        except (av.error.FFmpegError, OSError) as error:
            raise UnreadableVideo(self.path, error.strerror or str(error)) from error


def _rate(timeline: Timeline, stream: VideoStream) -> float:
    """Ticks per second: by the time stamps, or as the header says where they are of no use."""
    ticks = timeline.ticks - 1
    if timeline.times is not None and ticks:
        return float(ticks / ((timeline.times[-1] - timeline.times[0]) * stream.time_base))
    return float(stream.average_rate or stream.guessed_rate or 25)
