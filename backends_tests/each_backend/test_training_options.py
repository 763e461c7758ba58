"""Tests of recipe options beyond the published ones: averages, frozen parts, LoRA, patience, a teacher."""

import dataclasses
import signal
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.each_backend.test_finetune import CONFIG, SETTINGS, clips, curve
from backends_tests.each_backend.test_pretrain import run
from backends_tests.support import numpy
from spec import distillation_reference
from vmae_keras import VideoClassifier, VideoEncoder, VideoMAE, load
from vmae_keras.presets import by_path
from vmae_keras.recipes.distillation import DistillationRecipe
from vmae_keras.recipes.fine_tuning import RECIPES
from vmae_keras.runs import checkpoint_files
from vmae_keras.runs.run import Run
from vmae_keras.runs.settings import FineTuningSettings
from vmae_keras.training import checkpoint, distillation, fine_tuning, plan_folder
from vmae_keras.training.averages import AveragedValidation
from vmae_keras.training.callbacks import Progress
from vmae_keras.training.loop import Outcome, _record_validation
from vmae_keras.training.new_run import prepare_fine_tuning

__all__ = ["clips"]  # a fixture

RECIPE = dataclasses.replace(
    RECIPES["demo"], batch_size=2, warmup_epochs=0, epochs=4, base_learning_rate=1.0
)
LABELS = ("still", "moving")
VIDEOS = np.random.default_rng(0).integers(
    0, 256, (2, CONFIG.frames, CONFIG.height, CONFIG.width, 3), "uint8"
)


