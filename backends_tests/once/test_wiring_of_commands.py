"""Tests that every option of evaluate, features, probe and a plan's stage reaches the called library code.

An option that is missing from the tables below fails its test. Add its destination there.
"""

import dataclasses
import inspect
from types import SimpleNamespace

import keras
import pytest
from typer.testing import CliRunner

import vmae_keras.backend
from backends_tests.stages import LABELS, Seen
from vmae_keras import VideoClassifier
from vmae_keras.cli import progressive
from vmae_keras.cli.app import app
from vmae_keras.cli.evaluate import main as evaluate_command
from vmae_keras.cli.features import main as features_command
from vmae_keras.cli.probe import main as probe_command
from vmae_keras.cli.shared import terminal
from vmae_keras.data import labelled
from vmae_keras.evaluation import classification, features
from vmae_keras.evaluation.frozen_encoder import FrozenEncoder
from vmae_keras.evaluation.probes import encoded, probing
from vmae_keras.training import fine_tuning, new_run
from vmae_keras.training.plan import Stage

MODEL, BACKEND = "hf://a/model", keras.backend.backend()
# Option -> (its text, {seam: expected value}); {} stands for the test's folder.
FEATURES = {
    "model": (MODEL, {"from_preset.preset": MODEL}),
    "data": ("{}/videos", {"files": ["a.mp4", "b.mp4", "c.mp4"]}),
    "out": ("{}/out", {"extract_features.folder": "{}/out"}),
    "stride": (3, {"extract_features.stride": 3}),
    "sampling_stride": (2, {"extract_features.sampling_stride": 2}),
    "pooling": ("none", {"from_preset.pooling": None}),
    "format": ("safetensors", {"extract_features.format": "safetensors"}),
    "crop": (False, {"extract_features.crop": False}),
    "batch_windows": (5, {"extract_features.batch_windows": 5}),
    "backend": (BACKEND, {"select.name": BACKEND}),
}
EVALUATION = {
    "model": (MODEL, {"from_preset.preset": MODEL}),
    "data": ("{}/videos", {"files": ["a.mp4", "b.mp4", "c.mp4"]}),
    "out": ("{}/out", {"evaluate.folder": "{}/out"}),
    "clips": (3, {"evaluate.clips": 3}),
    "crops": (2, {"evaluate.crops": 2}),
    "backend": (BACKEND, {"select.name": BACKEND}),
    "workers": (4, {"evaluate.workers": 4}),
}
PROBE = {
    "model": (MODEL, {"from_preset.preset": MODEL}),
    "train": ("{}/videos", {"files": ["a.mp4", "b.mp4", "c.mp4"]}),
    "test": (
        "{}/others",
        {"asked": ["a.mp4", "b.mp4", "c.mp4"], "warn_of_one_class.labels": LABELS},
    ),
    "kind": ("linear", {"from_preset.pooling": "mean", "probe_features.kind": "linear"}),
    "out": ("{}/out", {"Encoding.folder": "{}/out/pooled"}),
    "random": (True, {"from_preset.load_weights": False}),
    "epochs": (9, {"probe_features.epochs": 9}),
    "learning_rates": ("0.1,0.2", {"probe_features.rates": [0.1, 0.2]}),
    "clips": (2, {"Encoding.clips": 2}),
    "crops": (3, {"Encoding.crops": 3}),
    "sampling": ("uniform", {"Encoding.sampling": "uniform"}),
    "stride": (6, {"Encoding.stride": 6}),
    "seed": (8, {"probe_features.seed": 8, "set_seed.seed": 8}),
    "backend": (BACKEND, {"select.name": BACKEND}),
    "workers": (4, {"encode.workers": 4}),
}
COMMANDS = {
    "features": (features_command, FEATURES),
    "evaluate": (evaluate_command, EVALUATION),
    "probe": (probe_command, PROBE),
}


def refused(_):
    """End the command when everything is recorded."""
    raise ValueError("enough")


