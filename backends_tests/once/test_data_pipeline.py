"""Tests of batches: their contents, which depend only on files, settings, seed and number."""

import inspect
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from vmae_keras.data import clips, pretraining
from vmae_keras.data.batches import NoReadableVideo
from vmae_keras.data.files import list_videos
from vmae_keras.data.frames import read_frames
from vmae_keras.data.pretraining import pretraining_dataset, read_clip, validation_dataset
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.video import UnreadableVideo

CONFIG = SimpleNamespace(frames=4, height=16, width=24, channels=3, grid=(2, 4, 6))
COUNT = 7


def write_video(path, level, frames=12):
    """Write grey frames that identify the video by brightness, with a ramp that identifies the crop."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 2_000_000
        for number in range(frames):
            array = np.full((48, 64, 3), level, np.uint8)
            array += np.linspace(0, 10, 64).astype(np.uint8)[:, None] + np.uint8(number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for index in range(COUNT):
        write_video(folder / f"{index}.mp4", 30 * index + 15)
    return folder


@pytest.fixture(scope="session")
def files(folder):
    return list_videos(folder)


@pytest.fixture
def skipped(tmp_path):
    return SkippedFiles(tmp_path / "skipped.jsonl")


@pytest.fixture
def broken(files, tmp_path):
    """Return the files, the third of which is not a video."""
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    return [*files[:2], *list_videos(tmp_path / "broken.mp4"), *files[3:]]


def batches(dataset, count):
    iterator = iter(dataset)
    taken = list(islice(iterator, count))
    iterator.close()
    return taken


def same(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


def which(batch):
    """Return the index of each video in a batch."""
    return ((batch["video"].mean((1, 2, 3, 4)) - 20) / 30).round().astype(int).tolist()


@pytest.mark.clause("DATA-8")
def test_a_batch_has_the_documented_arrays(files, skipped):
    dataset = pretraining_dataset(
        files, CONFIG, batch_size=3, repeats=2, skipped=skipped, mask_ratio=0.75, stride=2
    )
    (batch,) = batches(dataset, 1)
    described = {key: (type(value), value.dtype, value.shape) for key, value in batch.items()}
    assert described == {
        "video": (np.ndarray, np.uint8, (6, 4, 16, 24, 3)),
        "visible": (np.ndarray, np.int32, (6, 12)),
        "decoded": (np.ndarray, np.int32, (6, 36)),
    }
    assert skipped.report() == {}


@pytest.mark.clause("DATA-8")
def test_a_decoder_mask_brings_weights(files, skipped):
    dataset = pretraining_dataset(
        files, CONFIG, batch_size=2, skipped=skipped, decoder_mask_ratio=0.75
    )
    (batch,) = batches(dataset, 1)
    assert batch["decoded"].shape == batch["weight"].shape == (2, 12)
    for visible, decoded, weight in zip(
        batch["visible"], batch["decoded"], batch["weight"], strict=True
    ):
        np.testing.assert_array_equal(weight, ~np.isin(decoded, visible))


def test_epochs_are_different_permutations_and_batches_cross_their_ends(files, skipped):
    dataset = pretraining_dataset(files, CONFIG, batch_size=3, skipped=skipped)
    stream = [index for batch in batches(dataset, COUNT) for index in which(batch)]
    epochs = [stream[first : first + COUNT] for first in range(0, 3 * COUNT, COUNT)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(COUNT))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_seed_decides(files, skipped):
    def run(seed):
        return batches(
            pretraining_dataset(files, CONFIG, batch_size=2, skipped=skipped, seed=seed), 4
        )

    assert same(run(5), run(5))
    assert not same(run(5), run(6))


@pytest.mark.parametrize("step", [1, 3, 9])
def test_a_run_continues_exactly_where_it_stopped(broken, skipped, step):
    def run(**kwargs):
        return pretraining_dataset(broken, CONFIG, batch_size=3, skipped=skipped, **kwargs)

    assert same(batches(run(start_step=step), 3), batches(run(), step + 3)[step:])


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
def test_the_number_of_workers_changes_nothing(broken, skipped, sampling):
    def run(workers):
        dataset = pretraining_dataset(
            broken, CONFIG, batch_size=3, sampling=sampling, skipped=skipped, workers=workers
        )
        return batches(dataset, 7)

    assert same(run(0), run(2))
    assert list(skipped.report()) == [broken[2].path]


def test_a_broken_file_is_replaced_and_named_once(broken, skipped, monkeypatch):
    opened = []
    read = clips.read_frames
    monkeypatch.setattr(
        clips, "read_frames", lambda path, *rest: (opened.append(path), read(path, *rest))[1]
    )
    taken = batches(pretraining_dataset(broken, CONFIG, batch_size=COUNT, skipped=skipped), 3)
    assert all(len(which(batch)) == COUNT and 2 not in which(batch) for batch in taken)
    assert list(skipped.report().items()) == [
        (broken[2].path, "Invalid data found when processing input")
    ]
    assert Path(skipped.path).read_text().count("broken.mp4") == 1
    # Read threads may meet it at the same time, but it is not opened again and again.
    assert opened.count(broken[2].path) <= 8


def test_a_file_that_breaks_halfway_is_used_and_recorded(files, skipped, monkeypatch):
    def damaged(path, choose, on_damage):
        on_damage("cut off")
        return read_frames(path, choose, on_damage)

    monkeypatch.setattr(clips, "read_frames", damaged)
    (batch,) = validation_dataset(files[:1], CONFIG, batch_size=1, skipped=skipped)
    assert which(batch) == [0]
    reason = "used in part, as far as it decodes: cut off"
    assert skipped.report() == {files[0].path: reason}


def test_what_a_broken_file_draws_does_not_change_its_replacement(files, skipped, monkeypatch):
    bad = files[2].path

    def breaks_late(path, *rest):
        frames = read_frames(path, *rest)  # uses the sample's generator
        if path == bad:
            raise UnreadableVideo(path, "breaks late")
        return frames

    monkeypatch.setattr(clips, "read_frames", breaks_late)
    monkeypatch.setattr(pretraining, "prefetch", lambda batches, workers: batches)
    meeting, knowing = (
        pretraining_dataset(files, CONFIG, batch_size=COUNT, stride=1, skipped=skipped)
        for _ in range(2)
    )
    knowing.videos.broken[bad] = "broken"
    assert same([meeting[0], meeting[1]], [knowing[0], knowing[1]])
    assert list(meeting.videos.broken) == [bad]


@pytest.mark.parametrize("workers", [0, 1])
def test_without_a_readable_file_there_is_a_clear_error(tmp_path, skipped, workers):
    for index in range(5):
        (tmp_path / f"{index}.mp4").write_bytes(b"no video")
    files = list_videos(tmp_path)
    message = "None of the 5 files can be read.*first reasons: .*mp4: Invalid data.*names them all"
    with pytest.raises(NoReadableVideo, match=message):
        dataset = pretraining_dataset(files, CONFIG, batch_size=2, skipped=skipped, workers=workers)
        batches(dataset, 1)
    assert list(skipped.report()) == [file.path for file in files]
    with pytest.raises(NoReadableVideo, match=message):
        validation_dataset(files, CONFIG, batch_size=2, skipped=skipped)


def test_validation_is_one_pass_in_order_with_the_same_masks_every_time(files, skipped):
    dataset = validation_dataset(files, CONFIG, batch_size=3, skipped=skipped)
    first, second = list(dataset), list(dataset)
    assert [which(batch) for batch in first] == [[0, 1, 2], [3, 4, 5], [6]]
    assert same(first, second)
    assert len({ids.tobytes() for batch in first for ids in batch["visible"]}) == COUNT
    other = list(validation_dataset(files, CONFIG, batch_size=3, skipped=skipped, seed=1))
    assert not same(first, other)
    np.testing.assert_array_equal(first[0]["video"], other[0]["video"])


def test_validation_leaves_broken_files_out_whatever_the_workers(broken, skipped):
    def run(workers):
        return list(
            validation_dataset(broken, CONFIG, batch_size=2, skipped=skipped, workers=workers)
        )

    alone = run(0)
    assert [which(batch) for batch in alone] == [[0, 1], [3, 4], [5, 6]]
    assert same(alone, run(2))
    assert list(skipped.report()) == [broken[2].path]


def test_one_channel_is_brightness(files, skipped):
    config = SimpleNamespace(**{**vars(CONFIG), "channels": 1})
    (batch,) = batches(pretraining_dataset(files, config, batch_size=COUNT, skipped=skipped), 1)
    assert batch["video"].shape == (COUNT, 4, 16, 24, 1)
    assert sorted(which(batch)) == list(range(COUNT))
    clip = read_clip(files[0].path, frames=2, size=8, channels=1, sampling="uniform")
    assert clip.shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1. Received: batch_size=0"),
        ({"repeats": 0}, "`repeats` must be at least 1"),
        ({"stride": 0}, "`stride` must be at least 1"),
        ({"seed": -1}, "`seed` must be from 0 to 18446744073709551615. Received: -1"),
        ({"start_step": -1}, "`start_step` must be at least 0"),
        ({"workers": -1}, "`workers` must be at least 0"),
        ({"sampling": "sparse"}, "`sampling` must be one of dense, uniform. Received: .*'sparse'"),
        ({"mask": "tubes"}, "must be one of tube"),
        ({"mask_ratio": 1.0}, "must leave at least one token visible"),
        ({"files": []}, "`videos` must name at least one video"),
        ({"config": SimpleNamespace(**{**vars(CONFIG), "channels": 4})}, "Received: 4"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_read(files, skipped, change, message):
    settings = {"files": files, "config": CONFIG, "batch_size": 2, "skipped": skipped, **change}
    some = (settings.pop("files"), settings.pop("config"))
    datasets = [pretraining_dataset]
    if not change.keys() & {"repeats", "start_step"}:
        datasets.append(validation_dataset)
    for dataset in datasets:
        with pytest.raises(ValueError, match=message):
            dataset(*some, **settings)


@pytest.mark.parametrize("function", [pretraining_dataset, validation_dataset, read_clip])
def test_clips_are_dense_at_stride_4_by_default(function):
    parameters = inspect.signature(function).parameters
    assert (parameters["sampling"].default, parameters["stride"].default) == ("dense", 4)


def test_importing_the_pipeline_imports_no_backend():
    code = (
        "import sys, vmae_keras.data.pretraining\n"
        "print([name for name in ('keras', 'tensorflow', 'torch') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


ABANDON = """
import multiprocessing, os, sys, time
from types import SimpleNamespace
from vmae_keras.data.files import list_videos
from vmae_keras.data.pretraining import pretraining_dataset
from vmae_keras.data.skipped import SkippedFiles

