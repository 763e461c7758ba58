"""Tests of messages before training resumes under another backend."""

import dataclasses

import pytest

from vmae_keras import VideoMAEConfig
from vmae_keras.cli.shared import training_runs
from vmae_keras.data.files import VideoFile
from vmae_keras.distribution import Devices
from vmae_keras.recipes import fine_tuning, pretraining
from vmae_keras.runs.model_files import read_stored
from vmae_keras.runs.run import Run, RunError
from vmae_keras.runs.settings import FineTuningSettings, PretrainingSettings
from vmae_keras.weights.tensor_files import WeightsError

CONFIG = VideoMAEConfig.variant("demo")
PRETRAINING = PretrainingSettings(
    "clips", "", CONFIG, pretraining.RECIPES["demo"], seed=0, backend="torch"
)
DROPPING = dataclasses.replace(PRETRAINING, config=CONFIG.replace(drop_path=0.1))
FINE_TUNING = FineTuningSettings(
    "clips",
    "",
    None,
    ("a", "b"),
    CONFIG,
    fine_tuning.RECIPES["demo"],
    seed=0,
    backend="torch",
)


def options(**given):
    """Return the options of a command that resumes, without others."""
    nothing = dict.fromkeys(
        ("data", "changes", "backend", "devices", "parallel", "batch_per_device", "seed")
    )
    return training_runs.TrainingOptions(
        **nothing | {"out": None, "resume": True, "workers": 0} | given
    )


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    run.save(PRETRAINING)
    return run


@pytest.mark.clause("RESUME-2")
@pytest.mark.parametrize(
    ("settings", "head_dropout", "drawn"),
    [
        (PRETRAINING, None, False),
        (DROPPING, None, True),
        (FINE_TUNING, 0.0, False),
        (FINE_TUNING, 0.1, True),
    ],
    ids=["nothing", "drop-path", "no dropout", "dropout"],
)
def test_a_change_of_backend_is_told_with_what_it_draws_otherwise(settings, head_dropout, drawn):
    if head_dropout is not None:
        chosen = dataclasses.replace(settings.recipe, head_dropout=head_dropout)
        settings = dataclasses.replace(settings, recipe=chosen)
    note = training_runs._change_of_backend("jax", settings)
    assert note.startswith("Note: this run was trained with jax so far, and resumes with torch.")
    assert ("drop-path and dropout are drawn differently" in note) == drawn


@pytest.mark.clause("RESUME-2")
def test_a_run_whose_backend_is_not_installed_asks_for_another(run, monkeypatch):
    monkeypatch.setattr(training_runs, "installed", lambda: ["jax"])
    words = "torch, which is not installed; installed: jax. Install it, or name another one with"
    with pytest.raises(RunError, match=words):
        training_runs.resumed_settings(run, PretrainingSettings, options(), {})


@pytest.mark.clause("RESUME-3")
@pytest.mark.parametrize(
    ("flag", "shared", "own"),
    [
        ("--set", {"changes": ["precision=float32"]}, {}),
        ("--seed", {"seed": 0}, {}),
        ("--batch-per-device", {"batch_per_device": 1}, {}),
        ("--recipe", {}, {"recipe": "demo"}),
    ],
)
def test_no_other_setting_of_a_run_can_change(flag, shared, own, run):
    with pytest.raises(RunError, match=f"with its own settings. Received: {flag}. Leave"):
        training_runs.resumed_settings(run, PretrainingSettings, options(**shared), own)


@pytest.mark.parametrize(
    ("kind", "command"),
    [(FineTuningSettings, "pretrain"), (PretrainingSettings, "finetune")],
)
def test_a_run_of_another_stage_names_the_command_that_resumes_it(kind, command, run):
    if kind is PretrainingSettings:
        run.update(FINE_TUNING)
    words = rf"holds another stage: .*Continue it with vmae {command} --out .* --resume\."
    with pytest.raises(RunError, match=words):
        training_runs.resumed_settings(run, kind, options(), {})


@pytest.mark.parametrize("settings", [PRETRAINING, FINE_TUNING])
def test_a_run_without_a_checkpoint_names_its_own_command(settings, run):
    run.update(settings)
    with pytest.raises(RunError, match=rf"Train it: vmae {settings.command} --out .* --resume$"):
        run.weights_file()
    with pytest.raises(WeightsError, match=rf"Train it: vmae {settings.command} --out"):
        read_stored(run.folder, {})


@pytest.mark.clause("RESUME-2")
def test_the_new_backend_is_kept_and_the_best_weights_are_not_lost(run):
    run.best.mkdir()
    moved = dataclasses.replace(PRETRAINING, backend="jax")
    run.update(moved)
    assert run.settings() == moved and run.best.exists()


def test_of_a_new_job_only_the_first_process_reads_the_settings(tmp_path, monkeypatch):
    """The others may be here before it has written them."""
    from vmae_keras.training.loop import Outcome

    monkeypatch.setattr(training_runs, "set_seed", lambda seed: None)
    outcome = Outcome(1, 1, None, False, {})
    found = training_runs.run_training(
        lambda session: outcome,
        Run(tmp_path, process=1),
        PRETRAINING,
        0,
        files=[VideoFile("a.mp4")],
        devices=Devices(2, process=1, processes=2),
    )
    assert found is outcome and list(tmp_path.iterdir()) == []