def settings(**changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    backend = keras.backend.backend()
    return FineTuningSettings("", "", None, LABELS, CONFIG, recipe, seed=0, backend=backend)


def values(model):
    return {path: np.array(numpy(weight.value)) for path, weight in by_path(model).items()}


def trained(chosen, folder, steps=2):
    """Return a model after two steps, its initial weights, and the weights read from its run folder."""
    model, _ = fine_tuning.build(chosen, steps_per_epoch=2)
    before = values(model)
    model.fit(VIDEOS, np.eye(2, dtype="float32"), batch_size=2, epochs=steps, verbose=0)
    made = Run(folder)
    made.save(chosen)
    checkpoint.save(made.checkpoints, steps, model)
    return model, before, load(folder)


@pytest.mark.clause("RANDOM-1")
def test_seeds_of_more_than_32_bits_draw_weights_of_their_own():
    drawn = [
        values(fine_tuning.classifier(dataclasses.replace(settings(), seed=seed)))["head/kernel"]
        for seed in (5, 5, 2**32 + 5, 2**64 - 1)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert len({kernel.tobytes() for kernel in drawn}) == 3


@pytest.mark.clause("FT-8", "FT-9")
@pytest.mark.parametrize(
    "changes", [{"freeze_encoder": True}, {"lora_rank": 2}], ids=["freeze_encoder", "lora_rank"]
)
def test_what_is_frozen_stays_and_lora_is_added_to_it(changes, tmp_path):
    model, before, loaded = trained(settings(**changes), tmp_path)
    after = values(model)
    changed = {path for path in after if (after[path] != before[path]).any()}
    kernels = [
        f"encoder/block_0/{name}"
        for name in ("attention/qkv", "attention/projection", "mlp/hidden", "mlp/output")
    ]
    lora = {f"{path}/lora_kernel_{part}" for path in kernels for part in "ab"}
    lora = lora if "lora_rank" in changes else set()
    assert changed == lora | {"head/kernel", "head/bias", "fc_norm/gamma", "fc_norm/beta"}
    assert {name.rsplit("/", 1)[-1] for name in after} >= {"q_bias"} and not lora - after.keys()
    for path in kernels if lora else ():
        added = after[f"{path}/lora_kernel_a"] @ after[f"{path}/lora_kernel_b"]
        assert before[f"{path}/lora_kernel_b"].max() == 0 and added.any()
        assert_close(values(loaded)[f"{path}/kernel"], after[f"{path}/kernel"] + added, "float32")
    assert not any("lora" in path for path in values(loaded))
    assert_close(numpy(loaded(VIDEOS)), numpy(model(VIDEOS)), "same_model")


@pytest.mark.clause("OPT-6")
def test_validation_and_users_get_the_averages_and_training_keeps_its_weights(tmp_path):
    model, _, loaded = trained(settings(average_decay=0.5), tmp_path)
    before = values(model)
    averages = {
        path: np.array(numpy(average.value))
        for path, average in zip(before, model.optimizer.averages, strict=True)
    }
    assert (averages["head/kernel"] != before["head/kernel"]).any()
    target = np.eye(2, dtype="float32")
    found = model.evaluate(
        VIDEOS, target, batch_size=2, verbose=0, return_dict=True, callbacks=[AveragedValidation()]
    )
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)
    for path, value in values(loaded).items():
        np.testing.assert_array_equal(value, averages[path], err_msg=path)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    assert_close(found["loss"], numpy(loss(target, loaded(VIDEOS))), "loss")
    rows = []
    progress = SimpleNamespace(
        devices=SimpleNamespace(mean=dict), record=rows.append, step=3, steps_per_epoch=3
    )
    _record_validation(model, (VIDEOS, target), 2, progress)  # called without `fit`
    assert rows[0]["validation_loss"] == found["loss"]
    # The two also differ enough that neither could pass for the other.
    assert found["loss"] != pytest.approx(float(numpy(loss(target, model(VIDEOS)))), rel=1e-3)


@pytest.mark.clause("OPT-6")
def test_before_the_first_update_a_run_with_averages_has_its_first_weights(tmp_path):
    """Check the weights after one batch of the three that are accumulated for an update."""
    model, before, loaded = trained(settings(average_decay=0.5, accumulate=3), tmp_path, steps=1)
    assert int(model.optimizer.iterations + 0) == 0
    assert not any(numpy(average.value).any() for average in model.optimizer.averages)
    validation = AveragedValidation()
    validation.set_model(model)
    validation.on_test_begin()  # would swap in the averages
    for used in (loaded, model):
        for path, value in values(used).items():
            np.testing.assert_array_equal(value, before[path], err_msg=path)
    checkpoint.save(Run(tmp_path).checkpoints, 3, model)  # after an update, its averages are used
    assert not values(load(tmp_path))["head/kernel"].any()


def progress_of(folder, start=0, patience=2, steps_per_epoch=15):
    """Return the progress of a run with some validated steps, and a function that records a validation."""
    made = Run(folder)
    made.folder.mkdir(exist_ok=True)
    made.rewind(start if start else -1)
    progress = Progress(
        made,
        SimpleNamespace(update=lambda *_: None),
        start=start,
        steps_per_epoch=steps_per_epoch,
        clips_per_step=1,
        schedule=None,
        patience=patience,
    )
    progress.set_model(SimpleNamespace(variables=[], trainable_variables=[]))

    def validated(step, accuracy):
        progress.step = step
        progress.record(
            {"step": step, "validation_loss": 1.0, "validation_accuracy": accuracy, "loss": 2.0}
        )

    return progress, validated


def test_a_row_has_the_rate_of_its_last_update_and_the_clips_of_its_interval(tmp_path):
    progress, _ = progress_of(tmp_path, steps_per_epoch=4)
    rows = []
    progress.schedule, progress.record = (lambda step: step / 8), rows.append
    progress.began_step, progress.step, progress.began, progress.ended = 4, 7, 10.0, 16.0
    progress.on_epoch_end(1, {"loss": 2.0})
    (row,) = rows
    assert (row["step"], row["epoch"], row["learning_rate"]) == (7, 7 / 4, 6 / 8)
    assert (row["clips_per_second"], row["validation_loss"]) == (3 / 6, None)


def best_steps(folder):
    return [checkpoint_files.step_of(path) for path in sorted((folder / "best").iterdir())]


@pytest.mark.clause("FT-10")
def test_patience_ends_at_a_validation(tmp_path):
    progress, validated = progress_of(tmp_path)
    validated(20, 0.5)
    validated(40, 0.4)
    for step in (50, 59):
        progress.step = step
        assert not progress.exhausted
    assert not progress_of(tmp_path, start=50)[0].exhausted
    validated(60, 0.3)
    assert progress.exhausted and progress.best.step == 20
    assert progress_of(tmp_path, start=60)[0].exhausted


def test_of_equal_validations_the_first_is_the_best(tmp_path):
    progress, validated = progress_of(tmp_path)
    for step in (20, 40):
        validated(step, 0.5)
    assert progress.best.step == 20


def test_the_note_of_a_stop_is_shown_once(tmp_path):
    progress, _ = progress_of(tmp_path)
    progress.display.note = Mock()
    progress.stop_requested, progress._wait_for_batch = True, lambda: None
    for batch in range(3):
        progress.on_train_batch_begin(batch)
    progress.display.note.assert_called_once_with("Stopping after this step ...")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_another_process_stops_this_one_too(number, tmp_path):
    progress, _ = progress_of(tmp_path)
    terminated = number == signal.SIGTERM
    progress.devices = SimpleNamespace(
        first=False, mean=dict, any=lambda *flags: (True, terminated, False)
    )
    progress.schedule, progress.record = (lambda step: 0.1), lambda row: None
    progress.on_epoch_begin(0)
    progress.step += 1
    progress.on_epoch_end(0, {"loss": 1.0})
    assert progress.stopped_by == number and progress.model.stop_training


def test_best_weights_are_those_of_this_run_up_to_its_checkpoint(tmp_path):
    made = Run(tmp_path)
    model = SimpleNamespace(variables=[])
    checkpoint.save(made.best, 90, model)
    made.save(settings(patience=2))
    assert not made.best.exists()
    checkpoint.save(made.best, 90, model)
    progress, validated = progress_of(tmp_path)  # another run started here
    assert best_steps(tmp_path) == []
    for step, accuracy in ((20, 0.5), (40, 0.6)):
        validated(step, accuracy)
        assert best_steps(tmp_path) == [step]
    progress.save()
    for step, accuracy in ((60, 0.4), (80, 0.7), (100, 0.8)):
        validated(step, accuracy)
    assert best_steps(tmp_path) == [40, 100]  # 40 to resume, 100 as the model to use
    progress, validated = progress_of(tmp_path, start=40)
    assert best_steps(tmp_path) == [40] and progress.best.step == 40
    validated(60, 0.3)
    assert best_steps(tmp_path) == [40]
    validated(80, 0.7)
    progress.save()
    assert best_steps(tmp_path) == [80]
    with pytest.MonkeyPatch.context() as patch:  # the disk is full for a while
        patch.setattr(checkpoint, "save_file", Mock(side_effect=OSError("No space left")))
        validated(100, 0.9)
    progress.save()
    assert best_steps(tmp_path) == [80] and progress.best.step == 80
    progress_of(tmp_path, start=100, patience=None)
    assert best_steps(tmp_path) == []


def test_a_report_has_the_figures_of_the_weights_that_are_used(tmp_path):
    _, validated = progress_of(tmp_path)
    for step, accuracy in ((20, 0.5), (40, 0.9), (60, 0.4)):
        validated(step, accuracy)
    stage = SimpleNamespace(command="finetune", start=None, data=("a",))
    checked = SimpleNamespace(stage=stage, files=[], labels=LABELS, merged=None)
    for best, accuracy in ((40, 0.9), (None, 0.4)):
        outcome = Outcome(60, 90, best, best is not None, {})
        plan_folder.finish_training(tmp_path, checked, outcome)
        assert plan_folder.result(tmp_path)["validation_accuracy"] == accuracy


@pytest.mark.clause("WEIGHT-7")
def test_a_head_is_mapped_by_the_names_of_the_classes(tmp_path):
    old = VideoClassifier(CONFIG, 3, labels=("a", "B b", "c"), init_scale=1.0)
    old.save_to_preset(tmp_path)
    chosen = dataclasses.replace(
        settings(), start=str(tmp_path), head="mapped", labels=("c", "b_b")
    )
    model, _ = fine_tuning.build(chosen, steps_per_epoch=2)
    assert model.labels == ("c", "b_b")
    np.testing.assert_array_equal(numpy(model.head.kernel), numpy(old.head.kernel)[:, [2, 1]])
    np.testing.assert_array_equal(values(model)["fc_norm/gamma"], values(old)["fc_norm/gamma"])


@pytest.mark.clause("FT-1", "FT-2")
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_run_says_which_tokens_its_mapped_head_reads(pooling, clips, tmp_path):
    """Check that the start's pooling, not the recipe's, is used for training, loading and resuming."""
    page = tmp_path / "page.toml"
    other = "mean" if pooling == "first" else "first"
    page.write_text(
        f"[values]\nepochs = 1\nwarmup_epochs = 0\nbatch_size = 2\nbase_learning_rate = 1.0\n"
        f'drop_path = 0.0\npooling = "{other}"\n'
    )
    start = VideoClassifier(CONFIG, 2, labels=("moving", "still"), pooling=pooling, init_scale=1.0)
    start.save_to_preset(tmp_path / "start")
    given = {
        "start": str(tmp_path / "start"),
        "head": "mapped",
        "recipe": str(page),
        "backend": keras.backend.backend(),
    }
    made = Run(tmp_path / "run")
    with pytest.raises(ValueError, match=f"keeps its pooling. Received: pooling='{other}'"):
        prepare_fine_tuning(made, clips, changes=[f"pooling={other}"], **given)
    assert not made.exists()
    with pytest.warns(UserWarning, match=f"pooling is '{pooling}', not the recipe's '{other}'"):
        chosen, _ = prepare_fine_tuning(made, clips, **given)
    assert made.settings().recipe.pooling == chosen.recipe.pooling == pooling
    model, _ = fine_tuning.build(chosen, steps_per_epoch=2)
    assert_close(numpy(model(VIDEOS)), numpy(start(VIDEOS)), "same_model")
    path = checkpoint.save(made.checkpoints, 1, model)
    resumed, _ = fine_tuning.build(chosen, steps_per_epoch=2, restored=True)
    assert checkpoint.restore(path, resumed) == 1
    # Earlier versions stored the recipe's pooling.
    made.save(dataclasses.replace(chosen, recipe=dataclasses.replace(chosen.recipe, pooling=other)))
    for again in (resumed, load(made.folder)):
        assert_close(numpy(again(VIDEOS)), numpy(model(VIDEOS)), "same_model")


@pytest.mark.parametrize("head", ["new", "mapped"])
def test_a_start_that_was_saved_frozen_is_trained(head, tmp_path):
    start = VideoClassifier(CONFIG, 2, labels=LABELS)
    start.trainable = False
    start.save_to_preset(tmp_path)
    model = fine_tuning.classifier(dataclasses.replace(settings(), start=str(tmp_path), head=head))
    assert len(model.trainable_variables) == len(by_path(model))


@pytest.mark.parametrize("labels", [None, LABELS], ids=["unlabelled", "of the same labels"])
def test_a_new_head_is_new(labels, tmp_path):
    start = VideoClassifier(CONFIG, 2, labels=labels, init_scale=50.0)
    start.save_to_preset(tmp_path)
    chosen = dataclasses.replace(settings(), start=str(tmp_path), head="new")
    model = fine_tuning.classifier(chosen)
    assert model.labels == LABELS
    assert np.abs(numpy(model.head.kernel)).max() < 0.01 < np.abs(numpy(start.head.kernel)).max()
    np.testing.assert_array_equal(
        values(model)["encoder/block_0/mlp/hidden/kernel"],
        values(start)["encoder/block_0/mlp/hidden/kernel"],
    )


@pytest.mark.clause("DISTILL-1", "DISTILL-2")
@pytest.mark.parametrize("match", ["classes", "features"])
def test_targets_and_losses_of_distillation_equal_the_oracles(match, tmp_path):
    teacher = VideoClassifier(CONFIG, 3, init_scale=20.0)
    teacher.fc_norm.gamma.assign(np.linspace(1.0, 5.0, CONFIG.dim))
    teacher.fc_norm.beta.assign(np.linspace(2.0, 3.0, CONFIG.dim))
    teacher.save_to_preset(tmp_path)
    temperature = 2.0 if match == "classes" else 1.0
    recipe = DistillationRecipe(
        epochs=1,
        warmup_epochs=0,
        batch_size=2,
        base_learning_rate=1.0,
        match=match,
        temperature=temperature,
    )
    targets = distillation.answers(
        distillation.load_teacher(tmp_path, CONFIG, recipe), VIDEOS, recipe
    )
    student = np.random.default_rng(1).normal(0, 3, targets.shape).astype("float32")
    if match == "classes":
        logits = numpy(teacher(VIDEOS))
        expected = distillation_reference.softened(logits, temperature)
        loss = distillation_reference.class_loss(logits, student, temperature)
        found = distillation.SoftenedCrossentropy(temperature)(targets, student)
    else:
        encoder = VideoEncoder.from_preset(tmp_path, pooling="mean")
        features = numpy(encoder(VIDEOS))
        expected = distillation_reference.whitened(features)
        loss = distillation_reference.feature_loss(features, student)
        found = keras.losses.MeanSquaredError()(targets, student)
    assert np.ptp(expected, axis=1).min() > 0.1
    assert_close(targets, expected, "distillation.target")
    assert_close(float(found), loss, "loss")


@pytest.mark.clause("DISTILL-1")
def test_a_student_comes_to_say_what_its_teacher_says(clips, tmp_path):
    """Check a run from files to a preset, and a killed run that resumes by the usual loop."""
    teacher, folder = tmp_path / "teacher", tmp_path / "student"
    VideoMAE(CONFIG).save_to_preset(tmp_path / "pretrained")
    VideoClassifier(CONFIG, 2, labels=LABELS, init_scale=50.0).save_to_preset(teacher)
    code, text = run(
        "distill",
        clips,
        "--teacher",
        teacher,
        "--start",
        tmp_path / "pretrained",
        "--out",
        folder,
        *SETTINGS,
        "--set",
        "epochs=6",
    )
    assert code == 0, text
    losses = [float(row["validation_loss"]) for row in curve(folder) if row["validation_loss"]]
    assert losses[-1] < losses[0]
    student = load(folder)
    assert type(student) is VideoClassifier and student.labels == LABELS
    code, text = run("evaluate", folder, clips, "--crops", 1, "--clips", 1)
    assert code == 0 and "top-1" in text, text
