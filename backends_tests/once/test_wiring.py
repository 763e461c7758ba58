"""Tests that every value of a recipe arrives at its destination, observed at the library's own seams.

A field that is missing from the tables below fails its test. Add its destination there.
"""

import dataclasses

import numpy as np
import pytest

from backends_tests import stages
from spec import distillation_reference
from vmae_keras.recipes.distillation import DistillationRecipe
from vmae_keras.recipes.fine_tuning import FineTuningRecipe
from vmae_keras.recipes.pretraining import PretrainingRecipe
from vmae_keras.runs.settings import evaluation_views
from vmae_keras.training import session

# 20 files, of which a fifth is held out: four steps of four videos per epoch, 28 steps, 9 updates.
FILES, SEED = 20, 7
VIDEO = np.zeros((2, 4, 8, 12, 3), np.uint8)
MASKED = {
    "video": VIDEO,
    "visible": np.zeros((2, 1), np.int32),
    "decoded": np.zeros((2, 3), np.int32),
}
MODEL = {
    "frames": 4,
    "height": 8,
    "width": 12,
    "tubelet": (2, 4, 4),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.6, 0.7, 0.8),
}


def training(clips):
    """Return {field: (non-default value, {seam: expected value})}; `clips` has the sampling."""
    return {
        "epochs": (7, {"WarmupCosine.total_steps": 9, "display.total_steps": 28}),
        "warmup_epochs": (2.25, {"WarmupCosine.warmup_steps": 3}),
        "batch_size": (
            4,
            {"dataset.batch_size": 4, "fit.steps_per_epoch": 4, "Progress.steps_per_epoch": 4},
        ),
        "base_learning_rate": (0.75, {"WarmupCosine.peak": 0.75 * 4 * 3 / 256}),
        "minimum_learning_rate": (0.5, {"WarmupCosine.minimum": 0.5 * 4 * 3 / 256}),
        "repeats": (
            6,
            {"dataset.repeats": 6, "Progress.clips_per_step": 24, "fit.validation_batch_size": 12},
        ),
        "accumulate": (3, {"WarmupCosine.accumulate": 3, "AdamW.gradient_accumulation_steps": 3}),
        "weight_decay": (0.31, {"AdamW.weight_decay": 0.31}),
        "beta_1": (0.32, {"AdamW.beta_1": 0.32}),
        "beta_2": (0.33, {"AdamW.beta_2": 0.33}),
        "clip_norm": (0.34, {"AdamW.global_clipnorm": 0.34}),
        "sampling": ("uniform", {f"{place}sampling": "uniform" for place in clips}),
        "stride": (3, {f"{place}stride": 3 for place in clips}),
        "validation": (0.2, {"hold_out.share": 0.2, "display.training": 16, "display.held_out": 4}),
        "average_decay": (0.35, {"AdamW.average_decay": 0.35}),
        "patience": (2, {"Progress.patience": 2}),
        "precision": ("mixed_bfloat16", {"model.dtype": "mixed_bfloat16"}),
        "remat": (True, {"model.remat": True}),
    }


