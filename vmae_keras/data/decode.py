"""The one function that reads frames from a video file, on PyAV (FFmpeg).

To read by other means, write another `read_frames`: nothing else here knows about PyAV.

A file is read in two steps. First its packets are listed without decoding them, which gives the
true number of frames and their time stamps; headers are never asked, as their frame counts and
frame rates are often wrong. Then only the stretch from the key frame before the first wanted frame
to the last wanted frame is decoded, and only wanted frames are converted to RGB.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

# FFmpeg's formats that hold a whole video in one file. Others, such as playlists, name further files or
# addresses, which whoever lists a file did not ask for.
CONTAINERS = (
    "aac", "apng", "asf", "av1", "avi", "cavsvideo", "dirac", "dnxhd", "dv", "evc", "flac", "flv",
    "gif", "gxf", "h261", "h263", "h264", "hevc", "ivf", "m4v", "matroska", "mjpeg", "mov", "mp3",
    "mpeg", "mpegts", "mpegvideo", "mxf", "nsv", "nut", "obu", "ogg", "rm", "smjpeg", "vc1", "vvc",
    "wav", "wtv", "yuv4mpegpipe",
)  # fmt: skip
# With more ticks than this per frame the time stamps jump: they do not describe a video.
MOST_TICKS_PER_FRAME = 100

Numbered = Iterator[tuple[int, VideoFrame]]


class UnreadableVideo(ValueError):
    """A file from which no frame can be read. `path` and `reason` say which and why."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"Cannot read the video {self.path}: {self.reason}."


class _WrongPlace(Exception):
    """Decoding began after the wanted frames, or its time stamps run backwards."""


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown, counted in ticks, the video's usual frame period.

    positions: (N,) ticks at which the N frames appear, ascending; a frame stays until the next.
        At a constant frame rate ticks and frames are the same: 0, 1, 2, ...
    times: (N,) time stamps of the frames, ascending; None where the file has no usable ones.
    key_times: (K,) time stamps of the frames that decoding can begin at, ascending.
    """

    positions: np.ndarray
    times: np.ndarray | None = None
    key_times: np.ndarray | None = None

    @property
    def ticks(self) -> int:
        return int(self.positions[-1]) + 1

    def frames_at(self, ticks: np.ndarray) -> np.ndarray:
        """(T,) ticks -> (T,) numbers of the frames shown then."""
        shown = np.searchsorted(self.positions, ticks, side="right") - 1
        return np.clip(shown, 0, len(self.positions) - 1)


def read_frames(
    path: str | os.PathLike,
    choose: Callable[[int], np.ndarray],
    on_damage: Callable[[str], None] = lambda reason: None,
) -> np.ndarray:
    """Read the T frames that `choose` asks for: (T, H, W, 3) uint8 RGB, turned upright.

    `choose` is given the number of ticks of the video and returns T of them, in any order. A tick
    is the usual time between two frames. So ticks are frame numbers in a video of constant frame
    rate, and moments in one of variable frame rate: a tick shows the last frame at or before it,
    with half a tick of tolerance. A tick after the last frame that can be decoded shows that frame,
    so a file that breaks halfway is used as far as it decodes; `on_damage` is then told why.

    Reads the first video stream that is not a cover picture; pixels are taken as square.

    Raises:
        UnreadableVideo: no such file, not a video, no video stream, or no frame can be decoded.
    """
    path = os.fspath(path)
    try:
        return _read(path, choose, on_damage)
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableVideo(path, error.strerror or str(error)) from error


def _read(path: str, choose: Callable, on_damage: Callable) -> np.ndarray:
    with open_video(path) as container:
        stream = video_stream(path, container)
        timeline = list_frames(container, stream)
        if timeline is None:
            raise UnreadableVideo(path, "its video stream is empty")
        shown = timeline.frames_at(np.asarray(choose(timeline.ticks)))
        wanted, order = np.unique(shown, return_inverse=True)
        picked = []
        if timeline.times is not None:
            times = timeline.times[wanted]
            picked = _pick_after_seek(container, stream, timeline, times, on_damage)
    if not picked and timeline.times is not None:
        picked = _pick_from_start(path, timeline.times[wanted], _by_time, on_damage)
    if not picked:
        picked = _pick_from_start(path, wanted, _by_count, on_damage)
    if not picked:
        raise UnreadableVideo(path, "none of its frames can be decoded")
    return np.stack([picked[index] for index in order])


def open_video(path: str) -> InputContainer:
    """Open a file, to be used in a `with`; only this file, whatever its name and content say.

    Raises what PyAV raises; UnreadableVideo for a format that may name other files.
    """
    # Without "file:", FFmpeg takes what stands before a colon in a name for a protocol.
    allowed = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}
    try:
        # Metadata that is not UTF-8 would make opening fail, and nothing here reads it.
        return av.open(f"file:{path}", metadata_errors="ignore", container_options=allowed)
    except av.error.ArgumentError as error:
        raise UnreadableVideo(
            path, "it is broken, or of a format that is not read, such as a playlist"
        ) from error


def video_stream(path: str, container: InputContainer) -> VideoStream:
    """The first stream that is a video, not a cover picture; UnreadableVideo without one."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise UnreadableVideo(path, "its video codec is not known")
            # Clips are read side by side, where threads within one only cost time (measured).
            stream.thread_type = "NONE"
            return stream
    raise UnreadableVideo(path, "it has no video stream")


