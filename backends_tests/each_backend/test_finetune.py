"""Tests of the command from labelled files to a classifier: starts, kills, and the resulting run folder."""

import csv
import json
import shutil

import numpy as np
import pytest

from backends_tests.each_backend.test_pretrain import BROKEN, SHOWN, kill, run, weights
from backends_tests.support import numpy
from vmae_keras import VideoClassifier, VideoEncoder, VideoMAE, VideoMAEConfig, load
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.presets import by_path
from vmae_keras.runs.run import Run
from vmae_keras.training.fine_tuning import build

# Square, like the views of an evaluation.
CONFIG = VideoMAEConfig.variant("tiny", height=24, depth=1, mlp_dim=40)
SETTINGS = [
    *("--set", "batch_size=2", "--set", "repeats=2", "--set", "epochs=4", "--set", "mixup=0.8"),
    *("--set", "cutmix=1.0", "--set", "mixup_probability=1.0", "--set", "drop_path=0.2"),
    *("--set", "head_dropout=0.3", "--set", "auto_augment=rand-m7-n4-mstd0.5-inc1"),
    *("--set", "flip_probability=0.5", "--set", "erasing_probability=0.5"),
    *("--set", "base_learning_rate=1e-1", "--set", "warmup_epochs=1"),
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Write one folder for each of two classes, with 13 readable clips in total."""
    folder = tmp_path_factory.mktemp("clips")
    for name, count, seed in (("still", 7, 0), ("moving", 6, 1)):
        write_moving_shapes(folder / name, count, frames=8, size=(32, 48), seed=seed)
    (folder / "still" / BROKEN).parent.mkdir()
    (folder / "still" / BROKEN).write_bytes(b"not a video " * 99)
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    VideoMAE(CONFIG).save_to_preset(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(clips, pretrained, tmp_path_factory):
    """Run 4 epochs of 6 steps without interruption; 2 of the 14 files are held out."""
    folder = tmp_path_factory.mktemp("run") / "unbroken"
    code, text = run("finetune", clips, "--start", pretrained, "--out", folder, *SETTINGS)
    assert code == 0, text
    return folder, text


def curve(folder):
    with open(folder / "log.csv", newline="") as file:
        return [
            {k: v for k, v in row.items() if k != "clips_per_second"}
            for row in csv.DictReader(file)
        ]


def test_a_run_is_a_preset_of_a_classifier_that_knows_its_classes(unbroken):
    folder, text = unbroken
    assert "Broken files: 1" in text and f"{SHOWN}: Invalid data" in text and "top-1" in text
    words = text.replace("\n", " ")
    assert "makes 24 updates" in words and "(--set epochs=34 makes 200)" in words
    rows = curve(folder)
    assert [row["step"] for row in rows] == ["0", "6", "12", "18", "24"]
    assert all(0 <= float(row["validation_accuracy"]) <= 1 for row in rows)
    model = load(folder)
    assert type(model) is VideoClassifier and model.labels == ("moving", "still")
    stored = weights(folder)
    for path, variable in by_path(model).items():
        np.testing.assert_array_equal(numpy(variable.value), stored[f"video_classifier/{path}"])
    assert VideoEncoder.from_preset(folder).config.depth == 1


def test_a_run_starts_from_the_pretrained_encoder(unbroken, pretrained):
    settings = Run(unbroken[0]).settings()
    model, _ = build(settings, steps_per_epoch=6)
    theirs = by_path(load(pretrained))
    for path, variable in by_path(model).items():
        if path.startswith(("tubelet_embedding/", "encoder/")):
            np.testing.assert_array_equal(numpy(variable.value), numpy(theirs[path].value))
    assert model.config.drop_path == 0.2 and model.head_dropout == 0.3
    assert settings.labels == ("moving", "still")


def test_a_killed_run_continues_with_the_losses_of_an_unbroken_one(
    unbroken, clips, pretrained, tmp_path
):
    """Check that data order, augmentation, mixing, dropout draws and optimizer state are all restored."""
    folder, start_from = tmp_path / "killed", tmp_path / "start"
    shutil.copytree(pretrained, start_from)
    kill(15, "finetune", clips, "--start", start_from, "--out", folder, *SETTINGS)
    assert (
        sorted((folder / "checkpoints").glob("*.safetensors"))[-1].name
        == "step-00000012.safetensors"
    )
    shutil.rmtree(start_from)  # no longer needed
    code, text = run("finetune", "--out", folder, "--resume")
    assert code == 0, text
    assert curve(folder) == curve(unbroken[0])
    mine, theirs = weights(folder), weights(unbroken[0])
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)


def test_a_stage_is_continued_by_its_own_command(unbroken):
    code, text = run("pretrain", "--out", unbroken[0], "--resume")
    assert code == 1 and "vmae finetune" in text.replace("\n", " ")


def test_a_run_is_evaluated_and_asked_about_a_clip(unbroken, clips):
    folder = unbroken[0]
    code, text = run("evaluate", folder, clips, "--crops", 1)
    assert code == 0, text
    assert "Broken files: 1" in text and "13 videos, 2 x 1 views each: top-1" in text
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    assert metrics["videos"] == 13 and list(metrics["skipped"]) == [str(clips / "still" / BROKEN)]
    assert (folder / "evaluation" / "confusion.png").stat().st_size > 1000
    code, text = run("predict", folder, sorted((clips / "moving").iterdir())[0])
    assert code == 0, text
    shares = [float(line.split("%")[0].split()[-1]) for line in text.splitlines() if "%" in line]
    # two figures rounded to .1 %
    assert len(shares) == 2 and sum(shares) == pytest.approx(100, abs=0.2)
    assert shares == sorted(shares, reverse=True)
    code, text = run("predict", folder, clips / "still" / BROKEN)
    assert code == 1 and "cannot be read" in text and "Traceback" not in text
