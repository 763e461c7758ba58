"""Tests of reading frames, on videos written here whose pixels encode the frame numbers.

Real files of all kinds are read if available; see `shared`.
"""

import csv
import functools
import pickle
import wave
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import given
from hypothesis import strategies as st

from backends_tests.odd_videos import CODEC, numbers, picture, remux, write_video
from backends_tests.profiles import examples
from backends_tests.support import shared
from spec import video_reference
from vmae_keras.data import timeline, video
from vmae_keras.data.frames import _pick, read_frames
from vmae_keras.data.packets import NotAsFromTheStart, ascending, whole
from vmae_keras.data.video import UnreadableVideo, open_video


def read(path, wanted):
    """Return the numbers of the frames that `wanted`, a list or a function of the ticks, selects."""
    return numbers(read_frames(path, wanted if callable(wanted) else lambda ticks: wanted))


def ticks_of(path):
    seen = []
    read_frames(path, lambda ticks: (seen.append(ticks), [0])[1])
    return seen[0]


CONSTANT_RATE = {
    "mp4": {"name": "clip.mp4"},
    "mkv, stamps in rounded milliseconds": {"name": "clip.mkv", "rate": 30},
    "avi, reordered frames without time stamps": {
        "name": "clip.avi",
        "codec": "mpeg4",
        "options": {"bf": "2"},
    },
    "mpeg program stream": {"name": "clip.mpg", "codec": "mpeg2video", "options": {"bf": "2"}},
    "starts at 8 s": {"name": "clip.mkv", "stamps": [8333 + 40 * i for i in range(200)]},
}


@pytest.fixture(scope="module", params=CONSTANT_RATE)
def constant_rate(request, tmp_path_factory):
    kwargs = dict(CONSTANT_RATE[request.param])
    path = tmp_path_factory.mktemp("videos") / kwargs.pop("name")
    return write_video(path, [picture(number) for number in range(200)], **kwargs)


def test_at_a_constant_rate_ticks_are_frames(constant_rate):
    assert ticks_of(constant_rate) == 200
    assert read(constant_rate, np.arange) == list(range(200))


@examples(12)
@given(wanted=st.lists(st.integers(0, 199), min_size=1, max_size=5))
def test_exactly_the_wanted_frames_in_the_wanted_order(constant_rate, wanted):
    assert read(constant_rate, wanted) == wanted


def test_only_the_needed_stretch_is_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", [picture(number) for number in range(200)])
    decoded = []
    whole = video.decode

    def counted(packets, index):
        for frame in whole(packets, index):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(video, "decode", counted)
    assert read(path, [150, 154]) == [150, 154]
    assert len(decoded) <= 12 + 5  # from a key frame, at most 12 earlier, to the last wanted frame


@pytest.mark.parametrize("codec", sorted({CODEC, "mpeg4"}))
def test_a_recording_that_begins_between_key_frames(tmp_path, codec):
    """Show the first complete frame until its time; all later frames keep their place."""
    pictures = [picture(number) for number in range(40)]
    options = {"bf": "0"}
    source = write_video(tmp_path / "whole.mkv", pictures, codec=codec, options=options)
    path = remux(source, tmp_path / "cut.mkv", lambda index, packet: packet if index else None)
    assert read(path, lambda ticks: [0, 3, 12, 13, 30]) == [12, 12, 13, 14, 31]


@pytest.mark.clause("DECODE-6")
def test_a_first_packet_that_does_not_decode_is_passed_over(tmp_path):
    pictures = [picture(number) for number in range(30)]
    source = write_video(tmp_path / "whole.mkv", pictures, codec="mpeg4", options={"bf": "0"})

    def spoil(index, packet):
        if index:
            return packet
        spoilt = av.Packet(bytes(packet.size))
        spoilt.pts, spoilt.dts, spoilt.time_base = packet.pts, packet.dts, packet.time_base
        spoilt.is_keyframe = True
        return spoilt

    path = remux(source, tmp_path / "spoilt.mkv", spoil)
    with pytest.raises(av.error.InvalidDataError), av.open(str(path)) as container:
        next(container.decode(video=0))
    assert read(path, [14, 20]) == [14, 20]
    assert read(path, [1, 20])[1] == 20


