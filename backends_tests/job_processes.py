"""Starts processes that train together, as launchers do, and waits for their ends."""

import json
import os
import socket
import subprocess
import sys

from backends_tests.many_devices import PRETRAINING, changes
from backends_tests.support import BACKEND, ROOT
from vmae_keras.data.synthetic import write_moving_shapes

# XLA then takes a third less time for these small models.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

# A command that saves at every logging interval. After a step, process 1 can be sent a signal; when it
# saves, process 0 can take its time, or fail.
PROGRAM = """
import os, time
from vmae_keras.training import callbacks, checkpoint
callbacks.SAVE_SECONDS, callbacks.SAVE_SHARE = 0.0, 1e9
step, number = map(int, os.environ.get("SIGNALLED", "0 0").split())
ended, save_file = callbacks.Progress.on_train_batch_end, checkpoint.save_file
def end(self, batch, logs=None):
    ended(self, batch, logs)
    if self.step == step and self.devices.process == 1:
        os.kill(os.getpid(), number)
def save(*arguments, **more):
    time.sleep(float(os.environ.get("SAVE_TAKES", 0)))
    if "SAVE_FAILS" in os.environ:
        raise OSError("No space left on device")
    save_file(*arguments, **more)
callbacks.Progress.on_train_batch_end, checkpoint.save_file = end, save
from vmae_keras.__main__ import main
main()
"""


# Of `many_devices`, with a batch for each of two devices.
SETTINGS = ["--seed", "1", "--batch-per-device", "4"]
for change in changes({name: v for name, v in PRETRAINING.items() if name != "batch_size"}):
    SETTINGS += ["--set", change]


def start(command, cwd=None, **variables):
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(ROOT), **variables}
    if BACKEND == "jax":
        environment["XLA_FLAGS"] = QUICK
    return subprocess.Popen(
        [sys.executable, *map(str, command)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd,
    )  # fmt: skip


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start_two(command, second=None, **variables):
    """The processes of a job on this machine, told of each other as launchers do."""
    commands = command, second or command
    ports = free_port(), free_port()
    if BACKEND == "tensorflow":
        workers = {"worker": [f"localhost:{port}" for port in ports]}
        told = [
            {"TF_CONFIG": json.dumps({"cluster": workers, "task": {"type": "worker", "index": i}})}
            for i in range(2)
        ]
    else:
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(ports[0])}
        told = [{"RANK": str(i), "LOCAL_RANK": str(i), **common} for i in range(2)]
    return [
        start(mine, OMP_NUM_THREADS="1", **each, **variables)
        for mine, each in zip(commands, told, strict=True)
    ]


def ended(process, code=0):
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == code, output
    return output


def ended_together(processes, codes=None):
    try:
        return [
            ended(process, code)
            for process, code in zip(processes, codes or [0] * len(processes), strict=True)
        ]
    finally:
        for process in processes:
            process.kill()


def write_data(folder):
    """Write 44 clips, and a list of them with three classes: (folder of clips, list)."""
    write_moving_shapes(folder / "clips", 44, frames=8, size=(32, 48))
    paths = sorted((folder / "clips").glob("*.mp4"))
    lines = [f"{path} {index % 3}\n" for index, path in enumerate(paths)]
    (folder / "labels.txt").write_text("".join(lines), "utf-8")
    return folder / "clips", folder / "labels.txt"
