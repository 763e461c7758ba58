"""Tests of the frames and crops of a video that fine-tuning trains and validates on."""

import inspect
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from backends_tests.odd_videos import numbers, picture, write_video
from spec import augment_reference, evaluation_reference
from spec.position_reference import linear, resize_axis
from vmae_keras import VideoMAEConfig
from vmae_keras.data import fine_tuning
from vmae_keras.data.clips import ClipReader
from vmae_keras.data.files import VideoFile
from vmae_keras.data.fine_tuning import FineTuningClips, centre_clips, fine_tuning_dataset
from vmae_keras.data.frames import read_frames
from vmae_keras.data.mixing import Mixing
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.recipes.fine_tuning import FineTuningRecipe

COUNT, STRIDE = 40, 3
SIZES = SimpleNamespace(frames=8, height=16, width=16, channels=3)


def clips(sampling, sizes=SIZES):
    read = ClipReader(sizes, sampling, STRIDE, spread=True)
    return FineTuningClips(read, augmentation=None, mixing=Mixing(2))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Return a video whose frames encode their numbers."""
    path = tmp_path_factory.mktemp("videos") / "numbers.mp4"
    write_video(path, [picture(number) for number in range(COUNT)])
    return path


@pytest.mark.clause("AUG-11", "DATA-3")
def test_training_draws_clips_as_official_fine_tuning_does(video):
    read = clips("dense").read
    drawn = [numbers(read(video, np.random.default_rng(n), None)) for n in range(30)]
    for found in drawn:
        expected = augment_reference.clip_positions(COUNT, SIZES.frames, STRIDE, found[0])
        assert found == expected.tolist()
    assert {found[0] for found in drawn} <= set(range(COUNT - SIZES.frames * STRIDE))
    parts = clips("uniform").read(video, np.random.default_rng(0), None)
    assert [number // 5 for number in numbers(parts)] == list(range(8))


def test_every_clip_has_the_class_of_its_file(tmp_path, monkeypatch):
    """Check frames of video n, which encode its number, over files drawn in several epochs."""
    files = [VideoFile(str(tmp_path / f"{n}.avi"), label) for n, label in enumerate("hfig")]
    for number, file in enumerate(files):
        write_video(file.path, [picture(number)] * 8, codec="rawvideo", pix_fmt="bgr24")

    def whole(frames, generator):
        return frames / np.float32(255)

    plain = FineTuningClips(
        ClipReader(SIZES, "dense", 1, spread=True), whole, Mixing(9, 0, mixup=0, cutmix=0)
    )
    monkeypatch.setattr(fine_tuning, "fine_tuning_clips", lambda config, classes: plain)
    batches = fine_tuning_dataset(files, SIZES, batch_size=6, labels="abcdefghi")
    for videos, targets in itertools.islice(batches, 3):
        found = [numbers(video[:1] * 255)[0] for video in videos]
        assert targets.argmax(1).tolist() == [[7, 5, 8, 6][number] for number in found]
        assert len(found) == 6 and set(found) == {0, 1, 2, 3}


@pytest.mark.clause("EVAL-6", "EVAL-5")
@pytest.mark.parametrize("sampling", ["dense", "uniform"])
@pytest.mark.parametrize("size", [(16, 16), (16, 40), (8, 4)], ids=str)
def test_validation_sees_a_view_of_evaluation(sampling, size, tmp_path):
    """Compare with the centre clip resized without antialiasing, which would show at this size."""
    (path,) = write_moving_shapes(tmp_path, 1, frames=COUNT, size=(30, 48))
    sizes = SimpleNamespace(**{**vars(SIZES), "height": size[0], "width": size[1]})
    skipped = SkippedFiles(tmp_path / "skipped.jsonl")
    (found,), (target,) = centre_clips([VideoFile(str(path))], [1], clips(sampling, sizes), skipped)
    if sampling == "dense":
        start = (COUNT - 8 * STRIDE) // 2
        positions = augment_reference.clip_positions(COUNT, 8, STRIDE, start)
    else:
        (positions,) = evaluation_reference.uniform_views(COUNT, 8, 1)
    frames = read_frames(path, np.arange)[positions]
    resized = evaluation_reference.fitted_size(30, 48, size)
    ((y, x),) = evaluation_reference.fitted_crops(*resized, size, 1)
    exact = resize_axis(resize_axis(frames, 1, resized[0], linear), 2, resized[1], linear)
    exact = exact[:, y : y + size[0], x : x + size[1]]
    assert found.dtype == np.uint8 and found.shape == exact.shape
    # Half a level of rounding, plus float32 error.
    assert np.abs(found - exact).max() < 0.5 + 3e-4
    assert target.tolist() == [0, 1]


def test_the_defaults_of_augmentation_are_those_of_a_recipe():
    defaults = {
        name: each.default
        for name, each in inspect.signature(fine_tuning.fine_tuning_clips).parameters.items()
        if each.kind is each.KEYWORD_ONLY
    }
    recipe = FineTuningRecipe(epochs=6, warmup_epochs=5, batch_size=2, base_learning_rate=1e-3)
    assert recipe.clip_options() == defaults


def test_videos_without_a_label_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Each video needs a label"):
        fine_tuning_dataset([VideoFile("a.mp4")], SIZES, batch_size=1)
    with pytest.raises(ValueError, match=r"labels are no class of the model\. Received: None"):
        fine_tuning_dataset([VideoFile("a.mp4")], VideoMAEConfig(), batch_size=1, labels="ab")
