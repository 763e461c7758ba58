"""Tests of a plan from pretraining to evaluation: uninterrupted, and killed once in each of its stages."""

import json
import multiprocessing
import os
import random
import signal
import sys
from unittest import mock

import pytest

from backends_tests.profiles import NIGHTLY
from backends_tests.support import BACKEND
from vmae_keras import VideoClassifier
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.process import interrupts
from vmae_keras.runs.run import Run
from vmae_keras.training.plan import check_plan, read_plan

SIZES = "height = 24, depth = 1, mlp_dim = 40, decoder_mlp_dim = 20, drop_path = 0.2"
PLAN = f"""
seed = 3

[aliases]
"at rest" = "still"

[[stage]]
name = "pretrain"
kind = "pretrain"
data = ["first", "second"]
variant = "tiny"
set = {{ {SIZES}, batch_size = 2, epochs = 2, accumulate = 2 }}

[[stage]]
name = "post-pretrain"
kind = "finetune"
data = ["first", "second"]
set = {{ batch_size = 2, epochs = 2, drop_path = 0.1, mixup = 0.8, mixup_probability = 1.0 }}

[[stage]]
name = "fine-tune"
kind = "finetune"
data = "first"
head = "mapped"
set = {{ batch_size = 2, epochs = 3, head_dropout = 0.3 }}

[[stage]]
name = "evaluate"
kind = "evaluate"
data = ["second"]
set = {{ test_clips = 2 }}
"""
# Slow imports happen once for all processes.
PRELOAD = [
    "backends_tests.each_backend.test_progressive",
    "vmae_keras.training.pretraining",
    "vmae_keras.evaluation.classification",
    "vmae_keras.training.fine_tuning",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
]
STAGES = ("pretrain", "post-pretrain", "fine-tune", "evaluate")


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Write two data sets of the same two classes under different names."""
    folder = tmp_path_factory.mktemp("plan")
    for seed, label in enumerate(
        ("first/still", "first/Moving", "second/at rest", "second/moving")
    ):
        write_moving_shapes(folder / label, 3, frames=8, size=(32, 32), seed=seed)
    (folder / "plan.toml").write_text(PLAN)
    return folder / "plan.toml"


def _in_a_process(output, moments, number, killed_in, at, arguments):
    """Run the command in a new process that records events and sends itself a signal at one of them.

    Events are steps, rows, checkpoints, results and other files, each recorded before it happens.
    """
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    interrupts.install()
    from vmae_keras.cli.app import app
    from vmae_keras.evaluation import results
    from vmae_keras.process import files
    from vmae_keras.runs import run
    from vmae_keras.training import callbacks, checkpoint, plan_folder

    callbacks.SAVE_SECONDS, callbacks.SAVE_SHARE = 0.0, 1e9
    seen = dict.fromkeys(STAGES, 0)
    current = None

    def counted(owner, name):
        function = getattr(owner, name)

        def wrapper(*args, **kwargs):
            if current:
                if (killed_in, at) == (current, seen[current]):
                    os.kill(os.getpid(), number)
                seen[current] += 1
            return function(*args, **kwargs)

        setattr(owner, name, wrapper)

    begin, finish = plan_folder.begin, plan_folder._finish

    def begun(folder, *args):
        nonlocal current
        current = folder.name
        return begin(folder, *args)

    def finished(*args):
        nonlocal current
        finish(*args)
        current = None

    plan_folder.begin, plan_folder._finish = begun, finished
    counted(callbacks.Progress, "on_train_batch_end")
    counted(run.Run, "append")
    counted(checkpoint, "save")
    counted(run, "write_atomically")
    counted(files, "write_atomically")
    counted(plan_folder, "write_atomically")
    counted(results.ResultsTable, "append")
    code = 0
    try:
        app(arguments)
    except SystemExit as end:
        code = end.code
    with open(moments, "w") as file:
        json.dump(seen, file)
    sys.stdout.flush()
    os._exit(code or 0)


def progressive(folder, *arguments, killed_in=None, at=None, number=signal.SIGKILL):
    """Run the command; return (exit code, output, number of events in each stage)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    output, moments = folder / "output.txt", folder / "moments.json"
    process = context.Process(
        target=_in_a_process,
        args=(output, moments, number, killed_in, at, ["progressive", *map(str, arguments)]),
    )
    # One thread: on two cores, beside other tests, more threads wait for each other.
    environment = {"KERAS_BACKEND": BACKEND, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, environment):
        process.start()
    process.join(200)
    seen = json.loads(moments.read_text()) if moments.exists() else None
    return process.exitcode, output.read_text(), seen


