"""Tests of the command from files to a checkpoint and a picture: broken files, kills, interrupts, NaN."""

import csv
import errno
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file
from typer.testing import CliRunner

from backends_tests.profiles import NIGHTLY
from backends_tests.support import BACKEND, ROOT, in_suite_on_torch
from vmae_keras import VideoMAE, VideoMAEConfig
from vmae_keras.cli.app import app
from vmae_keras.data import batches
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.data.workers import WorkerDied
from vmae_keras.distribution import Devices
from vmae_keras.process import interrupts
from vmae_keras.runs import checkpoint_files
from vmae_keras.runs.lock import LOCK
from vmae_keras.runs.run import Run
from vmae_keras.training import callbacks, checkpoint
from vmae_keras.training.callbacks import NonFiniteLoss, Progress, stop_on_interrupt
from vmae_keras.training.loop import _fits
from vmae_keras.training.tensorboard import TensorBoard

# Saves at every logging interval instead of once a minute, so that short runs have checkpoints. After a
# step, a signal goes to this process, to its whole group (as Ctrl-C in a terminal), or to the workers.
PROGRAM = """
import multiprocessing, os
from vmae_keras.training import callbacks
callbacks.SAVE_SECONDS = 0.0
callbacks.SAVE_SHARE = 1e9
whom, step, number = os.environ.get("SIGNALLED", "nobody 0 0").split()
ended = callbacks.Progress.on_train_batch_end
def end(self, batch, logs=None):
    ended(self, batch, logs)
    if self.step == int(step):
        for each in multiprocessing.active_children() if whom == "workers" else ():
            os.kill(each.pid, int(number))
        if whom == "trainer":
            os.kill(os.getpid(), int(number))
        if whom == "group":
            os.killpg(os.getpid(), int(number))
callbacks.Progress.on_train_batch_end = end
from vmae_keras.__main__ import main
main()
"""
# A name with Rich markup, an escape sequence, and a byte that is not UTF-8.
BROKEN = "broken[/bold]\x1b[31m caf\udce9.mp4"
SHOWN = r"broken[/bold]\x1b[31m caf\xe9.mp4"
SMALL = [
    *("--set", "height=16", "--set", "width=24", "--set", "tubelet=(2,4,4)", "--set", "frames=4"),
    *("--set", "dim=32", "--set", "depth=2", "--set", "heads=2", "--set", "mlp_dim=64"),
    *("--set", "decoder_dim=16", "--set", "decoder_depth=1", "--set", "decoder_heads=2"),
    *("--set", "drop_path=0.2", "--set", "batch_size=2", "--set", "epochs=4", "--set", "repeats=2"),
    # No multiple of it divides the steps of checkpoints.
    *("--set", "accumulate=3"),
]
# For runs that end before that matters: half as long to trace.
SMALLER = [*SMALL, "--set", "depth=1", "--set", "accumulate=1"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_moving_shapes(folder, 26, frames=8, size=(32, 48))
    (folder / BROKEN).parent.mkdir()
    (folder / BROKEN).write_bytes(b"not a video " * 99)
    return folder


# PyTorch starts fastest.
once = pytest.mark.skipif(BACKEND != "torch", reason="does not depend on the backend")


def start(*arguments, **environment):
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(ROOT), **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        process_group=0,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    text, _ = process.communicate(timeout=240)
    return process.returncode, text


def run(*arguments):
    """Run a whole command in this process, which has imported Keras; return (exit code, output)."""
    if "--workers" in arguments:  # workers import the main module, which here is pytest's
        return start(*arguments)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ignores warnings outside the command's own output
        patch.setattr(callbacks, "SAVE_SECONDS", 0.0)
        patch.setattr(callbacks, "SAVE_SHARE", 1e9)
        patch.setenv("KERAS_BACKEND", BACKEND)
        result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


class Killed(BaseException):
    """Exception that ends a command at once, as SIGKILL does: nothing is saved on exit."""


def run_until(step, *arguments):
    """Run a command in this process and kill it after a step."""
    begun = itertools.count()  # JAX counts the steps that have ended in another thread

    def begin(self, batch, logs=None):
        if next(begun) == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Progress, "on_train_batch_begin", begin)
        run(*arguments)


