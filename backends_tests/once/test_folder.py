"""Tests of two commands in one folder: the second is refused, and a killed one leaves no lock."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import filelock._unix
import pytest
import typer
from typer.testing import CliRunner

from backends_tests.support import ROOT, running_backend
from vmae_keras.cli.app import app
from vmae_keras.cli.shared.folder import continued_by, locked
from vmae_keras.process.failures import Unfinished
from vmae_keras.runs.lock import LOCK

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"}
# Arguments do not matter: the folder is checked first.
WRITERS = {
    "pretrain": ["clips"],
    "finetune": ["clips"],
    "distill": ["clips"],
    "evaluate": ["model", "clips"],
    "features": ["model", "clips"],
    "probe": ["model", "clips", "clips"],
    "export": ["model", "--format", "onnx"],
    "progressive": ["plan.toml"],  # the plan is read before that
}
PLAN = '[[stage]]\nname = "one"\nkind = "pretrain"\ndata = "clip.mp4"\nvariant = "tiny"\n'


@pytest.mark.parametrize("command", WRITERS)
def test_a_folder_in_use_is_refused_with_its_holder(command, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vmae", "pretrain", "a b"])
    monkeypatch.setenv("KERAS_BACKEND", running_backend())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "clip.mp4").touch()
    folder = tmp_path / "out"
    with locked(folder):
        before = sorted(folder.iterdir())
        result = CliRunner().invoke(app, [command, *WRITERS[command], "--out", str(folder)])
        assert sorted(folder.iterdir()) == before
    assert result.exit_code == 1
    assert result.output.startswith(
        f"Error: {folder} is being written by process {os.getpid()} on {socket.gethostname()}: "
        "vmae pretrain 'a b'. Wait until it has ended"
    )
    assert len(result.output.splitlines()) == 1
    assert not folder.exists()  # removed, as it is empty


def test_a_folder_that_synthesize_or_convert_writes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", running_backend())
    with locked(tmp_path):
        for command in (["synthesize", tmp_path], ["convert", "model", tmp_path]):
            result = CliRunner().invoke(app, [*map(str, command)])
            assert result.exit_code == 1 and "is being written by process" in result.output


def test_others_of_a_job_are_not_refused(tmp_path):
    with locked(tmp_path), locked(tmp_path, first=False):
        assert (tmp_path / LOCK).exists()
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, pathlib, signal, subprocess, sys
from vmae_keras.cli.shared.folder import locked
with locked(pathlib.Path("out")):
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=0)
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_no_lock_even_while_its_child_lives(tmp_path):
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(killed.stdout.readline())
    assert killed.wait() == -signal.SIGKILL
    os.kill(child, 0)  # raises if the process does not exist
    holder = json.loads((tmp_path / "out" / LOCK).read_text())
    assert holder["process"] == killed.pid
    with locked(tmp_path / "out"):
        pass
    killed.stdin.close()
    killed.stdout.close()


def test_a_file_system_without_locks_is_noted(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(filelock._unix.fcntl, "flock", flock)
    with locked(tmp_path):
        pass
    assert capsys.readouterr().err.startswith(f"Note: the file system of {tmp_path} has no locks")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_that_says_what_to_do(number, tmp_path, capsys):
    with pytest.raises(typer.Exit), continued_by("vmae features m v", tmp_path):
        raise OSError(number, os.strerror(number))
    assert capsys.readouterr().err == (
        f"Error: No space is left on the disk of {tmp_path}. Free some space there.\n"
        "Continue with: vmae features m v\n"
    )
    with pytest.raises(typer.Exit), continued_by("vmae again", tmp_path):
        raise Unfinished("A worker was killed.")
    assert "Error: A worker was killed.\nContinue with: vmae again" in capsys.readouterr().err
