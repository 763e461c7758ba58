"""Tests of sliding windows: their frames and times, and the number that is held in memory."""

import itertools
import tracemalloc
from types import SimpleNamespace

import av
import numpy as np
import pytest

from backends_tests.odd_videos import numbers, picture, write_video
from spec import probe_reference
from vmae_keras.data import windows
from vmae_keras.data.frames import read_frames
from vmae_keras.data.synthetic import moving_shapes
from vmae_keras.data.video import UnreadableVideo
from vmae_keras.data.window_stream import Windows, WindowStream

SIZES = SimpleNamespace(frames=4, height=48, width=64, channels=3)
WHOLE = {"crop": False}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Return a video of forty frames at 25 per second, each of which encodes its number."""
    path = tmp_path_factory.mktemp("videos") / "numbers.mp4"
    write_video(path, [picture(number) for number in range(40)])
    return path


@pytest.mark.clause("FEATURE-1", "FEATURE-2")
def test_starts_and_times_are_the_oracles():
    for count, frames, sampling_stride, stride in itertools.product(
        (1, 5, 16, 17, 40), (1, 4, 16), (1, 3), (1, 4, 9)
    ):
        case = (count, frames, sampling_stride, stride)
        starts = windows.window_starts(*case)
        span = windows.window_span(frames, sampling_stride)
        expected = probe_reference.windows(*case)
        assert starts.tolist() == [chosen[0] for chosen in expected], case
        times = windows.window_times(starts, span, count, 12.5)
        np.testing.assert_allclose(times, probe_reference.window_times(*case, 12.5), err_msg=case)
        if span <= count:
            taken = {position for chosen in expected for position in chosen}
            found = [windows.in_a_window(p, starts, span, sampling_stride) for p in range(count)]
            assert {p for p in range(count) if found[p]} == taken, case


@pytest.mark.clause("FEATURE-1", "FEATURE-2")
@pytest.mark.parametrize(
    ("stride", "sampling_stride"), [(1, 1), (4, 1), (9, 1), (2, 4), (5, 3), (7, 12), (3, 20)]
)
def test_a_video_is_read_as_the_oracle_says(video, stride, sampling_stride):
    """Check overlapping windows, windows with gaps, and a single one that is longer than the video."""
    stream = WindowStream(video, Windows(SIZES, stride, sampling_stride, **WHOLE))
    found = [numbers(window) for window in stream]
    case = (40, SIZES.frames, sampling_stride, stride)
    assert found == probe_reference.windows(*case)
    np.testing.assert_allclose(stream.times, probe_reference.window_times(*case, 25))
    assert stream.damage is None


@pytest.mark.clause("FEATURE-1")
def test_moments_count_where_the_frame_rate_varies(tmp_path):
    """Check a window at every tick, where frame 3 lasts for three ticks."""
    stamps = [0, 40, 80, 120, 240, 280, 320, 360]
    write_video(tmp_path / "clip.mkv", [picture(n) for n in range(8)], stamps=stamps)
    shown = numbers(read_frames(tmp_path / "clip.mkv", np.arange))
    stream = WindowStream(tmp_path / "clip.mkv", Windows(SIZES, 2, **WHOLE))
    found = [numbers(window) for window in stream]
    assert shown == [0, 1, 2, 3, 3, 3, 4, 5, 6, 7]
    assert found == [[shown[p] for p in row] for row in probe_reference.windows(10, 4, 1, 2)]
    # A tick is 40 ms, although the file has 8 frames in 400 ms.
    np.testing.assert_allclose(stream.times, probe_reference.window_times(10, 4, 1, 2, 25))


@pytest.mark.clause("FEATURE-1", "FEATURE-2", "DECODE-5")
def test_windows_lie_where_their_stamps_say_at_a_varying_frame_rate(tmp_path):
    """Check stamps in milliseconds at 29.97 frames per second, with three pauses; half a tick is 17 ms."""
    ticks = np.delete(np.arange(140), [*range(3, 10), 30, *range(50, 115)])
    stamps = np.rint(ticks * 1001 / 30).astype(int)
    write_video(
        tmp_path / "clip.mkv", [picture(n) for n in range(len(ticks))], stamps=stamps.tolist()
    )
    stream = WindowStream(tmp_path / "clip.mkv", Windows(SIZES, 5, 3, **WHOLE))
    found = [numbers(window) for window in stream]
    assert len(found) == len(range(0, 140 - 9, 5))
    for window, (begin, end) in zip(found, stream.times, strict=True):
        moments = begin + (end - begin) / 10 * (np.arange(0, 10, 3) + 0.5)
        shown = np.searchsorted(stamps, 1000 * moments, side="right") - 1
        assert window == shown.tolist()
    # Stamps are whole milliseconds.
    np.testing.assert_allclose(stream.times[:, 0], np.arange(0, 131, 5) * 1.001 / 30, atol=1e-3)
    np.testing.assert_allclose(np.diff(stream.times), 10 * 1.001 / 30, atol=1e-3)  # as above


@pytest.mark.clause("FEATURE-1", "FEATURE-2")
def test_a_file_that_breaks_halfway_gives_the_windows_before(video, tmp_path):
    with av.open(str(video)) as container:
        packets = [packet.pos for packet in container.demux(video=0) if packet.size]
    content = bytearray(video.read_bytes())
    content[packets[24] : packets[39]] = bytes(packets[39] - packets[24])  # from a key frame on
    (tmp_path / "broken.mp4").write_bytes(content)
    stream = WindowStream(tmp_path / "broken.mp4", Windows(SIZES, 3, **WHOLE))
    found = [numbers(window) for window in stream]
    assert stream.damage is not None
    whole = probe_reference.windows(40, 4, 1, 3)
    assert 0 < len(found) < len(whole) and found == whole[: len(found)]
    # Within the only window, of 37 frames, the last frame is repeated and the window's time ends.
    stream = WindowStream(tmp_path / "broken.mp4", Windows(SIZES, 4, 12, **WHOLE))
    (found,) = map(numbers, stream)
    last = max(found)
    assert 12 <= last < 36 and found == [min(number, last) for number in (0, 12, 24, 36)]
    np.testing.assert_allclose(stream.times[0], [0, (last + 1) / 25])


@pytest.mark.clause("FEATURE-3", "EVAL-5")
def test_frames_are_those_of_evaluation_or_squeezed(tmp_path):
    from vmae_keras.data.files import VideoFile
    from vmae_keras.data.skipped import SkippedFiles
    from vmae_keras.data.synthetic import write_moving_shapes
    from vmae_keras.data.view_dataset import views_dataset

    (path,) = write_moving_shapes(tmp_path, 1, frames=4, size=(32, 48))
    for height, width, channels in ((16, 16, 3), (16, 16, 1), (16, 32, 3), (24, 16, 3)):
        sizes = SimpleNamespace(frames=4, height=height, width=width, channels=channels)
        (element,) = views_dataset(
            [VideoFile(str(path))],
            sizes,
            sampling="dense",
            stride=1,
            clips=1,
            crops=1,
            skipped=SkippedFiles(tmp_path / "skipped.jsonl"),
        )
        (cropped,) = WindowStream(path, Windows(sizes))
        np.testing.assert_array_equal(cropped, element["views"][0])
        (squeezed,) = WindowStream(path, Windows(sizes, **WHOLE))
        assert squeezed.shape == cropped.shape and (squeezed != cropped).any()


def test_memory_is_bounded_by_a_window(tmp_path):
    """Compare 600 frames with 60, which must hold equally many; measured .79 MB for both."""
    size, generator = (96, 128), np.random.default_rng(0)
    pictures = list(moving_shapes(generator, 60, size))
    peaks = []
    for repeats in (1, 10):
        write_video(tmp_path / "clip.mp4", pictures * repeats)
        stream = WindowStream(
            tmp_path / "clip.mp4",
            Windows(SimpleNamespace(frames=8, height=64, width=64, channels=3), 2, 2),
        )
        tracemalloc.start()
        count = sum(1 for _ in stream)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == len(stream.times) == (60 * repeats - 15) // 2 + 1
    window = 8 * 64 * 64 * 3
    assert peaks[1] < peaks[0] + window  # all frames would be 37 more windows
    assert peaks[1] < 16 * window


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for name in ("broken.mp4", "missing.mp4"):
        with pytest.raises(UnreadableVideo, match=name):
            WindowStream(tmp_path / name, Windows(SIZES, **WHOLE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 0}, "`stride` must be at least 1"),
        ({"sampling_stride": 0}, "`stride` must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Windows(SIZES, **{**WHOLE, **change})