def kill(step, *arguments):
    """Run a command and kill it after a step, in a process of its own on PyTorch, which starts soonest."""
    if BACKEND != "torch" and not NIGHTLY:
        run_until(step, *arguments)
        return
    signalled = f"trainer {step} {signal.SIGKILL.value}"
    code, text = start(*arguments, "--workers", 1, SIGNALLED=signalled)
    assert code == -signal.SIGKILL, text
    folder = arguments[arguments.index("--out") + 1]
    assert (folder / LOCK).exists()  # the lock file does not block resuming


def curve(folder):
    with open(folder / "log.csv", newline="") as file:
        return [(row["step"], row["loss"], row["validation_loss"]) for row in csv.DictReader(file)]


def weights(folder):
    return load_file(sorted((folder / "checkpoints").glob("*.safetensors"))[-1])


@pytest.fixture(scope="module")
def unbroken(clips, tmp_path_factory):
    """Run 4 epochs of 13 steps without interruption, with 2 of the 27 files held out."""
    folder = tmp_path_factory.mktemp("run") / "unbroken"
    code, text = run("pretrain", clips, "--out", folder, *SMALL)
    assert code == 0, text
    return folder, text


def test_a_run_names_the_broken_file_and_leaves_everything(unbroken):
    folder, text = unbroken
    assert "Broken files: 1" in text and f"{SHOWN}: Invalid data" in text
    assert f"vmae reconstruct {folder}" in text.replace("\n", "")
    settings = json.loads((folder / "run.json").read_text())
    assert settings["backend"] == BACKEND and settings["recipe"]["epochs"] == 4
    steps = [int(step) for step, _, _ in curve(folder)]
    assert steps == [0, 10, 20, 30, 40, 50, 52]
    assert (folder / "loss.png").stat().st_size > 1000
    (events,) = (folder / "tensorboard").iterdir()
    if BACKEND == "tensorflow":  # TensorFlow reads these files, checksums included
        from tensorflow.compat.v1.train import summary_iterator

        values = {
            (event.step, value.tag): value.simple_value
            for event in summary_iterator(str(events))
            for value in event.summary.value
        }
        for step, loss, _ in curve(folder)[1:]:
            assert values[int(step), "loss"] == pytest.approx(float(loss))
    assert int(weights(folder)["optimizer/adamw/iteration"]) == 52


def test_a_killed_run_continues_with_the_losses_of_an_unbroken_one(unbroken, clips, tmp_path):
    """Check that data order, crops, masks, drop-path draws and optimizer state are all restored."""
    folder = tmp_path / "killed"
    # Killed between two checkpoints, within an epoch of 13 steps.
    kill(23, "pretrain", clips, "--out", folder, *SMALL)
    unfinished = folder / "checkpoints/writing"
    unfinished.mkdir()
    code, text = run("pretrain", "--out", folder, "--resume")
    assert code == 0, text
    assert "Continuing after step 20" in text
    assert not unfinished.exists() and not (folder / LOCK).exists()
    assert curve(folder) == curve(unbroken[0])
    mine, theirs = weights(folder), weights(unbroken[0])
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)


