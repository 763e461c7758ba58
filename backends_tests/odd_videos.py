"""Small videos that tests write: numbered frames, and unusual files that readers tend to misread."""

import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from vmae_keras.data.synthetic import moving_shapes

CODEC = "libx264" if "libx264" in av.codecs_available else "mpeg4"


def picture(number, height=48, width=64):
    """Return a grey picture that encodes a number: its low hexadecimal digit left, its high one right."""
    grey = np.empty((height, width, 3), np.uint8)
    grey[:, : width // 2] = 8 + 15 * (number % 16)
    grey[:, width // 2 :] = 8 + 15 * (number // 16)
    return grey


def numbers(frames):
    """Return the T numbers that `picture` encoded in frames of (T, H, W, 3)."""
    middle = frames[:, frames.shape[1] // 2, :, 1].astype(float)
    width = middle.shape[1]
    low, high = middle[:, 4 : width // 2 - 4], middle[:, width // 2 + 4 : -4]
    digits = [np.rint((half.mean(1) - 8) / 15).astype(int) for half in (low, high)]
    return (digits[0] + 16 * digits[1]).tolist()


def write_video(
    path,
    pictures,
    *,
    rate=25,
    stamps=None,
    codec=CODEC,
    pix_fmt="yuv420p",
    options=None,
    gop=12,
    shown=None,
):
    """Write pictures of (H, W, 3). `stamps` are in milliseconds; `shown` are in frames."""
    with av.open(str(path), "w") as container:
        # Without this option, every change of grey would make a key frame.
        no_extra_key_frames = {"sc_threshold": "0" if codec == "libx264" else "1000000000"}
        stream = container.add_stream(
            codec, rate=rate, options={**no_extra_key_frames, **(options or {})}
        )
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        stream.bit_rate = 2_000_000
        if stamps is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index, array in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[index], stream.time_base
            elif shown is not None:
                frame.pts, frame.time_base = int(shown[index]), 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remux(source, target, change, *, bitstream_filter=None, time_base=None):
    """Copy the packets through `change(index, packet)`; a packet is dropped if it returns None."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        template = reading.streams.video[0]
        stream = writing.add_stream_from_template(template)
        if time_base is not None:
            stream.time_base = time_base
        packets = [packet for packet in reading.demux(template) if packet.size]
        if bitstream_filter:
            context = BitStreamFilterContext(bitstream_filter, template, stream)
            packets = [done for packet in [*packets, None] for done in context.filter(packet)]
        for index, packet in enumerate(packets):
            packet = change(index, packet)
            if packet is not None:
                packet.stream = stream
                writing.mux(packet)
    return target


def _chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _list(name, content):
    return _chunk(b"LIST", name + content)


def palette_avi(path, frames=20, size=64, rate=7):
    """Write an uncompressed AVI with a grey palette in its header; return the level of each frame."""
    levels = [40 + 10 * index for index in range(frames)]
    pixels, entries = size * size, 256
    palette = b"".join(bytes((level, level, level, 0)) for level in range(entries))
    main = struct.pack(
        "<14I", 10**6 // rate, 0, 0, 0x10, frames, 0, 1, pixels, size, size, 0, 0, 0, 0
    )
    stream = b"vidsDIB " + struct.pack(
        "<IHH8I4H", 0, 0, 0, 0, 1, rate, 0, frames, pixels, 2**32 - 1, 0, 0, 0, size, size
    )
    bitmap = struct.pack("<IiiHHIIiiII", 40, size, size, 1, 8, 0, pixels, 0, 0, entries, entries)
    format_ = _chunk(b"strh", stream) + _chunk(b"strf", bitmap + palette)
    header = _list(b"hdrl", _chunk(b"avih", main) + _list(b"strl", format_))
    pictures = _list(
        b"movi", b"".join(_chunk(b"00db", bytes([level]) * pixels) for level in levels)
    )
    index = b"".join(
        b"00db" + struct.pack("<III", 0x10, 4 + number * (8 + pixels), pixels)
        for number in range(frames)
    )
    Path(path).write_bytes(_chunk(b"RIFF", b"AVI " + header + pictures + _chunk(b"idx1", index)))
    return levels


def corners(height=96, width=128):
    """Return a picture whose top corners are red and green, and bottom corners blue and white."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    h, w = height // 4, width // 4
    pixels[:h, :w], pixels[:h, -w:] = (220, 30, 30), (30, 220, 30)
    pixels[-h:, :w], pixels[-h:, -w:] = (30, 30, 220), (230, 230, 230)
    return pixels


# (a, b, c, d) of a display matrix, which shows a stored pixel (x, y) at (a x + c y, b x + d y), and its
# effect on a picture.
MATRICES = {
    "none": ((1, 0, 0, 1), lambda p: p),
    "mirrored left-right": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "mirrored top-bottom": ((1, 0, 0, -1), lambda p: p[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    "quarter clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "quarter counter-clockwise": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "transposed": ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].swapaxes(0, 1)),
}


def with_matrix(path, name, frames=5):
    """Write an MP4 of `corners` with a display matrix from `MATRICES`; return the picture to be shown."""
    (a, b, c, d), turn = MATRICES[name]
    write_video(path, [corners()] * frames, rate=5)
    content = bytearray(Path(path).read_bytes())
    height, width = corners().shape[:2]
    # The matrix follows the box's name, its version and flags, five times, and four settings.
    at = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    x, y = width * (a < 0) + height * (c < 0), width * (b < 0) + height * (d < 0)
    one = 1 << 16
    entries = (a * one, b * one, 0, c * one, d * one, 0, x * one, y * one, 1 << 30)
    struct.pack_into(">9i", content, at, *entries)
    Path(path).write_bytes(content)
    return turn(corners())


def copied_avi(path, frames=100, rate=25):
    """Write H.264 with B-frames to MP4 and copy its packets to an AVI whose header states twice the rate.

    The container's time unit is half a frame, as with `ffmpeg -c copy`, and every other chunk is empty.
    """
    source = Path(f"{path}.mp4")
    write_video(source, [picture(n) for n in range(frames)], rate=rate, options={"bf": "3"})
    remux(
        source,
        path,
        lambda index, packet: packet,
        bitstream_filter="h264_mp4toannexb",
        time_base=Fraction(1, 2 * rate),
    )
    source.unlink()
    return path


def hidden_frames(path, codec="libvpx-vp9", frames=40, joined=False):
    """Write VP8 or VP9 that stores each key frame twice: first hidden, with its own time stamp, then shown.

    Args:
        joined: Whether the hidden frame shares the packet of the shown one (VP9 only).
    """
    # show_frame, in the first byte of a key frame
    bit = {"libvpx": 0b10000, "libvpx-vp9": 0b10}[codec]
    source = Path(f"{path}.webm")
    write_video(source, [picture(number) for number in range(frames)], codec=codec)
    options = {} if joined else {"fflags": "-autobsf"}  # FFmpeg's filter joins them
    with av.open(str(source)) as reading, av.open(str(path), "w", options=options) as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for packet in reading.demux(video=0):
            if packet.is_keyframe and packet.size:
                content = bytearray(packet)
                content[0] &= ~bit
                hidden = av.Packet(bytes(content))
                hidden.pts = hidden.dts = packet.pts - 20 * (packet.pts > 0)
                hidden.time_base, hidden.is_keyframe, hidden.stream = packet.time_base, True, stream
                writing.mux(hidden)
            if packet.size:
                packet.stream = stream
                writing.mux(packet)
    source.unlink()


def of_old_x264(path):
    """Write H.264 4:4:4 of which only the first packet claims that an x264 older than build 151 wrote it.

    Decoders read 4:4:4 of those builds differently. Here that reading is wrong, which shows in the pixels
    from frame 16 on, and in errors.
    """
    pictures = list(moving_shapes(np.random.default_rng(1), 40, (48, 64)))
    write_video(path, pictures, codec="libx264", pix_fmt="yuv444p", options={"crf": "5"})
    content = Path(path).read_bytes()
    (said,) = re.findall(rb"x264 - core \d+", content)
    Path(path).write_bytes(content.replace(said, b"x264 - core 142"))


def program_stream(path, frames=100, size=(64, 128), between=2, gop=12):
    """Write an MPEG program stream of small flat frames, many of which share a packet and its time stamp.

    `picture` encodes the number of each frame. `between` is the number of consecutive B-frames.
    """
    pictures = [picture(number, *size) for number in range(frames)]
    write_video(path, pictures, codec="mpeg2video", options={"bf": str(between)}, gop=gop)


def with_a_pause(path, bad_stamp=None, reordered=False):
    """Write 120 frames at 25 per second, with ten seconds of pause after the 60th; return stamps in ms.

    Frame 61 gets the stamp that `bad_stamp` computes from all stamps. `picture` encodes the frame numbers.
    """
    stamps = [40 * index + 10_000 * (index >= 60) for index in range(120)]
    if bad_stamp:
        stamps[61] = bad_stamp(stamps)
    source = Path(f"{path}.mkv")
    settings = {"options": {"bf": "3"}} if reordered else {"codec": "mpeg4"}
    write_video(source, [picture(n) for n in range(120)], **settings)

    def stamp(index, packet):
        packet.pts, packet.dts = stamps[packet.pts // 40], index
        return packet

    remux(source, path, stamp)
    source.unlink()
    return stamps