MASKS = {"mask": "frame", "mask_ratio": 0.5, "decoder_mask_ratio": 0.25}
PRETRAINING = training(("dataset.", "validation.", "views.")) | {
    name: (value, {f"dataset.{name}": value, f"validation.{name}": value})
    for name, value in MASKS.items()
}
CHANGES, MIXES = "validation.clips.augmentation.", "validation.clips.mixing."
AUGMENTATION = {
    "label_smoothing": (0.45, {f"{MIXES}label_smoothing": 0.45}),
    "mixup": (0.46, {f"{MIXES}mixup": 0.46}),
    "cutmix": (0.47, {f"{MIXES}cutmix": 0.47}),
    "mixup_probability": (0.48, {f"{MIXES}probability": 0.48}),
    "cutmix_switch_probability": (0.49, {f"{MIXES}switch_probability": 0.49}),
    "auto_augment": (
        "rand-m6-n2-mstd0.25-inc1",
        {
            f"{CHANGES}rand_augment.magnitude": 6,
            f"{CHANGES}rand_augment.operations": 2,
            f"{CHANGES}rand_augment.deviation": 0.25,
        },
    ),
    "crop_area": ((0.51, 0.52), {f"{CHANGES}crop_area": (0.51, 0.52)}),
    "crop_aspect": ((0.53, 0.54), {f"{CHANGES}crop_aspect": (0.53, 0.54)}),
    "flip_probability": (0.55, {f"{CHANGES}flip_probability": 0.55}),
    "erasing_probability": (0.56, {f"{CHANGES}erasing_probability": 0.56}),
}
FINE_TUNING = training(("dataset.", "validation.clips.read.", "views.")) | {
    **{
        name: (value, {f"dataset.{name}": value, **places})
        for name, (value, places) in AUGMENTATION.items()
    },
    "layer_decay": (0.41, {"AdamW.layer_decay": 0.41}),
    "drop_path": (0.42, {"model.config.drop_path": 0.42}),
    "head_dropout": (0.43, {"model.head_dropout": 0.43}),
    "pooling": ("first", {"model.pooling": "first"}),
    "init_scale": (0.44, {"model.init_scale": 0.44}),
    "freeze_encoder": (True, {"trainable": stages.PATHS[2:], "lora_ranks": (None,) * 4}),
    "lora_rank": (None, {"lora_ranks": (None,) * 4}),
    "test_clips": (1, {"views.clips": 1}),
    "test_crops": (9, {"views.crops": 9}),
}
LOGITS = stages.says(VIDEO[:1])
SOFTENED = distillation_reference.softened(LOGITS, 2.5)
WHITENED = distillation_reference.whitened(LOGITS)
DISTILLATION = FINE_TUNING | {
    "label_smoothing": (0.0, {"dataset.label_smoothing": 0.0}),  # other values are refused
    "match": ("classes", {"predict.model": "VideoClassifier"}),
    "temperature": (2.5, {"loss.temperature": 2.5, "targets": SOFTENED, "validated": SOFTENED}),
    "precision": (
        "mixed_bfloat16",
        {"model.dtype": "mixed_bfloat16", "teacher.dtype": "mixed_bfloat16"},
    ),
}
# Values that a recipe cannot combine with others.
LORA = {
    "freeze_encoder": (False, {}),
    "lora_rank": (5, {"lora_ranks": (5,) * 4, "trainable": stages.PATHS[2:]}),
}
FEATURES = {
    "match": ("features", {"predict.model": "VideoEncoder", "teacher.pooling": "mean"}),
    "temperature": (1.0, {"targets": WHITENED, "validated": WHITENED}),
}
FREE = {"freeze_encoder": (False, {"trainable": stages.PATHS})}

# The stage's recipe, its table, and further changes to test.
STAGES = {
    "pretraining": (PretrainingRecipe, PRETRAINING, [{}]),
    "fine-tuning": (FineTuningRecipe, FINE_TUNING, [{}, LORA, FREE]),
    "distillation": (DistillationRecipe, DISTILLATION, [{}, LORA | FEATURES]),
}
# Values that are not part of a recipe: those common to all stages, and those of each stage.
EVERYWHERE = {
    "set_seed.seed": SEED,
    "dataset.seed": SEED,
    "generator.seed": SEED,
    "dataset.part": 1,
    "dataset.parts": 2,
    "dataset.workers": 3,
    "dataset.start_step": 8,
    "hold_out.most": 128,
    "model.config.mean": (0.1, 0.2, 0.3),
    "model.config.height": 8,
    "display.notes": [],  # few updates are reported when a run starts
}
OF_STAGE = {
    "pretraining": {
        "validation.seed": SEED,
        "validation.batch_size": 4,
        "hold_out.by_class": False,
    },
    "fine-tuning": {
        "dataset.labels": stages.LABELS,
        f"{MIXES}classes": 3,
        "model.labels": stages.LABELS,
        "hold_out.by_class": True,
        "model.classes": 3,
    },
    "distillation": {
        "dataset.labels": [""],
        f"{MIXES}classes": 1,
        "hold_out.by_class": False,
        "teacher.preset": "hf://a/teacher",
    },
}
AUGMENTED = {
    f"{CHANGES}size": (8, 12),
    f"{CHANGES}mean": (0.1, 0.2, 0.3),
    f"{CHANGES}std": (0.6, 0.7, 0.8),
    "dataset.config.frames": 4,
    "validation.clips.read.spread": True,
}