@pytest.mark.parametrize(
    "fault", ["interrupt", pytest.param("killed worker", marks=in_suite_on_torch)]
)
def test_what_ends_a_run_is_said_and_its_steps_are_saved(fault, unbroken, clips, tmp_path):
    folder = tmp_path / "run"
    whom = {"interrupt": f"group 1 {signal.SIGINT.value}"}.get(
        fault, f"workers 1 {signal.SIGKILL.value}"
    )
    code, text = start("pretrain", clips, "--out", folder, *SMALL, "--workers", 1, SIGNALLED=whom)
    words = text.replace("\n", " ")
    assert f"Continue with: vmae pretrain --out {folder} --resume" in text
    for wrong in ("Traceback", "leaked", "Exception ignored", "ran out of data"):
        assert wrong not in text
    stopped = int(curve(folder)[-1][0])
    if fault == "interrupt":
        assert code == 130, text
        assert f"Stopped after step {stopped} of 52; all up to there is saved." in words
    else:
        assert code == 1 and text.count("Error: ") == 1, text
        assert "was killed by SIGKILL" in words and "Use fewer --workers (received: 1)" in words
        assert f"Training is saved up to step {stopped}." in words
    # Prefetched batches may be trained on, and Keras reports steps on JAX only after they have started.
    assert 1 <= stopped < 52
    assert int(weights(folder)["optimizer/adamw/iteration"]) == stopped
    code, text = run("pretrain", "--out", folder, "--resume")
    assert code == 0, text
    mine, theirs = weights(folder), weights(unbroken[0])
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)


def test_a_batch_that_cannot_be_made_ends_a_run_before_its_step(unbroken, clips, tmp_path):
    folder, make, begun = tmp_path / "run", batches.Batches.__getitem__, threading.Event()
    begin = Progress.on_train_batch_begin

    def begins(self, batch, logs=None):
        if self.step == 14:
            begun.set()
        begin(self, batch, logs)

    def made(self, index):
        if self.start_step + index == 14:
            if BACKEND == "tensorflow":  # TensorFlow otherwise detects it long before that step
                assert begun.wait(60)
            raise WorkerDied(1, -signal.SIGKILL)
        return make(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "on_train_batch_begin", begins)
        patch.setattr(batches.Batches, "__getitem__", made)
        code, text = run("pretrain", clips, "--out", folder, *SMALL)
    assert code == 1 and text.count("Error: ") == 1 and "Traceback" not in text, text
    stopped = int(curve(folder)[-1][0])
    assert stopped == int(weights(folder)["optimizer/adamw/iteration"]) and 10 <= stopped <= 14
    code, text = run("pretrain", "--out", folder, "--resume")
    assert code == 0, text
    mine, theirs = weights(folder), weights(unbroken[0])
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)


@once
def test_a_signal_while_saving_lets_the_file_be_written(unbroken, clips, tmp_path, monkeypatch):
    folder, write = tmp_path / "run", checkpoint._write

    def signalled(path, *rest):
        if path.name == "step-00000010.safetensors":
            signal.raise_signal(signal.SIGTERM)
        write(path, *rest)

    monkeypatch.setattr(checkpoint, "_write", signalled)
    code, text = run("pretrain", clips, "--out", folder, *SMALL)
    assert code == 143 and "Stopped after step 11 of 52" in text, text
    assert int(weights(folder)["optimizer/adamw/iteration"]) == 11


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "file",
    ["log.csv", *(pytest.param(each, marks=once) for each in ("tensorboard", "checkpoint"))],
)
def test_a_full_disk_ends_a_run_with_what_could_be_saved(file, clips, tmp_path, monkeypatch):
    folder, save = tmp_path / "run", checkpoint.save_file

    def save_file(tensors, path, metadata):
        if int(metadata["step"]) > 10:  # safetensors' own error, which leaves a temporary file
            path.with_name(".tmpABC").write_bytes(b"a part of it")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        save(tensors, path, metadata=metadata)

    owner = {"log.csv": (Run, "append"), "tensorboard": (TensorBoard, "add")}
    if file == "checkpoint":
        monkeypatch.setattr(checkpoint, "save_file", save_file)
    else:
        original = getattr(*owner[file])
        monkeypatch.setattr(
            *owner[file],
            lambda self, *rest: (full if len(curve(folder)) > 1 else original)(self, *rest),
        )
    code, text = run("pretrain", clips, "--out", folder, *SMALLER)
    assert code == 1 and text.count("Error: ") == 1 and "Traceback" not in text, text
    where = folder / "checkpoints/step-00000020.safetensors" if file == "checkpoint" else folder
    words = text.replace("\n", " ")
    assert f"Error: No space is left on the disk of {where}. Free some space there." in words
    lost = {"log.csv": "20.", "tensorboard": "10.", "checkpoint": "10; the last 10 steps are lost."}
    assert f"Training is saved up to step {lost[file]}" in words
    assert f"Continue with: vmae pretrain --out {folder} --resume" in text
    assert int(weights(folder)["optimizer/adamw/iteration"]) == int(lost[file][:2])
    assert {path.suffix for path in (folder / "checkpoints").iterdir()} == {".safetensors"}


