"""Tests that processes that train together start, stop and fail together."""

import re
import signal

import pytest

from backends_tests.examples import example, replaced
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
from backends_tests.support import BACKEND, in_suite_on_torch

pytestmark = in_suite_on_torch


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def test_a_stop_asked_of_one_process_stops_all_and_waits_for_the_checkpoint(data, tmp_path):
    run = tmp_path / "run"
    with two_processes(
        ("-c", PROGRAM, "pretrain", data[0], *SETTINGS, "--out", run),
        SIGNALLED=f"3 {signal.SIGTERM.value}",
        HELD="save",
        **pipes(tmp_path),
    ) as processes:
        outputs = both_ended(processes, 143, 143)
    assert "Stopped after step 5 of 10; all up to there is saved." in outputs[0]
    saved = "step-00000005.safetensors"
    assert [path.name for path in (run / "checkpoints").iterdir()] == [saved]
    assert f"Leaves with the files ['{saved}']" in outputs[1]


def test_an_error_of_one_process_ends_all_and_is_told(data, tmp_path):
    run = tmp_path / "run"
    command = ("-c", PROGRAM, "pretrain", data[0], "--out", run, *SETTINGS)
    with two_processes(command, SAVE_FAILS="1") as processes:
        failed, other = both_ended(processes, 1, 1)
    assert failed.count("Error: ") == 1 and "Error: No space left on device" in failed
    assert other.count("Error: ") == 1 and "process 0 of 2" in other
    assert not list((run / "checkpoints").glob("*.safetensors"))


def test_processes_that_do_not_train_the_same_are_refused(data, tmp_path):
    fewer = tmp_path / "clips"
    fewer.mkdir()
    for path in sorted(data[0].iterdir())[:-1]:
        (fewer / path.name).symlink_to(path)
    common = ("-c", PROGRAM, "pretrain", "--out", tmp_path / "run", *SETTINGS)
    with two_processes(
        (*common, data[0]), (*common, fewer), HELD="end", **pipes(tmp_path)
    ) as processes:
        outputs = both_ended(processes, 1, 1)
    for output in outputs:
        assert output.count("Error: The processes of this job do not train the same") == 1


def test_the_example_of_plain_fit_runs(data, tmp_path):
    short = {"steps_per_epoch=100, epochs=10": "steps_per_epoch=2, epochs=1"}
    program = replaced(example("docs/guides/scale.md"), **short)
    (tmp_path / "clips").symlink_to(data[0])
    script = tmp_path / "script.py"
    script.write_text(f"{program}\nprint('loss', history.history['loss'])\n")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    launcher = torchrun if BACKEND == "torch" else ()
    output = ended(start((*launcher, script), tmp_path))
    losses = [float(loss) for loss in re.findall(r"loss \[([\d.]+)\]", output)]
    assert len(losses) == (2 if BACKEND == "torch" else 1)
    assert all(0.5 < loss < 2.0 for loss in losses)
    assert (tmp_path / "videomae.keras").is_file()
