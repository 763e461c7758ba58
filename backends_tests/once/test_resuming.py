"""Resume a run under another backend: what the user is told before training goes on."""

import dataclasses

import pytest

from vmae_keras import VideoMAEConfig
from vmae_keras.cli.shared import training_runs
from vmae_keras.recipes import fine_tuning, recipe
from vmae_keras.runs.run import FineTuningSettings, Run, RunError, Settings

CONFIG = VideoMAEConfig.variant("demo")
PRETRAINING = Settings("clips", "", CONFIG, recipe.RECIPES["demo"], seed=0, backend="torch")
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
    assert ("drop-path and dropout are drawn otherwise" in note) == drawn


@pytest.mark.clause("RESUME-2")
def test_a_run_whose_backend_is_not_installed_asks_for_another(run, monkeypatch):
    monkeypatch.setattr(training_runs, "installed", lambda: ["jax"])
    words = "torch, which is not installed; installed: jax. Install it, or name another one with"
    with pytest.raises(RunError, match=words):
        training_runs.resumed(run, Settings, None, None, {})


@pytest.mark.clause("RESUME-3")
@pytest.mark.parametrize("option", ["--set", "--seed"])
def test_no_other_setting_of_a_run_can_change(option, run):
    with pytest.raises(RunError, match=f"with its own settings. Received: {option}."):
        training_runs.resumed(
            run, Settings, None, None, {option: ["precision=float32"], "--recipe": None}
        )


@pytest.mark.clause("RESUME-2")
def test_the_new_backend_is_kept_and_the_best_weights_are_not_lost(run):
    run.best.mkdir()
    moved = dataclasses.replace(PRETRAINING, backend="jax")
    run.update(moved)
    assert run.settings() == moved and run.best.exists()