def test_a_cover_picture_is_no_video(tmp_path):
    path = str(tmp_path / "song.mp4")
    with av.open(path, "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        sound = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(1), format="rgb24")))
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(path) as container:
        assert len(container.streams.video) == 1
    unreadable(path, "no video stream")


def test_time_stamps_that_run_backwards_are_not_followed(tmp_path):
    options = {"bf": "0"}
    source = write_video(
        tmp_path / "right.mkv",
        [picture(number) for number in range(30)],
        codec="mpeg4",
        options=options,
    )

    def swap(index, packet):
        packet.dts = 40 * index
        packet.pts = 40 * (index + 1 + (index % 2 == 1) - (index % 2 == 0 and index > 0))
        return packet

    path = remux(source, tmp_path / "wrong.mkv", swap)
    wanted = [3, 4, 5, 6, 13]
    assert read(path, wanted) == wanted


def test_metadata_that_is_not_utf8_does_not_matter(tmp_path):
    path = str(tmp_path / "clip.mp4")
    with av.open(path, "w") as container:
        container.metadata["title"] = "TITLETITLE"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(5), format="rgb24")))
        container.mux(stream.encode(None))
    content = Path(path).read_bytes()
    assert content.count(b"TITLETITLE") == 1
    Path(path).write_bytes(content.replace(b"TITLETITLE", b"TITLE\xff\xfe\xe9\xff\xff"))
    with pytest.raises(UnicodeDecodeError):
        av.open(path).close()
    assert read(path, [0]) == [5]


def test_a_variable_rate_is_sampled_by_time(tmp_path):
    gaps = [40, 40, 200, 40, 80, 40, 40, 40, 400, 40, 40]
    stamps = np.cumsum([120, *gaps]).tolist()
    path = write_video(
        tmp_path / "clip.mkv", [picture(number) for number in range(12)], stamps=stamps
    )
    shown = [
        max(k for k, stamp in enumerate(stamps) if stamp <= time)
        for time in range(stamps[0], stamps[-1] + 1, 40)
    ]
    assert ticks_of(path) == len(shown) == 26
    assert read(path, np.arange) == shown
    assert read(path, [9, 22]) == [shown[9], shown[22]]


def test_a_tick_has_half_a_period_of_tolerance():
    times = np.array([0, 41, 79, 121, 160, 300])
    assert timeline.ticks_of(times)[0].tolist() == [0, 1, 2, 3, 4, 7]


@pytest.mark.clause("DECODE-5")
def test_rounded_time_stamps_do_not_drift():
    times = np.rint(np.arange(100_000) * 1000 / 29.97).astype(np.int64)
    positions, period = timeline.ticks_of(times)
    np.testing.assert_array_equal(positions, np.arange(100_000))
    # The last of 100 000 time stamps is at most half a millisecond off.
    assert period == pytest.approx(1000 / 29.97, rel=1e-6)


@pytest.mark.clause("DECODE-5")
@given(gaps=st.lists(st.integers(0, 400), max_size=40))
def test_positions_are_the_oracles(gaps):
    times = np.cumsum([7, *gaps])
    assert timeline.ticks_of(times)[0].tolist() == video_reference.positions(times.tolist())


def test_time_stamps_that_jump_are_not_believed(tmp_path):
    stamps = [40 * i + 10**7 * (i >= 10) for i in range(20)]
    path = write_video(
        tmp_path / "clip.mkv", [picture(number) for number in range(20)], stamps=stamps
    )
    assert ticks_of(path) == 20
    assert read(path, [3, 12]) == [3, 12]
    positions, period = timeline.ticks_of(np.array(stamps))
    assert positions.tolist() == list(range(20)) and period == 40


