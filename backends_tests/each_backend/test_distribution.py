"""One device or many, one process or two: the same losses and weights. Processes begin and end here."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from backends_tests.many_devices import PRETRAINING, changes
from backends_tests.support import BACKEND, ROOT
from spec.tolerances import TOLERANCES
from vmae_keras.data.synthetic import write_moving_shapes

# Devices of one process, beside the one device that all are compared with; the most first, as JAX divides a
# machine's CPUs once.
TOGETHER = {
    "jax": {"four": "4", "four-fsdp": "4,fsdp", "two": "2", "two-tensor": "2,tensor"},
    "tensorflow": {"two": "2"},
    "torch": {},  # a process for each
}[BACKEND]
DATA_PARALLEL = [name for name, value in TOGETHER.items() if "," not in value] + ["processes"]
# XLA then takes a third less time for these small models.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
WEIGHT, LOSS = (TOLERANCES[f"many_devices.{name}"].value for name in ("weight", "loss"))

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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_moving_shapes(folder / "clips", 44, frames=8, size=(32, 48))
    paths = sorted((folder / "clips").glob("*.mp4"))
    lines = [f"{path} {index % 3}\n" for index, path in enumerate(paths)]
    (folder / "labels.txt").write_text("".join(lines))
    return folder / "clips", folder / "labels.txt"


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """A folder of runs: "one", those of `TOGETHER`, and "processes", each with both stages."""
    out = tmp_path_factory.mktemp("runs")
    many = [f"{name}={value}" for name, value in TOGETHER.items()]
    command = ("-m", "backends_tests.many_devices", *data, out)
    ended(start((*command, *many, "one=1")))
    ended_together(start_two((*command, "processes=0")))
    return out


def rows(run):
    with open(run / "log.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def assert_equal_runs(run, reference):
    """Every loss of the log, and at the end every weight, moment, average and seed."""
    found, expected = rows(run), rows(reference)
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    assert expected[-1]["step"] == 10 and len(expected) > 2
    for mine, other in zip(found, expected, strict=True):
        for name in other.keys() - {"clips_per_second"}:
            assert mine[name] == pytest.approx(other[name], abs=LOSS), (other["step"], name)
    (*_, last), (*_, other) = (
        sorted((each / "checkpoints").iterdir()) for each in (run, reference)
    )
    assert last.name == other.name
    mine, other = load_file(last), load_file(other)
    assert mine.keys() == other.keys()
    for name, value in other.items():
        np.testing.assert_allclose(mine[name], value, rtol=0, atol=WEIGHT, err_msg=name)


@pytest.mark.clause("SHARD-1", "SHARD-3", "SHARD-4", "SHARD-5")
@pytest.mark.parametrize("name", [*TOGETHER, "processes"])
def test_many_devices_pretrain_as_one(runs, name):
    assert_equal_runs(runs / name / "pretrained", runs / "one" / "pretrained")


@pytest.mark.clause("SHARD-1", "SHARD-2", "SHARD-3", "SHARD-5")
@pytest.mark.parametrize("name", DATA_PARALLEL)
def test_many_devices_fine_tune_as_one(runs, name):
    assert_equal_runs(runs / name / "fine-tuned", runs / "one" / "fine-tuned")


@pytest.mark.clause("SHARD-5")
def test_a_run_of_one_device_goes_on_on_many(runs, data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "one" / "pretrained", run)
    before, after = sorted((run / "checkpoints").iterdir())
    assert before.name == "step-00000005.safetensors"
    after.unlink()
    flags = ("--devices", "4", "--parallel", "fsdp") if BACKEND == "jax" else ("--devices", "2")
    output = ended(start(("-c", PROGRAM, "pretrain", data[0], "--out", run, "--resume", *flags)))
    assert output.count("Continuing after step 5 of 10.") == 1  # of all processes the first speaks
    assert f"on {flags[1]} x " in output
    assert_equal_runs(run, runs / "one" / "pretrained")


@pytest.mark.clause("SHARD-5")
def test_a_killed_worker_ends_the_job_with_one_message_and_the_run_goes_on_on_one(
    runs, data, tmp_path
):
    run = tmp_path / "run"
    first, killed = start_two(
        ("-c", PROGRAM, "pretrain", data[0], "--out", run, *SETTINGS),
        SIGNALLED=f"8 {signal.SIGKILL.value}",
    )
    began = time.monotonic()
    assert ended_together([killed], [-signal.SIGKILL])
    message = ended_together([first], [1])[0]
    assert time.monotonic() - began < 200
    assert message.count("Error: ") == 1 and "Traceback" not in message
    assert "process 1 of 2" in message and f"vmae pretrain --out {run} --resume" in message
    assert json.loads((run / "run.json").read_text())["recipe"]["batch_size"] == 8
    output = ended(start(("-c", PROGRAM, "pretrain", "--out", run, "--resume")))
    assert "Continuing after step 5 of 10." in output
    assert_equal_runs(run, runs / "one" / "pretrained")


def test_a_stop_asked_of_one_process_stops_all_and_waits_for_the_checkpoint(data, tmp_path):
    run = tmp_path / "run"
    processes = start_two(
        ("-c", PROGRAM, "pretrain", data[0], "--out", run, *SETTINGS),
        SIGNALLED=f"3 {signal.SIGTERM.value}", SAVE_TAKES="2",
    )  # fmt: skip
    outputs = ended_together(processes, (143, 143))
    assert "Stopped after step 5 of 10; all up to there is saved." in outputs[0]
    (saved,) = (run / "checkpoints").iterdir()
    assert saved.name == "step-00000005.safetensors"


def test_an_error_of_one_process_ends_all_and_is_told(data, tmp_path):
    run = tmp_path / "run"
    processes = start_two(
        ("-c", PROGRAM, "pretrain", data[0], "--out", run, *SETTINGS), SAVE_FAILS="1"
    )
    failed, other = ended_together(processes, (1, 1))
    assert failed.count("Error: ") == 1 and "Error: No space left on device" in failed
    assert other.count("Error: ") == 1 and "process 0 of 2" in other
    assert not list((run / "checkpoints").glob("*.safetensors"))


@pytest.mark.skipif(BACKEND != "torch", reason="asked alike on each; PyTorch starts soonest")
def test_processes_that_do_not_train_the_same_are_refused(data, tmp_path):
    fewer = tmp_path / "clips"
    fewer.mkdir()
    for path in sorted(data[0].iterdir())[:-1]:
        (fewer / path.name).symlink_to(path)
    common = ("-c", PROGRAM, "pretrain", "--out", tmp_path / "run", *SETTINGS)
    processes = start_two((*common, data[0]), second=(*common, fewer))
    for output in ended_together(processes, (1, 1)):
        assert output.count("Error: The processes of this job do not train the same") == 1


def test_the_example_of_plain_fit_runs(data, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/scale.md").read_text(), re.DOTALL)
    long = "steps_per_epoch=100, epochs=10"
    assert long in example
    example = example.replace(long, "steps_per_epoch=2, epochs=1")
    (tmp_path / "clips").symlink_to(data[0])
    script = tmp_path / "script.py"
    script.write_text(f"{example}\nprint('loss', history.history['loss'])\n")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    launcher = torchrun if BACKEND == "torch" else ()
    output = ended(start((*launcher, script), tmp_path))
    losses = [float(loss) for loss in re.findall(r"loss \[([\d.]+)\]", output)]
    assert len(losses) == (2 if BACKEND == "torch" else 1)
    assert all(0.5 < loss < 2.0 for loss in losses)
    assert (tmp_path / "videomae.keras").is_file()
