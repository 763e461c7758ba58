"""Tests of commands that are interrupted or find the disk full: messages and remaining files."""

import errno
import os
import signal
import sys
import warnings
from unittest import mock

import pytest
from typer.testing import CliRunner

from backends_tests.support import BACKEND
from vmae_keras import VideoClassifier, VideoMAEConfig
from vmae_keras.cli.app import app
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.evaluation import classification, features
from vmae_keras.evaluation.probes import encoded
from vmae_keras.export import exporter
from vmae_keras.process import interrupts
from vmae_keras.runs.lock import LOCK

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="does not depend on the backend")
# Where to interrupt: the function that each command calls during its work, and its arguments.
WORK = {
    "evaluate": (classification, "predicted_views", "MODEL CLIPS"),
    "features": (features, "_extracted", "MODEL CLIPS"),
    "probe": (encoded, "predicted_views", "MODEL CLIPS OTHERS --kind linear --clips 1"),
    "export": (exporter, "run_worker", "MODEL --format onnx --clips 2"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    places = ("clips/still", "clips/moving", "others/still", "others/moving")
    for seed, place in enumerate(places):
        write_moving_shapes(folder / place, 3, frames=8, size=(32, 32), seed=seed)
    config = VideoMAEConfig.variant("tiny")
    model = VideoClassifier(config, classes=2, labels=("moving", "still"))
    model.save_to_preset(folder / "model")
    return {
        "MODEL": str(folder / "model"),
        "CLIPS": str(folder / "clips"),
        "OTHERS": str(folder / "others"),
    }


@pytest.fixture
def handled(monkeypatch):
    """Install the signal handlers of a command."""
    monkeypatch.setattr(interrupts, "_received", None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    interrupts.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("fault", ["SIGTERM", "full disk"])
@pytest.mark.parametrize("command", WORK)
def test_a_command_that_ends_early_says_how_to_continue(
    command, fault, inputs, handled, tmp_path, monkeypatch
):
    owner, name, arguments = WORK[command]

    def fail(*_, **__):
        if fault == "full disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        signal.raise_signal(signal.Signals[fault])

    monkeypatch.setattr(owner, name, fail)
    monkeypatch.setenv("KERAS_BACKEND", BACKEND)
    typed = [command, *(inputs.get(each, each) for each in arguments.split())]
    typed += ["--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["vmae", *typed])
    # A copy, as in a separate process: `export` changes the environment.
    with mock.patch.dict(os.environ), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(app, typed)
    output = result.output.replace("\n", " ")
    if fault == "full disk":
        assert result.exit_code == 1, output
        assert "Error: No space is left on the disk of" in output
    else:
        assert result.exit_code == 128 + signal.Signals[fault], output
        assert "Stopped." in output
    assert output.count(f"Continue with: vmae {' '.join(typed)}") == 1
    assert "Traceback" not in output and not (tmp_path / "out" / LOCK).exists()
