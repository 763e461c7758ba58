"""Tests that one or more devices, and one or two processes, give the same losses and weights."""

import csv
import json
import shutil
import signal

import pytest
from safetensors.numpy import load_file

from backends_tests.compare import assert_close
from backends_tests.job_processes import (
    PROGRAM,
    SETTINGS,
    both_ended,
    ended,
    pipes,
    start,
    two_processes,
    write_data,
)
from backends_tests.profiles import NIGHTLY
from backends_tests.support import BACKEND, in_suite_on_torch

# Devices of one process, compared with a single device. The largest number comes first, as JAX divides a
# machine's CPUs only once.
TOGETHER = {
    "jax": {"four": "4", "four-fsdp": "4,fsdp", "two-tensor": "2,tensor"},
    "tensorflow": {"two": "2"},
    "torch": {},  # one process per device
}[BACKEND]
# Starting and compiling two processes is slow, so the suite runs fine-tuning only on PyTorch.
PROCESSES = "0" if BACKEND == "torch" or NIGHTLY else "0,data"
FINE_TUNED = [
    name for name, value in {**TOGETHER, "processes": PROCESSES}.items() if "," not in value
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Return a folder with the runs "one", those of `TOGETHER`, and "processes", each with both stages."""
    out = tmp_path_factory.mktemp("runs")
    many = [f"{name}={value}" for name, value in TOGETHER.items()]
    command = ("-m", "backends_tests.many_devices", *data, out)
    ended(start((*command, *many, "one=1")))
    with two_processes((*command, f"processes={PROCESSES}")) as processes:
        both_ended(processes)
    return out


def rows(run):
    with open(run / "log.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def assert_equal_runs(run, reference):
    """Compare every loss of the log, and the final weights, moments, averages and seeds."""
    found, expected = rows(run), rows(reference)
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    assert expected[-1]["step"] == 10 and len(expected) > 2
    for mine, other in zip(found, expected, strict=True):
        for name in other.keys() - {"clips_per_second"}:
            what = f"{name} of step {other['step']}"
            assert_close(mine[name], other[name], "many_devices.loss", what=what)
    (*_, last), (*_, other) = (
        sorted((each / "checkpoints").iterdir()) for each in (run, reference)
    )
    assert last.name == other.name
    mine, other = load_file(last), load_file(other)
    assert mine.keys() == other.keys()
    for name, value in other.items():
        assert_close(mine[name], value, "many_devices.weight", what=name)


@pytest.mark.clause("SHARD-1", "SHARD-3", "SHARD-4", "SHARD-5")
@pytest.mark.parametrize("name", [*TOGETHER, "processes"])
def test_many_devices_pretrain_as_one(runs, name):
    assert_equal_runs(runs / name / "pretrained", runs / "one" / "pretrained")


@pytest.mark.clause("SHARD-1", "SHARD-2", "SHARD-3", "SHARD-5")
@pytest.mark.parametrize("name", FINE_TUNED)
def test_many_devices_fine_tune_as_one(runs, name):
    assert_equal_runs(runs / name / "fine-tuned", runs / "one" / "fine-tuned")


@pytest.mark.skipif(
    BACKEND == "tensorflow" and not NIGHTLY,
    reason="JAX shows it of one process and PyTorch of two; of TensorFlow with --nightly",
)
@pytest.mark.clause("SHARD-5")
def test_a_run_of_one_device_goes_on_on_many(runs, data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "one" / "pretrained", run)
    before, after = sorted((run / "checkpoints").iterdir())
    assert before.name == "step-00000005.safetensors"
    after.unlink()
    flags = ("--devices", "4", "--parallel", "fsdp") if BACKEND == "jax" else ("--devices", "2")
    output = ended(start(("-c", PROGRAM, "pretrain", data[0], "--out", run, "--resume", *flags)))
    assert output.count("Continuing after step 5 of 10.") == 1  # only the first process prints
    assert f"on {flags[1]} x " in output
    assert_equal_runs(run, runs / "one" / "pretrained")


@in_suite_on_torch
@pytest.mark.clause("SHARD-5")
def test_a_killed_worker_ends_the_job_with_one_message_and_the_run_goes_on_on_one(
    runs, data, tmp_path
):
    run = tmp_path / "run"
    with two_processes(
        ("-c", PROGRAM, "pretrain", data[0], "--out", run, *SETTINGS),
        SIGNALLED=f"8 {signal.SIGKILL.value}",
        HELD="signal",
        **pipes(tmp_path),
    ) as processes:
        message, _ = both_ended(processes, 1, -signal.SIGKILL)
    assert message.count("Error: ") == 1 and "Traceback" not in message
    assert "process 1 of 2" in message and f"vmae pretrain --out {run} --resume" in message
    assert json.loads((run / "run.json").read_text())["recipe"]["batch_size"] == 8
    output = ended(start(("-c", PROGRAM, "pretrain", "--out", run, "--resume")))
    assert "Continuing after step 5 of 10." in output
    assert_equal_runs(run, runs / "one" / "pretrained")
