"""Video reader on PyAV (FFmpeg). Clauses DECODE-1 to -6.

A file is read in two steps. First its packets are listed without decoding. This gives the true number of
frames and their time stamps, whereas frame counts and rates in headers are often wrong. Then packets are
decoded, from the start of the file or from the key frame before the first wanted frame. Frames decoded from
a key frame are used only if nothing suggests that decoding from the start would give different ones.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vmae_keras.data.packets import (
    Decoded,
    NotAsFromTheStart,
    Numbered,
    OnDamage,
    ascending,
    decode,
    settled,
    whole,
)
from vmae_keras.data.timeline import Packets, Timeline, timeline_of

# FFmpeg formats of self-contained files. Others, such as playlists, would open files that nobody listed.
CONTAINERS = (
    "aac",
    "apng",
    "asf",
    "av1",
    "avi",
    "cavsvideo",
    "dirac",
    "dnxhd",
    "dv",
    "evc",
    "flac",
    "flv",
    "gif",
    "gxf",
    "h261",
    "h263",
    "h264",
    "hevc",
    "ivf",
    "m4v",
    "matroska",
    "mjpeg",
    "mov",
    "mp3",
    "mpeg",
    "mpegts",
    "mpegvideo",
    "mxf",
    "nsv",
    "nut",
    "obu",
    "ogg",
    "rm",
    "smjpeg",
    "vc1",
    "vvc",
    "wav",
    "wtv",
    "yuv4mpegpipe",
)
# Codecs that keep settings from any packet: parameter sets, or the encoder's version for bug workarounds.
SETTINGS_IN_PACKETS = ("h264", "hevc", "mpeg4")
# Side data that is sent once with a packet and changes how all later packets are decoded.
SENT_ONCE = ("palette", "new_extradata")


def _vp8_hides(content: memoryview) -> bool:
    return not content[0] & 0b10000  # show_frame


def _vp9_hides(content: memoryview) -> bool:
    if content[-1] >> 5 == 0b110:  # superframe index: several frames, one of which is displayed
        return False
    # frame_marker (2 bits), profile (2; 3 of profile 3), show_existing_frame, frame_type, show_frame
    header = content[0] << 1 if content[0] >> 4 == 0b1011 else content[0]
    return not header & 0b1000 and not header & 0b0010


# By codec: function that returns true if a packet contains only a reference frame, which is not displayed.
HIDES = {"vp8": _vp8_hides, "vp9": _vp9_hides}


class UnreadableVideo(ValueError):
    """Raised when no frame can be read from a file. `path` and `reason` say which file and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"Cannot read the video {self.path}: {self.reason}."


@contextlib.contextmanager
def open_video(path: str | os.PathLike) -> Iterator["Video"]:
    """Open a video for random access, as a context manager. Raises UnreadableVideo, also in its body."""
    path = os.fspath(path)
    with _opened(path) as (container, stream):
        yield Video(path, container, stream)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream."""
    try:
        with _container(path) as container:
            stream = _video_stream(path, container)
            # Clips are read in parallel, so threads within one clip only cost time (measured).
            stream.thread_type = "NONE"
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableVideo(path, error.strerror or str(error)) from error


def _container(path: str) -> InputContainer:
    """Open a file, and no other file or URL that its name or content refers to."""
    # Without "file:", FFmpeg would parse the part of a name before a colon as a protocol.
    allowed = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}
    try:
        # Metadata is not used, and must not make opening fail if it is not UTF-8.
        return av.open(f"file:{path}", metadata_errors="ignore", container_options=allowed)
    except av.error.ArgumentError as error:
        raise UnreadableVideo(
            path, "it is broken, or of a format that is not read, such as a playlist"
        ) from error


def _video_stream(path: str, container: InputContainer) -> VideoStream:
    """Return the first video stream that is not cover art."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise UnreadableVideo(path, "its video codec is not known")
            return stream
    raise UnreadableVideo(path, "it has no video stream")


