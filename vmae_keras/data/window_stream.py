"""Reader for the sliding windows of a video, which keeps no more frames than one window has."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame

from vmae_keras.data.checks import check_at_least
from vmae_keras.data.clips import ClipSizes, check_clip
from vmae_keras.data.crops import luma
from vmae_keras.data.frames import ToRgb
from vmae_keras.data.video import UnreadableVideo, open_video
from vmae_keras.data.view_dataset import centre_view, resize_without_antialiasing
from vmae_keras.data.windows import in_a_window, window_span, window_starts, window_times


@dataclass(frozen=True)
class Windows:
    """Settings for cutting videos into windows; see `window_starts`.

    Args:
        sizes: T, H, W and C, for example a model configuration.
        stride: Ticks between two windows. A tick is the usual time between two frames of a video.
        sampling_stride: Ticks between two frames of a window.
        crop: If true, resize the frame so that a crop of the model's size just fits, and take the centre
            crop, as in evaluation (clauses EVAL-3, EVAL-5). If false, resize the whole frame to the model's
            size without keeping its aspect ratio, as the official script does.

    Raises:
        ValueError: A number is below 1, or there are other than 1 or 3 channels.
    """

    sizes: ClipSizes
    stride: int = 4
    sampling_stride: int = 1
    crop: bool = True

    def __post_init__(self) -> None:
        check_clip(self.sizes.channels, "dense", self.sampling_stride)
        check_at_least(1, stride=self.stride)

    def picture(self, frame: np.ndarray) -> np.ndarray:
        """Convert a frame to the model's size and channels: (H0, W0, 3) uint8 -> (H, W, C) uint8."""
        size = self.sizes.height, self.sizes.width
        frame = (centre_view if self.crop else resize_without_antialiasing)(frame[None], size)
        return (frame if self.sizes.channels == 3 else luma(frame))[0]


class WindowStream:
    """Iterable over the windows of a video, (T, H, W, C) uint8, each read on demand.

    Attributes:
        times: (W, 2) float64 start and end of each window in seconds, relative to the first frame. If the
            file is damaged, there may be fewer windows than times.
        rate: Ticks per second.
        damage: Reason why frames could not be used, or None. Valid after the last window was read.

    Raises:
        UnreadableVideo: The file does not exist, is not a video, or has no video stream. Also raised while
            iterating, if no frame can be decoded.

    Source: clauses FEATURE-1 to FEATURE-3.
    """

    def __init__(self, path: str | os.PathLike, windows: Windows) -> None:
        self.path, self.windows = os.fspath(path), windows
        self.damage: str | None = None
        with open_video(path) as self._video:
            timeline = self._video.timeline
        self.rate = timeline.rate
        sizes = windows.sizes
        self._span = window_span(sizes.frames, windows.sampling_stride)
        self._starts = window_starts(
            timeline.ticks, sizes.frames, windows.sampling_stride, windows.stride
        )
        self.times = window_times(self._starts, self._span, timeline.ticks, self.rate)

    def __iter__(self) -> Iterator[np.ndarray]:
        held: dict[int, np.ndarray] = {}  # by tick, only those that this or a later window needs
        pictures = self._pictures()
        for start in self._starts.tolist():
            ticks = range(start, start + self._span, self.windows.sampling_stride)
            held = {tick: picture for tick, picture in held.items() if tick >= start}
            while ticks[-1] not in held:
                shown = next(pictures, None)
                if shown is None:
                    if start == 0:
                        last = max(held)
                        self.times[0, 1] = (last + 1) / self.rate
                        yield np.stack([held[min(tick, last)] for tick in ticks])
                    return
                held[shown[0]] = shown[1]
            yield np.stack([held[tick] for tick in ticks])

    def _pictures(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (tick, picture) for each tick of a window, and for the last tick that can be decoded."""
        timeline, to_rgb = self._video.timeline, ToRgb()
        begin, shown, last = 0, None, 0
        for number, frame in self._video.frames(self._note):
            if shown is not None:
                end = int(timeline.positions[number])
                yield from self._shown(shown, to_rgb, range(begin, end))
                begin = end
            shown, last = frame, number
        if shown is None:
            raise UnreadableVideo(self.path, "none of its frames can be decoded")
        ends = [*timeline.positions[last + 1 : last + 2].tolist(), timeline.ticks]
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
        if taken:
            picture = self.windows.picture(to_rgb(frame))
            yield from ((tick, picture) for tick in taken)

    def _note(self, reason: str) -> None:
        self.damage = reason