def settings(stage, recipe, folder, patch):
    """Return a new run's settings, for empty files."""
    for number in range(FILES):
        label = folder / "videos" / stages.LABELS[number % 3]
        label.mkdir(parents=True, exist_ok=True)
        (label / f"{number}.mp4").touch()
    model = MODEL | ({"drop_path": 0.01} if stage == "pretraining" else {})
    return stages.begun(patch, stage, folder / "videos", folder / "run", model, recipe, SEED)


def seen_of(stage, chosen, folder, patch, files=None):
    """Return the recorded values of a run that resumes after step 5 as the second of two processes."""
    batch = VIDEO, np.zeros((2, 3), "float32")
    data = [batch], batch
    if stage == "pretraining":
        data = ([MASKED], [MASKED])
    seen = stages.run(
        patch,
        chosen,
        folder / "run",
        files=files,
        start=5,
        workers=3,
        devices=stages.SecondOfTwo(),
        data=data,
    )
    seen.note("views", evaluation_views(chosen))
    ((_, *targets),) = seen["fit.batches"]
    _, *validated = seen["fit.validation_data"]
    seen |= {"targets": targets, "validated": validated}
    return seen


CASES = [
    pytest.param(stage, case, id=f"{stage} {number}")
    for stage, (_, _, cases) in STAGES.items()
    for number, case in enumerate(cases)
]


@pytest.mark.parametrize(("stage", "case"), CASES)
def test_every_value_of_a_recipe_arrives(stage, case, tmp_path, monkeypatch):
    recipe, table, _ = STAGES[stage]
    table = table | case
    values = {name: value for name, (value, _) in table.items()}
    chosen = settings(stage, values, tmp_path, monkeypatch)
    assert chosen.recipe == recipe(**values)
    wanted = EVERYWHERE | OF_STAGE[stage] | ({} if stage == "pretraining" else AUGMENTED)
    for _, places in table.values():
        wanted |= places
    seen = seen_of(stage, chosen, tmp_path, monkeypatch)
    wrong = {
        place: f"{seen.get(place, 'nothing')!r}, not {value!r}"
        for place, value in wanted.items()
        if not same(seen.get(place), value)
    }
    assert not wrong


@pytest.mark.parametrize("stage", STAGES)
def test_a_new_run_does_not_list_its_videos_again(stage, tmp_path, monkeypatch):
    chosen = settings(stage, {}, tmp_path, monkeypatch)
    files = session.listed_files(chosen)
    monkeypatch.setattr(session, "listed_files", lambda settings: pytest.fail("listed again"))
    assert seen_of(stage, chosen, tmp_path, monkeypatch, files)["hold_out.files"] is files


def same(one, other):
    """Return whether two values are equal, with numbers up to rounding."""
    if isinstance(other, float | np.ndarray):
        # Two values of a field differ by much more than float32 rounding.
        return one is not None and np.allclose(one, other, rtol=1e-5, atol=0)
    return one == other


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_of_a_recipe_is_tried_off_its_default(stage):
    recipe, table, cases = STAGES[stage]
    fields = {field.name: field.default for field in dataclasses.fields(recipe)}
    assert table.keys() == fields.keys(), "say in this file's tables where a field must arrive"
    tried = {name: [(table | case)[name][0] for case in cases] for name in fields}
    still = {name for name, default in fields.items() if set(tried[name]) == {default}}
    assert still == ({"label_smoothing"} if stage == "distillation" else set())
