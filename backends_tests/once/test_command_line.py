"""Tests of the command line without a backend (speed, help, errors, exit codes) and of package imports."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from backends_tests import upstream_files
from backends_tests.support import ROOT, imported, running_backend
from vmae_keras import backend
from vmae_keras.backend import choice
from vmae_keras.cli.app import app

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"}


def vmae(*arguments):
    """Run a command in this process; return its exit status, output and errors."""
    environment = {"COLUMNS": "200", "KERAS_BACKEND": running_backend()}
    result = CliRunner().invoke(app, [*map(str, arguments)], env=environment, prog_name="vmae")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def vmae_in_a_process(*arguments, **environment):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from vmae_keras.cli.app import app; app(prog_name='vmae')",
            *arguments,
        ],
        env=ENVIRONMENT | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


# Packages that are slow to import, or import slow ones. scripts/start_time.py measures the seconds.
SLOW = {
    "av",
    "filelock",
    "grain",
    "h5py",
    "huggingface_hub",
    "jax",
    "keras",
    "matplotlib",
    "numpy",
    "PIL",
    "safetensors",
    "tensorboardX",
    "tensorflow",
    "torch",
}


def test_help_imports_nothing_slow():
    found, text = imported(
        "from vmae_keras.cli.app import app\ntry: app(['--help'])\nexcept SystemExit: pass"
    )
    assert "pretrain" in text and "reconstruct" in text
    assert {"typer", "vmae_keras"} <= found and not found & SLOW


def test_estimating_memory_imports_numpy_and_nothing_else_that_is_slow():
    found, text = imported(
        "from vmae_keras.cli.app import app\ntry: app(['memory'])\nexcept SystemExit: pass"
    )
    assert "fsdp" in text and found & SLOW == {"numpy"}


@pytest.mark.parametrize(
    "command",
    [
        "pretrain",
        "reconstruct",
        "synthesize",
        "consistency",
        "convert",
        "finetune",
        "distill",
        "evaluate",
        "export",
        "features",
        "memory",
        "predict",
        "probe",
        "progressive",
        "recipes",
    ],
)
def test_every_command_has_help_with_an_example(command):
    code, text, _ = vmae(command, "--help")
    assert code == 0 and f"Example: vmae {command}" in text


def test_importing_is_silent_and_adds_little_to_keras():
    silent = python("import vmae_keras; from vmae_keras import masks, VideoMAEConfig")
    assert (silent.stdout, silent.stderr) == ("", "")
    found, _ = imported(
        "before = set(sys.modules)\nimport vmae_keras; dir(vmae_keras); vmae_keras.list_videos"
    )
    assert found == {"vmae_keras"}
    added, _ = imported("import keras\nbefore = set(sys.modules)\nfrom vmae_keras import VideoMAE")
    assert added == {"safetensors", "vmae_keras"}


@pytest.mark.parametrize("name", backend.installed())
def test_a_run_imports_no_other_backend_than_keras_and_seeds_as_it_does(name):
    done = python(
        "import sys, keras; keras_alone = set(sys.modules)\n"
        "from vmae_keras import backend\n"
        "from vmae_keras.data.random_streams import keras_seed\n"
        "from vmae_keras.training import fine_tuning, pretraining\n"
        "backend.set_seed(3); found = keras.random.normal((3,))\n"
        "print({'jax', 'tensorflow', 'torch'} & (set(sys.modules) - keras_alone))\n"
        "keras.utils.set_random_seed(keras_seed(3)); expected = keras.random.normal((3,))\n"
        "print(bool(keras.ops.all(found == expected)))",
        KERAS_BACKEND=name,
        TF_CPP_MIN_LOG_LEVEL="3",
    )
    assert done.stdout == "set()\nTrue\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain"], "DATA is missing"),
        (["pretrain", "nowhere"], "nowhere"),
        (["pretrain", ".", "--variant", "huge"], "`name` must be one of v1-s"),
        (["pretrain", ".", "--recipe", "best"], "`--recipe` must be one of demo"),
        (["pretrain", ".", "--set", "epoch=3"], "Did you mean 'epochs'?"),
        (["pretrain", str(ROOT / "README.md")], "README.md"),
        (["pretrain", "--resume", "--out", "nowhere"], "nowhere holds no run"),
        (["distill", "--resume", "--out", "nowhere"], "vmae pretrain, vmae finetune, vmae distill"),
        (["pretrain", "--resume", "--set", "epochs=9"], "Received: --set. Leave that out"),
        (["pretrain", "--resume", "--seed", "0"], "Received: --seed"),
        (["reconstruct", "nowhere", "clip.mp4"], "nowhere holds no run"),
    ],
)
def test_wrong_values_end_with_one_line_that_helps(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = vmae(*arguments)
    assert code == 1
    assert errors.startswith("Error: ") and message in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["train"], ["pretrain", ".", "--backend", "theano"], ["pretrain", ".", "--workers", "-1"]],
)
def test_wrong_usage_exits_with_2(arguments):
    assert vmae(*arguments)[0] == 2


def test_a_process_that_fails_prints_one_line(tmp_path):
    code, text, errors = vmae_in_a_process("pretrain", tmp_path / "nowhere")
    assert (code, text, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("Error: ") and "nowhere" in errors


def test_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/step-00000010.safetensors").touch()
    (tmp_path / "run/run.json").write_text("{}")
    code, _, errors = vmae("pretrain", str(tmp_path), "--out", str(tmp_path / "run"))
    assert code == 1 and "already holds a run. Continue it with --resume" in errors
    code, _, errors = vmae("pretrain", "--resume", "--out", str(tmp_path / "run"))
    assert code == 1 and "run.json cannot be read" in errors


def test_backend_that_is_not_installed_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(choice, "installed", lambda: ["torch"])
    with pytest.raises(backend.BackendError, match=r"pip install 'vmae-keras\[jax\]'"):
        backend.select("jax")
    with pytest.raises(backend.BackendError, match="one of jax, tensorflow, torch"):
        backend.select("theano")
    monkeypatch.setattr(choice, "installed", lambda: [])
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    with pytest.raises(backend.BackendError, match="none is installed"):
        backend.select()


def test_conversion_says_what_is_lost_and_what_went_wrong(tmp_path):
    config = upstream_files.small()
    tensors, _ = upstream_files.tensors(config, "classifier mean", "official_classifier")
    source = upstream_files.write(tmp_path / "in.safetensors", tensors)
    out = tmp_path / "out"
    code, text, errors = vmae_in_a_process("convert", source, out, "--to", "hf", "--set", "heads=2")
    assert (code, errors) == (0, "")
    assert "transformers computes with 1e-05" in text and text.endswith(f"{out}\n")
    assert (out / "model.safetensors").is_file()
    code, _, errors = vmae("convert", tmp_path / "nothing", out)
    assert code == 1 and "nothing does not exist" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "tiny", "--start", "somewhere"], "--variant too"),
        (["--set", "layer_decay=1.5"], "layer_decay"),
        (["--set", "auto_augment=strong"], "strong"),
        (["--set", "mixup=0.8", "--set", "batch_size=3"], "even number"),
        (["--start", "nowhere"], "nowhere does not exist"),
    ],
)
def test_wrong_fine_tuning_ends_with_one_line_and_writes_nothing(arguments, message, tmp_path):
    for name in ("run", "jump"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        (tmp_path / "clips" / name / "clip.mp4").touch()
    code, _, errors = vmae("finetune", tmp_path / "clips", "--out", tmp_path / "run", *arguments)
    assert code == 1 and message in errors and "Traceback" not in errors, errors
    assert not (tmp_path / "run").exists()


def test_videos_without_a_label_are_named(tmp_path):
    (tmp_path / "clip.mp4").touch()
    code, _, errors = vmae("finetune", tmp_path, "--out", tmp_path / "run")
    assert code == 1 and "1 of 1 videos have no label" in errors and "clip.mp4" in errors