@pytest.fixture(scope="module")
def unbroken(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    code, text, moments = progressive(folder, plan, "--out", folder / "out")
    assert code == 0, text
    return folder / "out", text, moments


@pytest.mark.clause("PLAN-1")
def test_a_plan_ends_with_a_report_of_all_its_stages(unbroken):
    out, text, _ = unbroken
    report = json.loads((out / "report.json").read_text())
    assert [stage["name"] for stage in report["stages"]] == list(STAGES)
    assert [stage["start"] for stage in report["stages"]] == [None, *STAGES[:3]]
    assert [stage["classes"] for stage in report["stages"]] == [None, 2, 2, 2]
    words = (out / "report.md").read_text()
    assert "fine-tune/loss.png" in words and "evaluate/confusion.png" in words
    top_1 = report["stages"][-1]["top_1"]
    assert f"{100 * top_1:.1f} %" in words and "| evaluate | fine-tune | 6 | 2 x 1 |" in text
    assert VideoClassifier.from_preset(out / "fine-tune").labels == ("Moving", "still")
    for name, start, head in (
        ("post-pretrain", "pretrain", "new"),
        ("fine-tune", "post-pretrain", "mapped"),
    ):
        settings = Run(out / name).settings()
        assert (settings.start, settings.head, settings.seed) == (str(out / start), head, 3)


@pytest.mark.clause("PLAN-2")
def test_a_plan_killed_in_each_stage_ends_with_the_same_report(unbroken, plan, tmp_path):
    out, _, moments = unbroken
    drawn = random.Random(len(BACKEND))
    all_stages = BACKEND == "torch" or NIGHTLY  # which starts soonest
    for stage in STAGES if all_stages else [drawn.choice(STAGES[1:])]:
        assert moments[stage] > 5
        at = drawn.randrange(moments[stage])
        code, text, _ = progressive(
            tmp_path, plan, "--out", tmp_path / "out", killed_in=stage, at=at
        )
        assert code == -signal.SIGKILL, (stage, at, text)
    if all_stages:
        interrupt = {"killed_in": "evaluate", "at": 0, "number": signal.SIGINT}
        code, text, _ = progressive(tmp_path, plan, "--out", tmp_path / "out", **interrupt)
        assert code == 130, text
        assert f"Continue with: vmae progressive {plan} --out {tmp_path / 'out'}" in text
    code, text, _ = progressive(tmp_path, plan, "--out", tmp_path / "out")
    assert code == 0, text
    assert "Done before" in text
    mine = (tmp_path / "out" / "report.json").read_text()
    assert mine == (out / "report.json").read_text()
    assert (tmp_path / "out/report.md").read_text() == (out / "report.md").read_text()


@pytest.mark.clause("PLAN-3")
def test_a_stage_that_has_begun_cannot_be_changed(unbroken, plan, tmp_path):
    changed = plan.with_name("changed.toml")
    changed.write_text(PLAN.replace("epochs = 3", "epochs = 4"))
    code, text, _ = progressive(tmp_path, changed, "--out", unbroken[0])
    text = text.replace("\n", " ")
    assert code == 1 and "stage 'fine-tune', recipe.epochs: 4, was 3" in text, text
    assert "post-pretrain" not in text and "Traceback" not in text


def test_a_stage_may_start_from_a_preset(unbroken, plan):
    def checked(start):
        path = plan.with_name("preset.toml")
        text = '[[stage]]\nname = "t"\nkind = "finetune"\ndata = "second"\nhead = "mapped"\n'
        path.write_text(f'{text}start = "{unbroken[0] / start}"\n[aliases]\n"at rest" = "still"\n')
        return check_plan(read_plan(path))

    (stage,) = checked("post-pretrain")
    assert (stage.config.depth, stage.labels) == (1, ("moving", "still"))
    with pytest.raises(ValueError, match="holds no classifier"):
        checked("pretrain")
    with pytest.raises(ValueError, match="No stage before it, and no preset, is called"):
        checked("nowhere")