class Video:
    """Video with its packets listed, and their `timeline`. `frames` may be called after it is closed."""

    timeline: Timeline

    def __init__(self, path: str, container: InputContainer, stream: VideoStream) -> None:
        self.path, self._container, self._stream = path, container, stream
        self._first: Any = None  # packet
        self._sent_once = False
        rows = []
        hides = HIDES.get(stream.codec_context.name)
        with contextlib.suppress(
            av.error.FFmpegError
        ):  # truncated: use the packets before the error
            for packet in container.demux(stream):
                if not (size := packet.size):
                    continue
                self._first = self._first or packet
                for data in packet.iter_sidedata():
                    self._sent_once |= data.data_type in SENT_ONCE
                # Discarded packets lie before the start set by an edit list.
                shows = not packet.is_discard and not (hides and hides(memoryview(packet)))
                key = _identity(packet) if packet.is_keyframe else None
                rows.append((packet.pts, packet.dts, packet.pos, size, key, shows))
        if not any(row[-1] for row in rows):
            raise UnreadableVideo(path, "its video stream is empty")
        self._packets = Packets(*zip(*rows, strict=True))
        reordered = bool(stream.codec_context.has_b_frames)
        self.timeline = timeline_of(
            self._packets,
            stream.time_base,
            reordered=reordered,
            # AVI stores no time stamps. FFmpeg makes them up, wrongly if frames are reordered.
            stored=not (container.format.name == "avi" and reordered),
            stated_rate=_stated_rate(stream),
        )

    def frames(self, on_damage: OnDamage) -> Numbered:
        """Decode from the start of the file and yield (number, frame) for each displayed frame, in order.

        If a frame is damaged, frames are dropped up to the next key frame, as they are predicted from it,
        and `on_damage` is called, once. Frames before the first key frame are dropped, but are not damage.
        """
        # A new container, because listing has consumed side data that is sent once, such as a palette.
        # If the file has changed since it was listed, frames end at the first difference.
        with _opened(self.path) as (container, stream), contextlib.suppress(NotAsFromTheStart):
            keys = [key is not None for key in self._packets.keys]
            decoded = self._decode(container.demux(stream), 0)
            yield from ascending(self._numbered(whole(decoded, keys, on_damage)))

    def _decode(self, packets: Iterator[Packet], first: int) -> Decoded:
        """Decode packets from index `first` on, which must match the listed packets."""
        return settled(decode(self._as_listed(packets, first), first), first, self._packets.shows)

    def _numbered(self, frames: Iterator[tuple[int, VideoFrame]]) -> Numbered:
        ordered, count = self.timeline.ordered, len(self.timeline.positions)
        numbers, keys, number = self.timeline.numbers.tolist(), self._packets.keys, -1
        for index, frame in frames:
            following = numbers[index]
            if not ordered:
                # A frame that cannot be decoded gets no number. The next key frame corrects the count.
                following = max(number + 1, following if keys[index] else 0)
            if 0 <= following < count:
                number = following
                yield number, frame

    def frames_from(self, number: int) -> Numbered:
        """Decode as `frames` does, but from a key frame at or before frame `number` on.

        Raises:
            NotAsFromTheStart: Seeking is impossible, or may give different frames.
        """
        landed, packets = self._seek(number)
        decoded = self._decode(packets, landed)
        return ascending(self._numbered(self._as_from_the_start(decoded, landed)), strict=True)

    def _as_from_the_start(self, decoded: Decoded, landed: int) -> Iterator[tuple[int, VideoFrame]]:
        """Yield frames with their packet's index; raise if decoding from the start may differ."""
        begun, numbers = False, self.timeline.numbers.tolist()
        for index, frame, fault in decoded:
            if not begun and frame and numbers[index] < numbers[landed]:
                continue  # displayed before the key frame, so it needs frames before the key frame
            if fault or not (begun or landed == 0 or (index == landed and frame.key_frame)):
                raise NotAsFromTheStart
            begun = True
            yield index, frame
        if not begun:
            raise NotAsFromTheStart

    def _seek(self, number: int) -> tuple[int, Iterator[Packet]]:
        """Seek a key frame at or before frame `number`; return its packet's index, and packets from it."""
        if not self.timeline.ordered or self._sent_once:
            raise NotAsFromTheStart
        numbers, context = self.timeline.numbers, self._stream.codec_context
        places: dict[tuple | None, int] = {}
        for index, key in enumerate(self._packets.keys):
            # Identical packets cannot be told apart after seeking.
            places[key] = -1 if key in places else index
        keys = [
            i
            for key, i in places.items()
            if key and i >= 0 and (i == 0 or 0 <= numbers[i] <= number)
        ]
        if keys and keys[-1] and context.name in SETTINGS_IN_PACKETS:
            context.skip_frame = "ALL"
            with contextlib.suppress(av.error.FFmpegError):
                self._first.decode()
            context.skip_frame = "DEFAULT"
        # Some containers seek by pts and others by dts, and some land one key frame too late.
        pts, dts = self._packets.pts, self._packets.dts
        stamps = (stamp for key in keys[:-3:-1] for stamp in (pts[key], dts[key]))
        for stamp in dict.fromkeys(stamps):
            if stamp is None:
                continue
            try:
                self._container.seek(stamp, stream=self._stream)
                packets = self._container.demux(self._stream)
                first = next((packet for packet in packets if packet.is_keyframe), None)
            except av.error.FFmpegError:
                continue
            landed = places.get(_identity(first), -1) if first else -1
            if landed in keys:
                return landed, itertools.chain([first], packets)
        raise NotAsFromTheStart

    def _as_listed(self, packets: Iterator[Packet], index: int) -> Iterator[Packet]:
        """Yield packets from `index` on; raise if they differ from the listed packets."""
        sizes = self._packets.sizes
        for packet in packets:
            if size := packet.size:
                if index == len(sizes) or size != sizes[index]:
                    raise NotAsFromTheStart
                index += 1
            yield packet


def _identity(packet: Packet) -> tuple:
    return packet.pos, packet.size, bytes(memoryview(packet)[:64])


def _stated_rate(stream: VideoStream) -> float:
    """Return the frame rate stated in the headers, preferably the codec's."""
    for rate in (stream.codec_context.framerate, stream.guessed_rate, stream.average_rate):
        if rate and 1 <= rate <= 1000:
            return float(rate)
    return 25.0