@once
def test_on_a_full_disk_the_oldest_checkpoint_makes_room(tmp_path, monkeypatch):
    model, write = VideoMAE(VideoMAEConfig.variant("tiny")), checkpoint._write
    folder = tmp_path / "checkpoints"

    def write_two(path, *rest):
        (full if len(list(folder.glob("*.safetensors"))) > 1 else write)(path, *rest)

    monkeypatch.setattr(checkpoint, "_write", write_two)
    for step in (1, 2, 3):
        checkpoint.save(folder, step, model)
    assert sorted(checkpoint_files.step_of(path) for path in folder.iterdir()) == [2, 3]
    with pytest.raises(OSError, match="No space left"):  # one complete checkpoint always stays
        checkpoint.save(folder, 4, model, keep=None)
    assert sorted(checkpoint_files.step_of(path) for path in folder.iterdir()) == [2, 3]


@once
def test_only_a_full_disk_costs_an_older_checkpoint(tmp_path, monkeypatch):
    model = VideoMAE(VideoMAEConfig.variant("tiny"))
    for step in (1, 2):
        checkpoint.save(tmp_path, step, model)

    def denied(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(checkpoint, "_write", denied)
    with pytest.raises(PermissionError):
        checkpoint.save(tmp_path, 3, model)
    assert sorted(checkpoint_files.step_of(path) for path in tmp_path.iterdir()) == [1, 2]


def test_reconstruct_writes_a_picture_and_a_video(unbroken, clips, tmp_path):
    clip = sorted(clips.glob("shapes*.mp4"))[0]
    code, text = run("reconstruct", unbroken[0], clip, "--out", tmp_path / "rebuilt")
    assert code == 0, text
    assert (tmp_path / "rebuilt.png").stat().st_size > 5000
    assert (tmp_path / "rebuilt.mp4").stat().st_size > 1000
    code, text = run("reconstruct", unbroken[0], clips / "broken.mp4")
    assert code == 1 and "broken.mp4" in text and "Traceback" not in text


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(clips, tmp_path):
    folder = tmp_path / "exploding"
    # Training is fine for the 13 steps of warm-up. Then the rate rises to its "minimum".
    explosive = ["--set", "minimum_learning_rate=1e30", "--set", "warmup_epochs=1"]
    code, text = run("pretrain", clips, "--out", folder, *SMALLER, *explosive)
    assert code == 1, text
    assert "The loss became" in text and "lower the learning rate" in text.replace("\n", " ")
    assert "Traceback" not in text
    assert int(weights(folder)["optimizer/adamw/iteration"]) == 10
    assert all(np.isfinite(value).all() for value in weights(folder).values())


def test_a_damaged_checkpoint_is_named(unbroken, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(unbroken[0], copy)
    last = sorted((copy / "checkpoints").glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:1000])
    code, text = run("pretrain", "--out", copy, "--resume")
    assert code == 1 and last.name in text and "is damaged" in text and "Traceback" not in text


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = VideoMAE(VideoMAEConfig.variant("tiny"))
    progress = Progress(
        Run(tmp_path), None, start=0, steps_per_epoch=5, clips_per_step=1, schedule=None
    )
    progress.set_model(model)
    progress.step, progress.began_step = 5, 0
    assert progress.save().exists()
    model.bridge.kernel.assign(model.bridge.kernel * np.nan)
    progress.step = 6
    with pytest.raises(NonFiniteLoss, match="bridge/kernel became nan between steps 1 and 6"):
        progress.save()
    assert [path.name for path in progress.run.checkpoints.iterdir()] == [
        "step-00000005.safetensors"
    ]


def test_of_several_processes_the_first_says_when_to_save_and_none_looks_ahead(tmp_path):
    class Second(Devices):
        def sum(self, values):
            asked.append(list(values))
            return np.asarray(values)

    asked, run = [], Run(tmp_path)
    run.rewind(-1)  # writes the column names
    for step in (5, 10):
        run.append({"step": step, "validation_loss": 1.0 - step / 100})
    progress = Progress(
        run,
        None,
        start=5,
        steps_per_epoch=5,
        clips_per_step=1,
        schedule=lambda step: 0.1,
        patience=1,
        devices=Second(2, process=1, processes=2),
    )
    assert progress.best.step == progress.validated == 5
    progress.display = SimpleNamespace(update=lambda *_: None)
    progress.saved_at -= 1e9
    progress.on_epoch_begin(1)
    progress.step = 10
    progress.on_epoch_end(1, {"loss": 1.0})
    assert asked == [[False, False, False]] and not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("videos", "another", "The list of videos"), ("draws", 1, "began with an earlier version")],
)
def test_a_run_whose_videos_or_draws_changed_is_not_continued(
    unbroken, tmp_path, name, value, message
):
    copy = tmp_path / "run"
    shutil.copytree(unbroken[0], copy)
    settings = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**settings, name: value}))
    code, text = run("pretrain", "--out", copy, "--resume")
    assert code == 1 and message in text.replace("\n", " ") and "Traceback" not in text