def list_frames(container: InputContainer, stream: VideoStream) -> Timeline | None:
    """List the frames by their packets, without decoding; None if there are none."""
    stamps, key_stamps = [], []
    try:
        for packet in container.demux(stream):
            if packet.is_keyframe and packet.pts is not None:
                key_stamps.append(packet.pts)
            # Discarded packets lie before the start that an edit list sets: no frame comes of them.
            if packet.size and not packet.is_discard:
                stamps.append(packet.pts)
    except av.error.FFmpegError:
        pass  # The file is cut short: the packets before count.
    if not stamps:
        return None
    # AVI stores no time stamps; with reordered frames (B-frames) the ones made up for it are wrong.
    made_up = container.format.name == "avi" and stream.codec_context.has_b_frames
    if not made_up and None not in stamps and len(set(stamps)) == len(stamps):
        times = np.sort(np.array(stamps, np.int64))
        positions = _ticks_of(times)
        if positions[-1] < MOST_TICKS_PER_FRAME * len(times):
            return Timeline(positions, times, np.sort(np.array(key_stamps, np.int64)))
    return Timeline(np.arange(len(stamps)))


def _ticks_of(times: np.ndarray) -> np.ndarray:
    """(N,) ascending time stamps -> (N,) ticks at which the frames appear.

    The period starts as the median gap. The median of stamps rounded to milliseconds is off (33 for
    33.37) and would drift by frames in a long video, so the whole length is then divided by the
    number of median gaps in it, each gap rounded by itself.
    """
    gaps = np.diff(times)
    if not len(gaps):
        return np.zeros(1, np.int64)
    period = (times[-1] - times[0]) / np.rint(gaps / np.median(gaps)).sum()
    return np.floor((times - times[0]) / period + 0.5).astype(np.int64)


def _pick_after_seek(
    container: InputContainer,
    stream: VideoStream,
    timeline: Timeline,
    wanted: np.ndarray,
    on_damage: Callable,
) -> list[np.ndarray]:
    """Decode from the key frame before the first wanted time; nothing if that does not work."""
    earlier = timeline.key_times[timeline.key_times <= wanted[0]]
    for key_time in earlier[:-3:-1]:  # the last, and as MPEG-PS seeks a key frame too far, one more
        try:
            container.seek(int(key_time), stream=stream)
            return _pick(_by_time(container, stream, on_damage), wanted, late_start=False)
        except (av.error.FFmpegError, _WrongPlace):
            continue
    return []


def _pick_from_start(
    path: str, wanted: np.ndarray, numbered: Callable[..., Numbered], on_damage: Callable
) -> list[np.ndarray]:
    with open_video(path) as container:
        stream = video_stream(path, container)
        try:
            return _pick(numbered(container, stream, on_damage), wanted, late_start=True)
        except _WrongPlace:
            return []


def _by_time(container: InputContainer, stream: VideoStream, on_damage: Callable) -> Numbered:
    """Frames from the next key frame on, each with its time stamp."""
    packets = itertools.dropwhile(lambda packet: not packet.is_keyframe, container.demux(stream))
    latest = None
    for frame in decode_frames(packets, on_damage):
        if frame.pts is None or (latest is not None and frame.pts <= latest):
            raise _WrongPlace
        latest = frame.pts
        yield latest, frame


def _by_count(container: InputContainer, stream: VideoStream, on_damage: Callable) -> Numbered:
    return enumerate(decode_frames(container.demux(stream), on_damage))


def decode_frames(packets: Iterator[Packet], on_damage: Callable) -> Iterator[VideoFrame]:
    """Frames in display order, from the first that decodes up to the first after it that does not.

    A recording that begins between key frames begins with packets that do not decode.
    """
    begun = False
    while True:
        try:
            frames = next(packets).decode()
        except (StopIteration, av.error.EOFError):
            return
        except av.error.FFmpegError as error:
            if begun:
                on_damage(error.strerror)
                return
            continue
        begun = begun or bool(frames)
        yield from frames


def _pick(numbered: Numbered, wanted: np.ndarray, *, late_start: bool) -> list[np.ndarray]:
    """For each wanted number, ascending, the last frame at or before it, as RGB.

    Stops decoding at the last wanted frame. What lies after the last frame shows the last frame.
    With `late_start` what lies before the first frame shows the first one, else it is an error.
    """
    to_rgb = ToRgb()
    picked: list[np.ndarray] = []
    shown = None
    for number, frame in numbered:
        if shown is None:
            if number > wanted[0] and not late_start:
                raise _WrongPlace
            shown = frame
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
        rgb = self.reformatter.reformat(
            frame, width=self.width, height=self.height, format="rgb24", threads=1
        ).to_ndarray()
        return np.rot90(rgb, round(frame.rotation / 90))  # both count counter-clockwise
