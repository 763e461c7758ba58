"""Processes that train together, started as launchers start them."""

import contextlib
import json
import os
import subprocess
import sys

from backends_tests.many_devices import PRETRAINING, changes
from backends_tests.support import BACKEND, ROOT
from vmae_keras.cli.shared.job import held_port
from vmae_keras.data.synthetic import write_moving_shapes

# A command that saves at every logging interval. Process 1 can be sent a signal after a step. Process 0 can
# fail while it saves. HELD names a point where a process waits for the other:
# "signal": process 1, before its signal, until process 0 has saved the first interval;
# "save": process 0, while it saves, until process 1 has ended the interval and waits, or exits;
# "end": each, after its error, until the other has reported its own.
PROGRAM = """
import os, sys
from types import SimpleNamespace
from vmae_keras.cli.shared import job
from vmae_keras.distribution import Devices
from vmae_keras.training import callbacks, checkpoint
callbacks.SAVE_SECONDS, callbacks.SAVE_SHARE = 0.0, 1e9
step, number = map(int, os.environ.get("SIGNALLED", "0 0").split())
held, process = os.environ.get("HELD"), int(os.environ.get("PROCESS", 0))
step_ended, interval_ended = callbacks.Progress.on_train_batch_end, callbacks.Progress.on_epoch_end
leave, save_file = Devices.leave, checkpoint.save_file
opened = []

def arrive():
    opened.append(os.open(os.environ[f"PIPE_{process}"], os.O_RDWR))
    os.write(opened[-1], b".")

def wait():
    os.read(os.open(os.environ[f"PIPE_{1 - process}"], os.O_RDONLY), 1)

def end_step(self, batch, logs=None):
    step_ended(self, batch, logs)
    if self.step == step and process == 1:
        if held == "signal":
            wait()
        os.kill(os.getpid(), number)

def end_interval(self, epoch, logs=None):
    interval_ended(self, epoch, logs)
    if held == "signal" and process == 0:
        arrive()
    if held == "save" and process == 1:
        total = self.devices.sum
        self.devices.sum = lambda values: arrive() or total(values)

def left(self):
    if held == "save" and process == 1:
        print("Leaves with the files", os.listdir(os.path.join(sys.argv[-1], "checkpoints")))
        arrive()
    leave(self)

def save(*arguments, **more):
    if held == "save":
        wait()
    if "SAVE_FAILS" in os.environ:
        raise OSError("No space left on device")
    save_file(*arguments, **more)

if held == "end":
    job.time = SimpleNamespace(sleep=lambda seconds: arrive() or wait())
callbacks.Progress.on_train_batch_end, callbacks.Progress.on_epoch_end = end_step, end_interval
Devices.leave, checkpoint.save_file = left, save
from vmae_keras.__main__ import main
main()
"""


# Runs `many_devices`, with a batch for each of two devices.
SETTINGS = ["--seed", "1", "--batch-per-device", "4"]
for change in changes({name: v for name, v in PRETRAINING.items() if name != "batch_size"}):
    SETTINGS += ["--set", change]


def start(command, cwd=None, **variables):
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
    )


@contextlib.contextmanager
def two_processes(command, second=None, **variables):
    """Yield the two processes of a job on this machine, configured as launchers do."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(held_port()) for _ in range(2)]
        told = [
            {"PROCESS": str(number), "OMP_NUM_THREADS": "1", **variables} for number in range(2)
        ]
        if BACKEND == "tensorflow":
            cluster = {"worker": [f"localhost:{port}" for port in ports]}
            for number, each in enumerate(told):
                task = {"type": "worker", "index": number}
                each["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
        else:
            address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(ports[0])}
            for number, each in enumerate(told):
                each |= {
                    "RANK": str(number),
                    "LOCAL_RANK": str(number),
                    "WORLD_SIZE": "2",
                    **address,
                }
        processes = []
        for each, mine in zip(told, (command, second or command), strict=True):
            processes.append(start(mine, **each))
            stack.callback(processes[-1].kill)
        yield processes


def pipes(folder):
    """Return the environment variables that name the pipes by which two processes wait for each other."""
    paths = {f"PIPE_{number}": str(folder / f"pipe-{number}") for number in range(2)}
    for path in paths.values():
        os.mkfifo(path)
    return paths


def ended(process, code=0):
    try:
        output, _ = process.communicate()
    finally:
        process.kill()
    assert process.returncode == code, output
    return output


def both_ended(processes, *codes):
    return [ended(process, code) for process, code in zip(processes, codes or (0, 0), strict=True)]


def write_data(folder):
    """Write 44 clips and a list of them with three classes; return (folder of clips, list)."""
    write_moving_shapes(folder / "clips", 44, frames=8, size=(32, 48))
    paths = sorted((folder / "clips").glob("*.mp4"))
    lines = [f"{path} {index % 3}\n" for index, path in enumerate(paths)]
    (folder / "labels.txt").write_text("".join(lines), "utf-8")
    return folder / "clips", folder / "labels.txt"