def noted(patch, command, arguments):
    """Return the values that the library receives from a command line."""
    seen = Seen()
    encoder = SimpleNamespace(labels=LABELS, config=None)
    seen.spy(patch, FrozenEncoder, "from_preset", gives=lambda _: encoder)
    seen.spy(patch, VideoClassifier, "from_preset", gives=lambda _: encoder)
    seen.spy(patch, vmae_keras.backend, "set_seed", gives=lambda _: None)
    seen.spy(patch, terminal, "select")
    seen.spy(patch, features, "extract_features", gives=refused)
    seen.spy(patch, classification, "evaluate", gives=refused)
    seen.spy(patch, probing, "probe_features", gives=refused)
    seen.spy(patch, labelled, "warn_of_one_class")
    encoding = SimpleNamespace(
        bytes=1, folder="", run=lambda skipped, workers, progress: seen.note("encode", locals())
    )
    seen.spy(patch, encoded, "Encoding", gives=lambda _: encoding)
    result = CliRunner().invoke(app, [command, *arguments])
    assert result.exit_code == 1 and "enough" in result.output, result.output
    sets = seen.get("Encoding.sets") or {
        "train": seen.get("extract_features.videos", seen.get("evaluate.videos"))
    }
    for name, files in zip(("files", "asked"), sets.values(), strict=False):
        seen[name] = [file.path.rsplit("/", 1)[-1] for file in files]
    return seen


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_arrives(command, tmp_path, monkeypatch):
    function, table = COMMANDS[command]
    parameters = inspect.signature(function).parameters
    assert table.keys() == parameters.keys(), (
        "say in this file's tables where an option must arrive"
    )
    for folder in ("videos", "others"):
        for label in LABELS:
            (tmp_path / folder / label).mkdir(parents=True)
            (tmp_path / folder / label / f"{label}.mp4").touch()
    words, options = [], []
    for name, (value, _) in table.items():
        option = f"--{name.replace('_', '-')}"
        if parameters[name].default in (inspect.Parameter.empty, None) and name in (
            "model",
            "data",
            "train",
            "test",
        ):
            words.append(value.format(tmp_path))
        elif isinstance(value, bool):
            options.append(option if value else f"--no-{option[2:]}")
        else:
            options += [option, str(value).format(tmp_path)]
    seen = noted(monkeypatch, command, [*words, *options])
    for _, places in table.values():
        for place, value in places.items():
            found = seen.get(place, "nothing")
            found = str(found) if place.endswith("folder") else found
            expected = value.format(tmp_path) if isinstance(value, str) else value
            assert found == expected, place


STAGE = {
    "name": (
        "tuned",
        {"prepare_fine_tuning.run.folder": "{}/tuned", "run_training.run.folder": "{}/tuned"},
    ),
    "command": ("finetune", {"run_training.train": fine_tuning.finetune}),
    "data": (
        ("a",),
        {"prepare_fine_tuning.data": "{}/videos.csv"},
    ),  # the list that `progressive.begin` writes
    "start": ("first", {"prepare_fine_tuning.start": "{}/first"}),
    "head": ("mapped", {"prepare_fine_tuning.head": "mapped"}),
    "variant": ("v1-s", {"prepare_fine_tuning.variant": "v1-s"}),
    "recipe": ("v1-k400-s", {"prepare_fine_tuning.recipe": "v1-k400-s"}),
    "changes": (("epochs=3",), {"prepare_fine_tuning.changes": ("epochs=3",)}),
}
OF_PLAN = {
    "prepare_fine_tuning.seed": 8,
    "prepare_fine_tuning.backend": BACKEND,
    "run_training.workers": 4,
    "run_training.settings": "settings",
    "run_training.files": "files",
}


def test_every_field_of_a_plans_stage_arrives(tmp_path, monkeypatch):
    assert STAGE.keys() == {field.name for field in dataclasses.fields(Stage)}
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "stage.json").touch()
    seen = Seen()
    seen.spy(monkeypatch, new_run, "prepare_fine_tuning", gives=lambda _: ("settings", "files"))
    seen.spy(monkeypatch, progressive, "run_training", gives=lambda _: None)
    stage = Stage(**{name: value for name, (value, _) in STAGE.items()})
    progressive._train(stage, tmp_path, f"{tmp_path}/videos.csv", 8, BACKEND, 4, "again")
    for made in ("prepare_fine_tuning", "run_training"):
        seen.note(f"{made}.run", {"folder": str(seen[f"{made}.run"].folder)})
    wanted = OF_PLAN | {key: value for _, places in STAGE.values() for key, value in places.items()}
    for place, value in wanted.items():
        assert seen[place] == (value.format(tmp_path) if isinstance(value, str) else value), place
