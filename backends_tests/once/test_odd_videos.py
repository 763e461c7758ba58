"""Tests that all readers of a video give the same frames at the same times for every kind of file."""

import itertools
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from backends_tests import odd_videos
from backends_tests.odd_videos import numbers, picture, write_video
from backends_tests.profiles import examples
from backends_tests.support import shared
from spec import video_reference
from vmae_keras.data.files import VideoFile
from vmae_keras.data.frames import read_frames
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.timeline import Packets, timeline_of
from vmae_keras.data.video import open_video
from vmae_keras.data.view_dataset import views_dataset
from vmae_keras.data.window_stream import Windows, WindowStream

PICTURES = [picture(number) for number in range(40)]


def written(name, **settings):
    return lambda folder: write_video(folder / name, PICTURES, **settings)


def odd(write, name, *arguments):
    def made(folder):
        write(folder / name, *arguments)
        return folder / name

    return made


KINDS = {
    "palette": odd(odd_videos.palette_avi, "clip.avi"),
    "mirrored": odd(odd_videos.with_matrix, "clip.mp4", "mirrored left-right"),
    "transposed": odd(odd_videos.with_matrix, "clip.mov", "transposed"),
    "copied into AVI": odd(odd_videos.copied_avi, "clip.avi"),
    "a repeated stamp": odd(odd_videos.with_a_pause, "clip.mkv", lambda stamps: stamps[60]),
    "hidden frames, VP9": odd(odd_videos.hidden_frames, "clip.webm"),
    "hidden frames, VP8": odd(odd_videos.hidden_frames, "clip.mkv", "libvpx"),
    "hidden frames, VP9 in MP4": odd(odd_videos.hidden_frames, "clip.mp4"),
    "hidden frames in packets of others": odd(
        odd_videos.hidden_frames, "clip.webm", "libvpx-vp9", 40, True
    ),
    "of an old x264": odd(odd_videos.of_old_x264, "clip.mp4"),
    "of an old x264, in Matroska": odd(odd_videos.of_old_x264, "clip.mkv"),
    "several frames with one stamp": odd(odd_videos.program_stream, "clip.mpg"),
    "guessed stamps": odd(odd_videos.program_stream, "clip.vob", 100, (48, 64), 2, 4),
    # Its third stamp precedes the first bytes of the next frame, and belongs to that frame.
    "a late stamp": odd(odd_videos.program_stream, "clip.mpg", 100, (48, 64), 0, 4),
    "raw H.264": written("clip.h264", rate=10),
    "transport stream": written("clip.ts", options={"bf": "2"}),
    "open groups of pictures": written(
        "clip.mp4", options={"bf": "3", "x264-params": "open-gop=1"}
    ),
    "intra refresh": written("clip.mkv", options={"x264-params": "intra-refresh=1"}),
    "AVI with reordered frames": written("clip.avi", codec="mpeg4", options={"bf": "2"}),
    "Flash": written("clip.flv", codec="flv"),
    "Motion JPEG": written("clip.avi", codec="mjpeg", pix_fmt="yuvj420p"),
}