if __name__ == "__main__":
    config = SimpleNamespace(frames=4, height=16, width=24, channels=3, grid=(2, 4, 6))
    skipped = SkippedFiles(sys.argv[2])
    dataset = pretraining_dataset(
        list_videos(sys.argv[1]), config, batch_size=2, skipped=skipped, workers=1
    )
    iterator = iter(dataset)
    next(iterator)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes as Linux can")
def test_workers_end_when_the_main_process_is_killed(folder, tmp_path):
    (tmp_path / "abandon.py").write_text(ABANDON)
    main = subprocess.Popen(
        [sys.executable, "abandon.py", folder, "skipped.jsonl"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    (worker,) = map(int, main.stdout.readline().split())
    ends = os.pidfd_open(worker)  # becomes readable when the process has ended
    assert not select.select([ends], [], [], 0)[0]
    main.kill()
    main.communicate()
    try:
        assert select.select([ends], [], [], 60)[0], "The worker still runs after a minute."
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(ends, signal.SIGKILL)
        os.close(ends)


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_closing_ends_the_workers(files, skipped):
    batches(pretraining_dataset(files, CONFIG, batch_size=2, skipped=skipped, workers=2), 2)
    assert not [child for child in multiprocessing.active_children() if "decod" in child.name]


KILLED = """
import os, pathlib, signal, sys
from types import SimpleNamespace
from vmae_keras.data.files import list_videos
from vmae_keras.data.pretraining import pretraining_dataset
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.workers import WorkerDied

if __name__ == "__main__":
    config = SimpleNamespace(frames=4, height=16, width=24, channels=3, grid=(2, 4, 6))
    iterator = iter(pretraining_dataset(
        list_videos(sys.argv[1]), config, batch_size=2, skipped=SkippedFiles("skipped"), workers=2
    ))
    next(iterator)
    status = dict(
        line.split(":", 1)
        for line in pathlib.Path(f"/proc/{iterator._workers[1].process.pid}/status").open()
    )
    blocked = int(status["SigBlk"], 16)
    print([bool(blocked >> number - 1 & 1) for number in (signal.SIGINT, signal.SIGTERM)])
    maps = [pathlib.Path(f"/proc/{pid}/maps").read_text()
            for pid in ("self", iterator._workers[1].process.pid)]
    print(["/dev/shm" in each for each in maps])
    os.kill(iterator._workers[1].process.pid, signal.SIGKILL)
    try:
        while True:
            next(iterator)
    except WorkerDied as error:
        print(error)
    unclosed = iter(pretraining_dataset(
        list_videos(sys.argv[1]), config, batch_size=2, skipped=SkippedFiles("skipped"), workers=1
    ))
    next(unclosed)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks processes up in /proc")
def test_workers_receive_no_signals_use_no_shared_memory_and_are_missed_when_killed(
    folder, tmp_path
):
    (tmp_path / "killed.py").write_text(KILLED)
    done = subprocess.run(
        [sys.executable, "killed.py", folder],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    blocked, shared, message = done.stdout.splitlines()
    assert (blocked, shared) == ("[True, True]", "[False, False]")
    assert "was killed by SIGKILL, as the system does when memory runs out" in message
    assert "Use fewer --workers (received: 2)" in message
    assert done.stderr == "" and done.returncode == 0