def test_frames_after_the_end_are_the_last_one(tmp_path):
    path = write_video(tmp_path / "clip.mp4", [picture(number) for number in range(5)])
    assert read(path, [0, 4, 8, 90]) == [0, 4, 4, 4]


def test_a_video_of_one_frame(tmp_path):
    path = write_video(tmp_path / "clip.mp4", [picture(7)])
    assert ticks_of(path) == 1 and read(path, [0, 0, 3]) == [7, 7, 7]


def test_full_range_and_limited_range_give_the_same_grey(tmp_path):
    for pix_fmt, level in (("yuv420p", 16 + 219 * 128 // 255), ("yuvj420p", 128)):
        path = str(tmp_path / f"{pix_fmt}.mkv")
        with av.open(path, "w") as container:
            stream = container.add_stream("mpeg4" if pix_fmt == "yuv420p" else "mjpeg", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
            frame = av.VideoFrame(64, 48, pix_fmt)
            for plane, value in zip(frame.planes, (level, 128, 128), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        assert abs(read_frames(path, lambda ticks: [0]).astype(int) - 128).max() <= 2


def test_the_first_of_two_video_streams_is_read(tmp_path):
    path = str(tmp_path / "clip.mkv")
    with av.open(path, "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream, scale in zip(streams, (1, 2), strict=True):
            stream.height, stream.width, stream.pix_fmt = 48 * scale, 64 * scale, "yuv420p"
        for number in range(4):
            for stream in streams:
                array = picture(number, stream.height, stream.width)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    assert read_frames(path, lambda ticks: [0, 3]).shape == (2, 48, 64, 3)


def test_a_file_that_breaks_halfway_is_used_as_far_as_it_decodes(tmp_path):
    path = write_video(
        tmp_path / "clip.mkv", [picture(number) for number in range(60)], codec="mpeg4"
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    seen = read(path, list(range(60)))
    last = seen[-1]
    assert 10 < last < 55 and seen == [min(number, last) for number in range(60)]


@pytest.mark.clause("DECODE-6")
def test_a_damaged_file_is_told_where_the_damage_is_met():
    path, told = shared("videos/variety/bad_h264_corrupt_tail.mp4"), []
    assert len(read_frames(path, lambda ticks: np.arange(8), told.append)) == 8
    assert told == []
    read_frames(path, lambda ticks: np.arange(ticks), told.append)
    assert len(told) == 1 and "Invalid data" in told[0]


def unreadable(path, reason):
    with pytest.raises(UnreadableVideo, match=reason) as caught:
        read_frames(path, lambda ticks: [0])
    assert caught.value.path == str(path) and str(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)
    return caught.value


def test_unreadable_files_are_named_with_the_reason(tmp_path):
    error = unreadable(tmp_path / "missing.mp4", "No such file")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.reason) == (error.path, error.reason)
    for name, content in (("empty.mp4", b""), ("text.mp4", b"not a video " * 99)):
        (tmp_path / name).write_bytes(content)
        unreadable(tmp_path / name, "Invalid data")
    unreadable(tmp_path, "Is a directory|Invalid|Permission")
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    unreadable(tmp_path / "sound.mp4", "no video stream")


def test_an_unknown_codec_is_unreadable(tmp_path):
    path = write_video(tmp_path / "clip.avi", [picture(1)] * 5, codec="mpeg4")
    content = path.read_bytes()
    assert content.count(b"FMP4") == 2
    path.write_bytes(content.replace(b"FMP4", b"ZZZZ"))
    unreadable(path, "codec is not known")


def test_nothing_decodable_is_unreadable(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", [picture(number) for number in range(5)])
    monkeypatch.setattr(video, "decode", lambda packets, index: iter(()))
    unreadable(path, "none of its frames")


@functools.cache
def real_videos():
    folder = shared("videos")
    with open(folder / "MANIFEST.tsv", newline="", encoding="utf-8") as file:
        return [(folder / row["path"], row) for row in csv.DictReader(file, delimiter="\t")]


@pytest.mark.clause("DECODE-2", "DECODE-3", "DECODE-5")
def test_every_real_video_is_read_or_named_as_broken():
    wrong = {}
    for path, row in real_videos():
        seen = []

        def clip(ticks, seen=seen):
            seen.append(ticks)
            return np.minimum(ticks // 3 + 4 * np.arange(4), ticks - 1)

        try:
            shape = read_frames(path, clip).shape
        except UnreadableVideo:
            shape = None
        size = None
        if row["frames"] != "0":
            size = (int(row["height"]), int(row["width"]))
            size = size[::-1] if int(row["rotation"]) % 180 else size
        if shape != (size and (4, *size, 3)):
            wrong[row["path"]] = shape
        # Ticks are frames, except for time gaps and for a tail that is listed but does not decode.
        counted = row["vfr"] == "no" and "corrupt_tail" not in row["path"]
        if size and counted and seen != [int(row["frames"])]:
            wrong[row["path"]] = seen
    assert wrong == {}


@pytest.mark.clause("DECODE-1")
def test_seeking_finds_the_same_frames_as_counting_from_the_start():
    wrong = []
    for path, row in real_videos():
        frames = int(row["frames"])
        # One of these files has time stamps that only appear to vary, so frames still count.
        even = row["vfr"] == "no" or "-40" in row["vfr"]
        if path.parts[-2] != "variety" or not even or frames < 60 or int(row["width"]) > 700:
            continue
        starts = [1, frames // 2]
        if path.suffix == ".mpg":  # open groups of pictures, and seeking overshoots
            starts = range(0, frames - 9, 8)
        for wanted in (start + np.array(steps) for start in starts for steps in ([0, 1], [0, 9])):
            with open_video(path) as opened:
                counted = _pick(opened.frames(print), wanted)
            sought = read_frames(path, lambda ticks, wanted=wanted: wanted)
            if not np.array_equal(sought, counted):
                wrong.append((row["path"], wanted.tolist()))
    assert wrong == []


@pytest.mark.clause("DECODE-6")
def test_without_reordering_a_longest_ascending_part_of_the_stamps_is_believed():
    kept, times = timeline._in_order([0, 9, 1, 2, None, 3], reordered=False)
    np.testing.assert_array_equal(kept, [0, 2, 3, 5])
    np.testing.assert_array_equal(times, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("numbers", "left"), [((0, 1, 1, 2), [0, 1, 2]), ((0, 2, 1, 2), [0, 1, 2])]
)
def test_repeated_and_early_frames_are_dropped_or_reported(numbers, left):
    numbered = [(number, None) for number in numbers]
    assert [number for number, _ in ascending(numbered)] == left
    with pytest.raises(NotAsFromTheStart):
        list(ascending(numbered, strict=True))


@pytest.mark.parametrize(
    ("first", "hidden"),
    [
        (0b10_00_0_0_1_0, False),  # frame marker, profile 0, show_existing, type, show_frame, ...
        (0b10_00_0_0_0_0, True),
        (0b10_00_1_0_0_0, False),
        (0b10_11_0_0_0_1, False),  # profile 3 has one more bit before show_existing
        (0b10_11_0_0_0_0, True),
        (0b10_11_0_1_0_0, False),
    ],
)
def test_a_header_of_vp9_says_whether_the_frame_is_shown(first, hidden):
    """Check the bits of the uncompressed header (VP9 bitstream specification, section 6.2)."""
    assert video.HIDES["vp9"](memoryview(bytes([first, 0]))) is hidden


def test_frames_made_from_the_first_of_two_damaged_ones_are_left_out():
    """Drop the fifth and sixth frames, which are shown between the two and decoded after both."""
    keys = [index in (0, 9) for index in range(10)]
    frame, told = SimpleNamespace(key_frame=False), []
    order = [0, 1, 4, 7, 5, 6, 8, 9]
    decoded = ((i, None, "lost") if i in (4, 7) else (i, frame, None) for i in order)
    assert [index for index, _ in whole(decoded, keys, told.append)] == [0, 1, 9]
    assert told == ["lost"]