def read_by_all(path, tmp_path, most=1000):
    """Read up to `most` ticks from the middle by all readers, and compare.

    Return the frames, the times of all ticks, and the damage that each reader reports.
    """
    with open_video(path) as video:
        ticks = video.timeline.ticks
    middle = np.arange(min(ticks, most)) + max(ticks - most, 0) // 2
    told = {"clip": [], "random access": []}
    clip = read_frames(path, lambda count: middle, told["clip"].append)
    some = slice(None, None, max(1, len(middle) // (16 if most > 100 else 2)))
    single = [
        read_frames(path, lambda count, tick=tick: [tick], told["random access"].append)[0]
        for tick in middle[some]
    ]
    np.testing.assert_array_equal(single, clip[some])
    sizes = SimpleNamespace(height=clip.shape[1], width=clip.shape[2], channels=3)
    skipped = SkippedFiles(tmp_path / f"{path.name}.jsonl")
    (views,) = views_dataset(
        [VideoFile(str(path))],
        SimpleNamespace(frames=len(middle), **vars(sizes)),
        sampling="dense",
        stride=1,
        clips=1,
        crops=None,
        skipped=skipped,
    )
    np.testing.assert_array_equal(views["views"][0], clip)
    windows = Windows(SimpleNamespace(frames=1, **vars(sizes)), stride=1, crop=False)
    stream = WindowStream(path, windows)
    found = np.concatenate([*itertools.islice(stream, int(middle[0]), int(middle[-1]) + 1)])
    np.testing.assert_array_equal(found, clip[: len(found)])
    assert (clip[len(found) :] == clip[len(found) - 1]).all()
    damage = {"views": list(skipped.report().values()), "windows": stream.damage, **told}
    return clip, stream.times, damage


@pytest.mark.clause("DECODE-1")
@pytest.mark.parametrize("kind", KINDS)
def test_all_readers_give_the_same_frames(kind, tmp_path):
    _, _, damage = read_by_all(KINDS[kind](tmp_path), tmp_path)
    assert [bool(told) for told in damage.values()] == [kind.startswith("of an old x264")] * 4, (
        damage
    )


@pytest.mark.clause("DECODE-1")
def test_all_readers_give_the_same_frames_of_real_videos(tmp_path):
    """Read the smallest file of each container and codec, if it is small."""
    smallest = {}
    for path in sorted(shared("videos/variety").iterdir(), key=lambda path: -path.stat().st_size):
        if path.stat().st_size < 300_000 and "audio_only" not in path.name:
            smallest["_".join(path.name.split("_")[:2])] = path
    for path in smallest.values():
        _, _, damage = read_by_all(path, tmp_path, most=8)
        told = "bad" in path.name
        assert [bool(each) for each in damage.values()] == [told] * 4, (path.name, damage)


def spoil(path, first, last, cut=False):
    """Overwrite packets `first` to `last` except their beginnings, or truncate the file within `first`."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets[first : last + 1]]
    content, noise = bytearray(path.read_bytes()), np.random.default_rng(0)
    for place, size in places:
        spoilt = place + 8 + size // 3
        if cut:
            del content[spoilt:]
            break
        content[spoilt : place + size] = noise.bytes(place + size - spoilt)
    path.write_bytes(content)
    return path


DAMAGED = {
    "MPEG-4": {"name": "clip.mp4", "codec": "mpeg4"},
    "H.264": {"name": "clip.mp4", "options": {"bf": "0"}},
    "H.264 with reordered frames": {"name": "clip.mp4", "options": {"bf": "2"}},
    "MPEG-2": {"name": "clip.mpg", "codec": "mpeg2video"},
}


@pytest.mark.clause("DECODE-1", "DECODE-6")
@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_shows_the_last_whole_frame_up_to_a_key_frame(kind, tmp_path):
    """Check with key frames at 0, 12, 24 and 36."""
    generator = np.random.default_rng(0)
    noise = [
        np.kron(generator.integers(0, 255, (12, 16, 3)), np.ones((8, 8, 1))) for _ in range(40)
    ]
    settings = {"name": "clip.mp4", **DAMAGED[kind]}
    path = tmp_path / settings.pop("name")
    write_video(path, [each.astype(np.uint8) for each in noise], **settings)
    right = read_frames(path, np.arange)
    clip, _, damage = read_by_all(spoil(path, 15, 17), tmp_path)
    assert all(damage.values()), damage
    same = [(clip[number] == right[number]).all() for number in range(40)]
    assert all(same[:13]) and all(same[24:])
    for tick in range(13, 24):  # a complete frame, of this tick or an earlier one
        assert any((clip[tick] == right[number]).all() for number in range(12, tick + 1)), tick
    assert not all(same)


@pytest.mark.clause("DECODE-6")
@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "libx264"])
def test_a_file_that_is_cut_within_a_frame_is_damaged(codec, tmp_path):
    settings = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {"options": {"bf": "0"}}
    path = written("clip.avi", codec=codec, **settings)(tmp_path)
    clip, _, damage = read_by_all(spoil(path, 30, 30, cut=True), tmp_path)
    assert all(damage.values()), damage
    assert numbers(clip)[:30] == list(range(30)) and set(numbers(clip)[30:]) <= {29}


@pytest.mark.clause("DECODE-6")
def test_no_damage_is_told_of_real_videos_that_are_whole():
    told = {}
    small = [path for path in shared("videos").glob("*/**/*.*") if path.stat().st_size < 100_000]
    for path in sorted(small)[::8]:
        if not path.name.startswith("bad"):
            read_frames(path, lambda ticks: [0, ticks - 1], told.setdefault(path.name, []).append)
    assert not any(told.values()), told


@pytest.mark.clause("DECODE-3")
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("name", odd_videos.MATRICES)
def test_display_matrices_are_exact(name, suffix, tmp_path):
    path = tmp_path / f"clip.{suffix}"
    right = odd_videos.with_matrix(path, name)
    signs = odd_videos.MATRICES[name][0]
    np.testing.assert_array_equal(right, video_reference.upright(odd_videos.corners(), signs))
    clip, _, _ = read_by_all(path, tmp_path)
    assert clip.shape[1:] == right.shape
    assert abs(clip.astype(int) - right).mean() < 4  # lossy; a wrong corner gives 20


@pytest.mark.clause("DECODE-2", "DECODE-4")
@pytest.mark.parametrize(
    ("kind", "frames", "rate"),
    [
        ("copied into AVI", 100, 25),
        ("hidden frames, VP9", 40, 25),
        ("hidden frames, VP8", 40, 25),
        ("hidden frames, VP9 in MP4", 40, 25),
        ("hidden frames in packets of others", 40, 25),
        ("several frames with one stamp", 100, 25),
        ("guessed stamps", 100, 25),
        ("a late stamp", 100, 25),
        ("raw H.264", 40, 10),
        ("transport stream", 40, 25),
        ("AVI with reordered frames", 40, 25),
        ("intra refresh", 40, 25),
    ],
)
def test_ticks_are_frames_that_are_shown_and_last_as_long(kind, frames, rate, tmp_path):
    clip, times, _ = read_by_all(KINDS[kind](tmp_path), tmp_path)
    assert numbers(clip) == list(range(frames))
    np.testing.assert_allclose(times[:, 0], np.arange(frames) / rate)


@pytest.mark.clause("DECODE-4")
@pytest.mark.parametrize("rate", [10, 24, 30, 50, 60])
@pytest.mark.parametrize("suffix", ["h264", "265", "m2v"])
def test_raw_streams_have_the_rate_that_they_state(suffix, rate, tmp_path):
    codec = {"h264": "libx264", "265": "libx265", "m2v": "mpeg2video"}[suffix]
    if rate == 10 and suffix == "m2v":
        rate = 25  # MPEG-2 does not support 10
    options = {"x265-params": "log-level=error"} if suffix == "265" else None
    path = written(f"clip.{suffix}", rate=rate, codec=codec, options=options)(tmp_path)
    with open_video(path) as video:
        assert (video.timeline.ticks, video.timeline.rate) == (40, pytest.approx(rate))


@pytest.mark.clause("DECODE-4")
@pytest.mark.parametrize(("late", "pause"), [(0, 0), (20, 0), (60, 0), (80, 0), (0, 2), (0, 250)])
def test_a_shared_stamp_may_be_late_and_a_pause_stays(late, pause):
    """Stamp each twentieth frame, one perhaps with the next frame's stamp; pause before the 60th."""
    frames = np.arange(100)
    ticks = frames + pause * (frames >= 60)
    timeline = shared_stamps(3600 * (ticks + (frames == late) * (late > 0)), every=20)
    assert not timeline.ordered and timeline.rate == pytest.approx(25)
    np.testing.assert_array_equal(timeline.positions, ticks)


def shared_stamps(stamps, every):
    """Return the timeline of a program stream in which only some frames have their own stamps."""
    count = len(stamps)
    places = [None if number % every else number for number in range(count)]
    packets = Packets(
        stamps.tolist(), stamps.tolist(), places, [9] * count, [None] * count, [True] * count
    )
    return timeline_of(packets, Fraction(1, 90_000), reordered=False, stored=True, stated_rate=10.0)


@pytest.mark.clause("DECODE-4")
@pytest.mark.parametrize("every", [2, 3, 20])
@pytest.mark.parametrize("count", [300, 30_000])
def test_rounded_stamps_that_frames_share_do_not_drift(count, every):
    timeline = shared_stamps(np.rint(3753.75 * np.arange(count)).astype(int), every)
    # Stamps are rounded, including the last one.
    assert timeline.rate == pytest.approx(24_000 / 1001, rel=1e-5)
    np.testing.assert_array_equal(timeline.positions, np.arange(count))


BAD_STAMPS = {
    "none": None,
    "repeated": lambda stamps: stamps[60],
    "a little back": lambda stamps: stamps[50] + 7,
    "far back": lambda stamps: stamps[30] + 7,
    "a little ahead": lambda stamps: stamps[70] + 7,
    "far ahead": lambda stamps: stamps[100] + 7,
    "hours ahead": lambda stamps: 10**8,
}


@pytest.mark.clause("DECODE-4")
@pytest.mark.parametrize("name", BAD_STAMPS)
@pytest.mark.parametrize("reordered", [False, True])
def test_a_bad_stamp_costs_one_frame_not_the_clock(name, reordered, tmp_path):
    odd_videos.with_a_pause(tmp_path / "clip.mkv", BAD_STAMPS[name], reordered)
    clip, times, _ = read_by_all(tmp_path / "clip.mkv", tmp_path)
    shown = np.arange(120) + 250 * (np.arange(120) >= 60)
    assert len(clip) == 370 and times[-1, 0] == pytest.approx(14.76)
    found = np.array(numbers(clip))
    assert set(np.flatnonzero(found[shown] != np.arange(120))) <= {61}
    assert set(found[60:310]) == {59} and found[311] in (60, 61)


# For each codec: containers that store display times, and others.
WRITABLE = {
    "libx264": (["mp4", "mov", "mkv", "flv", "ts"], ["avi", "h264"]),
    "libx265": (["mp4", "mkv", "ts"], ["265"]),
    "libsvtav1": (["mp4", "mkv"], []),
    "libvpx": (["webm", "mkv"], []),
    "libvpx-vp9": (["webm", "mp4"], []),
    "mpeg4": (["mp4", "mkv"], ["avi"]),
    "mpeg2video": (["mkv", "ts"], ["mpg", "m2v"]),
    "mjpeg": (["mov", "mkv"], ["avi"]),
    "ffv1": (["mkv"], ["avi"]),
}


@st.composite
def videos(draw):
    """Draw the name, height, width and settings of a video for `write_video`."""
    codec = draw(st.sampled_from([c for c in WRITABLE if c in av.codecs_available]), label="codec")
    storing, others = WRITABLE[codec]
    container = draw(st.sampled_from(storing + others), label="container")
    rate = draw(st.sampled_from([24, 25, 30, 50]), label="rate")
    # FFmpeg misdetects a transport stream of a few frames.
    count = draw(st.integers(8 if container == "ts" else 1, 60), label="frames")
    shown = np.arange(count)
    if container in storing and codec != "mpeg2video" and count >= 12:  # MPEG-2 has a fixed rate
        for pause in draw(st.lists(st.integers(1, count), max_size=2), label="pauses"):
            shown = shown + draw(st.integers(1, 90), label="length") * (np.arange(count) >= pause)
    between = draw(st.integers(0, 3), label="B-frames")
    options = {"libx265": {"x265-params": f"log-level=none:bframes={between}"}}.get(codec, {})
    if codec in ("libx264", "mpeg4", "mpeg2video"):
        options = {"bf": str(between)}
    gop = draw(st.integers(2, 30), label="gop")
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    # The number of frames that share a packet of a program stream depends on their size.
    sizes = [(64, 96), (48, 64), (16, 32)] if codec == "mpeg2video" else [(64, 96)]
    size = draw(st.sampled_from(sizes), label="size")
    settings = {"codec": codec, "rate": rate, "shown": shown, "options": options, "gop": gop}
    return f"clip.{container}", size, {**settings, "pix_fmt": pix_fmt}


@pytest.mark.clause("DECODE-1", "DECODE-4", "DECODE-5")
@examples(16)
@given(video=videos())
def test_frames_and_times_are_those_that_were_written(video, tmp_path_factory):
    name, size, options = video
    shown, rate = options["shown"], options["rate"]
    folder = tmp_path_factory.mktemp("video")
    pictures = [picture(number, *size) for number in range(len(shown))]
    try:
        path = write_video(folder / name, pictures, **options)
    except av.error.ArgumentError:
        reject()  # some encoders and containers reject each other's time stamps
    clip, times, damage = read_by_all(path, folder)
    assert not any(damage.values())
    positions = video_reference.positions(shown.tolist())
    assert numbers(clip)[0] == 0 and np.array(numbers(clip))[positions].tolist() == [
        *range(len(shown))
    ]
    # Half a frame, plus half a millisecond of rounding on each side.
    np.testing.assert_allclose(times[positions, 0], shown / rate, atol=0.5 / rate + 0.001)