def test_a_run_of_an_earlier_version_still_loads(unbroken, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(unbroken[0], copy)
    settings = json.loads((copy / "run.json").read_text())
    assert settings.pop("draws") > 1
    (copy / "run.json").write_text(json.dumps(settings))
    assert Run(copy).settings().draws == 1
    assert VideoMAE.from_preset(copy).config == Run(unbroken[0]).settings().config


def test_without_a_readable_video_the_run_ends_with_a_clear_error(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/broken.mp4").write_bytes(b"not a video " * 99)
    code, text = run("pretrain", tmp_path / "clips", "--out", tmp_path / "run", *SMALL)
    assert code == 1
    assert "None of the 1 files can be read" in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("begin", "total", "expected"),
    [
        (0, 48, [(0, 10, 4), (40, 8, 1)]),
        (20, 48, [(20, 10, 2), (40, 8, 1)]),
        (17, 48, [(17, 3, 1), (20, 10, 2), (40, 8, 1)]),
        (43, 48, [(43, 5, 1)]),
        (48, 48, []),
        (0, 40, [(0, 10, 4)]),
        (0, 7, [(0, 7, 1)]),
    ],
)
def test_fits_cover_the_remaining_steps_on_the_grid_of_the_log(begin, total, expected):
    assert _fits(begin, total, 10) == expected


def test_a_second_interrupt_counts_unless_a_launcher_passed_the_first_one_on(monkeypatch, request):
    class Progress:
        stop_requested = False

    # A background process inherits the setting that ignores Ctrl-C.
    before = signal.default_int_handler
    inherited = signal.signal(signal.SIGINT, before)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, inherited))
    monkeypatch.setattr(interrupts, "PASSED_ON_SECONDS", math.inf)
    with stop_on_interrupt(Progress):
        assert signal.getsignal(signal.SIGINT) is not before
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert Progress.stop_requested and signal.getsignal(signal.SIGINT) is not before
        monkeypatch.setattr(interrupts, "PASSED_ON_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGINT) is before
