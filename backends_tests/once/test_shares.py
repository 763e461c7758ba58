"""Tests that the parts of a batch together equal the batch of a single device."""

import numpy as np
import pytest

from backends_tests.once.test_data_pipeline import CONFIG, write_video
from spec import share_reference
from vmae_keras import VideoMAEConfig
from vmae_keras.data import fine_tuning
from vmae_keras.data.clips import ClipReader
from vmae_keras.data.crops import resize
from vmae_keras.data.files import VideoFile, list_videos
from vmae_keras.data.fine_tuning import FineTuningClips, fine_tuning_dataset
from vmae_keras.data.mixing import Mixing
from vmae_keras.data.pretraining import pretraining_dataset
from vmae_keras.data.random_streams import Purpose, generator
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.distribution.devices import Devices, DistributionError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for index in range(5):
        write_video(folder / f"{index}.mp4", 40 * index + 15)
    return list_videos(folder)


@pytest.fixture
def skipped(tmp_path):
    return SkippedFiles(tmp_path / "skipped.jsonl")


def first(dataset):
    return next(iter(dataset))


@pytest.mark.clause("SHARD-1", "DATA-7")
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_pretraining_batch_are_the_batch_and_their_masks_differ(files, skipped, parts):
    settings = {"batch_size": 8, "repeats": 2, "skipped": skipped, "seed": 3, "start_step": 1}
    whole = first(pretraining_dataset(files, CONFIG, **settings))
    made = [
        first(pretraining_dataset(files, CONFIG, part=part, parts=parts, **settings))
        for part in range(parts)
    ]
    for part, batch in enumerate(made):
        rows = [
            2 * place + repeat
            for place in share_reference.places(8, part, parts)
            for repeat in (0, 1)
        ]
        assert batch.keys() == whole.keys()
        for key, value in batch.items():
            np.testing.assert_array_equal(value, whole[key][rows])
    assert not np.array_equal(made[0]["visible"], made[1]["visible"])


def plain(frames, generator):
    """Return an augmentation that draws, so that samples reveal their generator."""
    clip = resize(frames, (0, 0, frames.shape[2], frames.shape[1]), (16, 24)) / np.float32(255)
    return clip * np.float32(generator.uniform(0.5, 1.0))


@pytest.mark.clause("SHARD-2", "MIX-2")
@pytest.mark.parametrize("repeats", [1, 2])
def test_parts_of_a_mixed_batch_are_the_batch_with_partners_side_by_side(
    files, skipped, repeats, monkeypatch
):
    monkeypatch.setattr(fine_tuning, "prefetch", lambda batches, workers: batches)
    labelled = [VideoFile(file.path, str(number)) for number, file in enumerate(files)]

    def batch(mixing, part=0, parts=1, index=0):
        clips = FineTuningClips(ClipReader(CONFIG, "dense", 4), plain, mixing)
        monkeypatch.setattr(fine_tuning, "fine_tuning_clips", lambda config, classes: clips)
        batches = fine_tuning_dataset(
            labelled,
            CONFIG,
            batch_size=8,
            repeats=repeats,
            skipped=skipped,
            start_step=5 - index,
            part=part,
            parts=parts,
        )
        return batches[index]

    mixing = Mixing(len(files))
    whole = batch(mixing)
    videos, targets = batch(Mixing(len(files), mixup=0, cutmix=0))
    count = 8 * repeats
    choice = mixing.draw((16, 24), generator(0, Purpose.MIXING, 5))
    order = share_reference.mixed_order(count, 0, 1)
    mixed = mixing.mix(videos, targets.argmax(axis=1), choice)
    for found, again, expected in zip(whole, batch(mixing, index=1), mixed, strict=True):
        np.testing.assert_array_equal(found, expected[order])
        np.testing.assert_array_equal(again, found)
    for parts in (2, 4):
        made = zip(*(batch(mixing, part, parts) for part in range(parts)), strict=True)
        for arrays, expected in zip(made, whole, strict=True):
            np.testing.assert_array_equal(np.concatenate(arrays), expected)


@pytest.mark.clause("SHARD-1", "SHARD-2")
def test_parts_that_do_not_divide_are_refused(files, skipped):
    with pytest.raises(ValueError, match=r"must be a multiple of `parts`\. Received: 7, parts=2"):
        pretraining_dataset(files, CONFIG, batch_size=7, parts=2, skipped=skipped)
    config = VideoMAEConfig.variant("tiny")
    with pytest.raises(ValueError, match=r"even number of videos\. Received: 3 .batch_size=6"):
        fine_tuning_dataset([VideoFile("a.mp4", "a")], config, batch_size=6, parts=2)
    with pytest.raises(DistributionError, match=r"multiple of 4 .*batch_size=6, devices=4"):
        Devices(count=4).check(6)
    with pytest.raises(DistributionError, match=r"multiple of 4 .*in pairs of mixed clips"):
        Devices(count=2, processes=2).check(6, pairs=True)
    Devices(count=2).check(6, pairs=True)
    assert Devices(count=4, parallel="tensor", processes=2).shares == 2


@pytest.mark.parametrize(("count", "processes"), [(4, 4), (4, 2), (2, 1)])
def test_shares_of_arrays_are_batches_divided(count, processes):
    arrays = ({"video": np.arange(18), "visible": np.arange(18) + 100}, np.arange(18) + 200)
    made = [
        Devices(count, process=process, processes=processes).share(arrays, 8)
        for process in range(processes)
    ]
    kept = 18 // count * count
    for start in range(0, kept, 8):
        size = min(8, kept - start) // processes
        for process, ((inputs, targets), batch_size) in enumerate(made):
            assert batch_size == 8 // processes
            mine = slice(start // processes, start // processes + size)
            expected = np.arange(start + process * size, start + (process + 1) * size)
            np.testing.assert_array_equal(inputs["video"][mine], expected)
            np.testing.assert_array_equal(inputs["visible"][mine], expected + 100)
            np.testing.assert_array_equal(targets[mine], expected + 200)
    assert Devices(count=4).share((np.arange(3),), 8) == (None, 8)


@pytest.mark.parametrize("processes", [1, 2, 258, 259, 20_000])
@pytest.mark.parametrize("differing", [0, 1])
def test_processes_that_say_the_same_are_told_from_others(processes, differing):
    """Check float32 sums, as on every backend, and a text whose digest contains a byte of 255."""

    class Job(Devices):
        total = None

        def sum(self, values):
            self.given = np.asarray(values, "float32")
            return self.given if self.total is None else self.total

    differing = min(differing, processes - 1)
    jobs = {text: Job(processes, processes=processes) for text in ("seed=2", "seed=3")}
    for text, job in jobs.items():
        job.same(text)
    if processes > 1:
        counts = {"seed=2": processes - differing, "seed=3": differing}
        Job.total = sum(np.float32(counts[text]) * job.given for text, job in jobs.items())
    assert jobs["seed=2"].same("seed=2") == (not differing)
    assert not differing or not jobs["seed=3"].same("seed=3")
