"""Tests of the training and validation batches that each stage gives its model, against manual ones."""

from types import SimpleNamespace

import numpy as np
import pytest

from backends_tests import by_hand, stages
from backends_tests.compare import assert_close
from spec import distillation_reference

SEED, STEPS = 7, 4  # three steps per epoch
MODEL = {
    "frames": 4,
    "height": 32,
    "width": 32,
    "tubelet": (2, 8, 8),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.6, 0.7, 0.8),
}
TRAINING = {
    "epochs": 2,
    "warmup_epochs": 0,
    "batch_size": 4,
    "base_learning_rate": 1.0,
    "repeats": 2,
    "validation": 0.25,
}
DENSE = TRAINING | {"sampling": "dense", "stride": 3}
UNIFORM = TRAINING | {"sampling": "uniform"}
MASKS = [
    ({"mask": "tube", "mask_ratio": 0.75}, DENSE),
    ({"mask": "frame", "mask_ratio": 0.5, "decoder_mask_ratio": 0.25}, UNIFORM),
    ({"mask": "random", "mask_ratio": 0.3, "decoder_mask_ratio": 0.75}, DENSE),
    ({"mask": "agnostic", "mask_ratio": 0.6}, UNIFORM),
]
AUGMENTED = {
    "label_smoothing": 0.2,
    "mixup": 0.6,
    "cutmix": 2.0,
    "mixup_probability": 0.8,
    "cutmix_switch_probability": 0.6,
    "auto_augment": "rand-m6-n2-mstd0.4-inc1",
    "crop_area": (0.3, 0.6),
    "crop_aspect": (0.8, 1.1),
    "flip_probability": 0.4,
    "erasing_probability": 0.6,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Write a folder of four videos of each class; return its frames and labels in its order."""
    folder = tmp_path_factory.mktemp("videos")
    frames = stages.write_videos(folder, 12)
    return SimpleNamespace(folder=folder, frames=frames, labels=[n // 4 for n in range(12)])


def run(patch, stage, videos, folder, recipe):
    """Return a run's settings, its training and validation batches, and the indices of their videos."""
    chosen = stages.begun(patch, stage, videos.folder, folder, MODEL, recipe, SEED)
    seen = stages.run(patch, chosen, folder, batches=STEPS)
    assert ["makes 6 updates" in note for note in seen["display.notes"]] == [True]
    labels = videos.labels if stage == "fine-tuning" else None
    held = by_hand.held_out(12, 0.25, SEED, labels)
    kept = [place for place in range(12) if place not in held]
    return chosen, seen["fit.batches"], seen["fit.validation_data"], kept, held


def of(values, places):
    return [values[place] for place in places]


@pytest.mark.clause(
    "RANDOM-1", "HOLD-2", "DATA-1", "DATA-2", "DATA-3", "DATA-6", "DATA-7", "DATA-8"
)
@pytest.mark.parametrize(("masks", "training"), MASKS, ids=[each[0]["mask"] for each in MASKS])
def test_pretraining_fits_batches_of_its_recipe(masks, training, videos, tmp_path, monkeypatch):
    chosen, batches, validation, kept, held = run(
        monkeypatch, "pretraining", videos, tmp_path, masks | training
    )
    given = (chosen.config, chosen.recipe, SEED)
    for step, (batch,) in enumerate(batches):
        same(batch, by_hand.pretraining_batch(*given, of(videos.frames, kept), step))
    same(validation[0], by_hand.pretraining_validation(*given, of(videos.frames, held)))
    assert len(batches) == STEPS


def same(batch, expected):
    assert batch.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(batch[name], value, err_msg=name)


@pytest.mark.clause("RANDOM-1", "HOLD-2", "HOLD-3", "AUG-2", "AUG-5", "AUG-9", "AUG-11", "EVAL-6")
@pytest.mark.clause("MIX-1", "MIX-3", "MIX-4", "MIX-5", "SHARD-2")
@pytest.mark.parametrize("training", [DENSE, UNIFORM], ids=["dense", "uniform"])
def test_fine_tuning_fits_batches_of_its_recipe(training, videos, tmp_path, monkeypatch):
    chosen, batches, validation, kept, held = run(
        monkeypatch, "fine-tuning", videos, tmp_path, training | AUGMENTED
    )
    sets = [(of(videos.frames, places), of(videos.labels, places), 3) for places in (kept, held)]
    for step, batch in enumerate(batches):
        expected = by_hand.mixed_batch(chosen.config, chosen.recipe, SEED, *sets[0], step)
        close(batch, expected)
    clips, targets = by_hand.centre_views(chosen.config, chosen.recipe, *sets[1])
    rounded(validation[0], clips)
    np.testing.assert_array_equal(validation[1], targets)
    assert len(batches) == STEPS


def rounded(views, exact):
    """Compare uint8 views with levels that are not yet rounded."""
    assert views.dtype == np.uint8 and views.shape == exact.shape
    # float32 may round a half either way, as in `test_fine_tuning_clips`.
    assert np.abs(views - exact).max() < 0.5 + 3e-4


def close(batch, expected):
    for found, value in zip(batch, expected, strict=True):
        assert_close(found, value, "float32")


@pytest.mark.clause("DISTILL-1", "DISTILL-2", "HOLD-2")
@pytest.mark.parametrize("match", ["classes", "features"])
def test_distillation_fits_what_its_teacher_says_of_these_clips(
    match, videos, tmp_path, monkeypatch
):
    softness = {"temperature": 2.5} if match == "classes" else {}
    recipe = DENSE | AUGMENTED | {"label_smoothing": 0.0, "match": match} | softness
    chosen, batches, validation, kept, held = run(
        monkeypatch, "distillation", videos, tmp_path, recipe
    )

    def answers(clips):
        if match == "classes":
            return distillation_reference.softened(stages.says(clips), 2.5)
        return distillation_reference.whitened(stages.says(clips))

    given = (chosen.config, chosen.recipe)
    for step, batch in enumerate(batches):
        clips, _ = by_hand.mixed_batch(*given, SEED, of(videos.frames, kept), [0] * 9, 1, step)
        found, targets = batch
        close([found], [clips])
        assert_close(targets, answers(clips), "distillation.target")
    clips, _ = by_hand.centre_views(*given, of(videos.frames, held), [0] * 3, 1)
    found, targets = validation
    rounded(found, clips)
    assert_close(targets, answers(found), "distillation.target")
