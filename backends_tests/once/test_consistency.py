"""Tests of `vmae consistency`: comparisons, messages, and one real comparison of the backends."""

import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file
from typer.testing import CliRunner

from backends_tests.support import ROOT
from spec import tolerances as specification
from vmae_keras import VideoMAEConfig, backend
from vmae_keras.cli import app
from vmae_keras.consistency import COMPARED_BACKENDS, check, processes, report
from vmae_keras.consistency.comparison import QUANTITIES, TOLERANCES, Result, compare
from vmae_keras.consistency.processes import Outcome
from vmae_keras.consistency.setup import PRECISIONS, Setup

WEIGHTS = {"bridge/kernel": (4, 5), "head/bias": (6,)}


def made_up(seed=0):
    """Return a worker's results, made of random numbers."""
    generator = np.random.default_rng(seed)
    shapes = {"forward": (2, 3, 4), "loss": ()}
    for part in ("gradient", "update"):
        shapes |= {f"{part}/{name}": shape for name, shape in WEIGHTS.items()}
    return {
        f"{precision}/{name}": np.asarray(generator.uniform(0.5, 1.0, shape), "float32")
        for precision in PRECISIONS
        for name, shape in shapes.items()
    }


@pytest.fixture
def written(tmp_path):
    """Write made-up results; return them as they are read."""

    def write(**tensors):
        results = {}
        for name, arrays in tensors.items():
            path = tmp_path / f"{name}.safetensors"
            save_file(arrays, path, metadata={"version": "1.0", "device": "cpu"})
            results[name] = Result(path)
        return results

    return write


def text(renderable):
    console = Console(width=200, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


def test_equal_results_agree(written):
    rows = compare(written(jax=made_up(), torch=made_up()))
    assert len(rows) == len(PRECISIONS) * len(QUANTITIES)
    assert all(row.worst[1].value == 0.0 for row in rows)
    agree, line = report.verdict(rows)
    assert agree and line == f"The backends agree in all {len(TOLERANCES)} rows that are judged."


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("changed", "quantities", "weight"),
    [
        ("forward", ["forward"], ""),
        ("loss", ["loss"], ""),
        ("gradient/head/bias", ["gradient"], "head/bias"),
        ("update/bridge/kernel", ["weights, all", "weights, clear gradients"], "bridge/kernel"),
    ],
)
def test_a_difference_over_the_tolerance_is_found_and_its_weight_named(
    written, precision, changed, quantities, weight
):
    """Check that other weights and the other precision are unaffected."""
    other = made_up()
    other[f"{precision}/{changed}"] *= 4
    rows = compare(written(jax=made_up(), tensorflow=made_up(), torch=other))
    assert [row.quantity.title for row in rows if not row.passes] == quantities
    for row in rows:
        if not row.passes:
            pair, worst = row.worst
            assert row.precision == precision and worst.weight == weight and "torch" in pair
    agree, line = report.verdict(rows)
    assert not agree and f"disagree in {len(quantities)} of {len(TOLERANCES)} rows" in line
    assert precision in line and "torch" in line and weight in line


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_tolerance_is_where_it_says(written, precision, factor):
    other = made_up()
    allowed = TOLERANCES[f"gradient.{precision}"]
    gradient = other[f"{precision}/gradient/head/bias"]
    gradient[2] += factor * allowed * gradient.max()
    rows = compare(written(jax=made_up(), torch=other))
    assert report.verdict(rows)[0] == (factor < 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("broken", ["first", "second", "both"])
@pytest.mark.parametrize("part", ["forward", "loss", "gradient/bridge/kernel", "update/head/bias"])
def test_what_is_not_finite_fails(written, part, broken, value):
    sides = {"first": made_up(), "second": made_up()}
    for name in sides if broken == "both" else [broken]:
        sides[name][f"float32/{part}"].flat[0] = value
    agree, _ = report.verdict(compare(written(**sides)))
    assert not agree


def test_a_small_gradients_update_is_judged_among_all_alone(written):
    """Check that one entry may differ, where rounding decides, but many may not."""
    results = [made_up(), made_up()]
    for arrays in results:
        arrays["float32/gradient/bridge/kernel"][0, 0] = 1e-3
    allowed = TOLERANCES["clear_update.float32"]
    results[1]["float32/update/bridge/kernel"][0, 0] += 2 * allowed
    rows = {
        row.quantity.title: row
        for row in compare(written(jax=results[0], torch=results[1]))
        if row.precision == "float32"
    }
    clear = rows["weights, clear gradients"].worst[1]
    assert clear.value == 0.0 and clear.share == pytest.approx(25 / 26)
    assert rows["weights, worst"].worst[1].value > allowed
    assert rows["weights, all"].worst[1].weight == "bridge/kernel"


def test_backends_without_gradients_take_part_in_the_rest(written):
    inference = {
        name: array for name, array in made_up().items() if name.endswith(("forward", "loss"))
    }
    results = written(jax=made_up(), torch=made_up(), numpy=inference)
    rows = compare(results)
    shown = text(report.table(rows, list(results)))
    assert re.search(r"^forward +0.0e\+00 +0.0e\+00 +0.0e\+00 +\S+ *$", shown, re.M)
    assert re.search(r"^gradient +0.0e\+00 +- +0.0e\+00 +\S+ *$", shown, re.M)
    assert report.verdict(rows)[0]


def test_tolerances_are_those_of_the_specification():
    specified = {
        name.removeprefix("consistency."): (tolerance.value, tolerance.of)
        for name, tolerance in specification.TOLERANCES.items()
        if name.startswith("consistency.")
    }
    assert specified == {
        name: (value, QUANTITIES[name.split(".")[0]].of) for name, value in TOLERANCES.items()
    }


def test_weights_and_batches_come_from_the_seed_and_leave_nothing_zero():
    config = VideoMAEConfig.variant("tiny")
    shapes = {"head/kernel": (16, 96), "head/bias": (96,), "decoder/norm/gamma": (16,)}
    first, again = (Setup(config).weights(shapes) for _ in range(2))
    other = Setup(config, seed=1).weights(shapes)
    for name, shape in shapes.items():
        assert first[name].shape == shape and first[name].dtype == np.float32
        np.testing.assert_array_equal(first[name], again[name])
        assert (first[name] != 0).all() and (first[name] != other[name]).all()
    # Six standard errors of the deviation of 1536 draws.
    assert first["head/kernel"].std() == pytest.approx(16**-0.5, rel=6 / np.sqrt(2 * 1536))
    videos = [Setup(config, seed=seed).batch(step)["video"] for seed in (0, 1) for step in (0, 1)]
    assert all((videos[0] != video).any() for video in videos[1:])


def test_a_setup_survives_its_file(tmp_path):
    setup = Setup(VideoMAEConfig.variant("demo", layer_scale=0.1), steps=5, seed=7)
    setup.save(tmp_path / "setup.json")
    assert Setup.load(tmp_path / "setup.json") == setup


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("raise ImportError('no such processor')", "ImportError: no such processor"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    ],
)
def test_a_backend_that_breaks_says_why(code, failure, tmp_path, monkeypatch):
    (tmp_path / "openvino.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setattr(backend, "installed", lambda names: ["openvino"])
    said = []
    setup = Setup(VideoMAEConfig.variant("tiny"))
    outcomes = processes.compute(
        setup, ["jax", "openvino"], tmp_path, lambda *line: said.append(line), lambda *_: None
    )
    missing = "not installed. Install it: pip install 'vmae-keras[jax]'"
    assert outcomes["jax"] == Outcome(None, missing)
    assert outcomes["openvino"].failure == failure
    assert said == [("openvino", "starting")]


def run(arguments, **tensors):
    """Run the command with made-up results; a backend without results fails."""

    def compute(setup, names, folder, say, ended):
        outcomes = {}
        for name in names:
            outcomes[name] = Outcome(None, "ImportError: libcuda.so")
            if tensors.get(name):
                path = folder / f"{name}.safetensors"
                save_file(tensors[name], path, metadata={"version": "1.0", "device": "cpu"})
                outcomes[name] = Outcome(path, seconds=1.0)
            ended(name, outcomes[name])
        return outcomes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "compute", compute)
        patch.setattr(backend, "installed", lambda names: ["jax", "tensorflow", "torch"])
        done = CliRunner().invoke(
            app.app, ["consistency", *arguments], env={"COLUMNS": "200"}, catch_exceptions=False
        )
    return done.exit_code, done.output


ALL = {"jax": made_up(), "tensorflow": made_up(), "torch": made_up()}
APART = {**ALL, "torch": {name: np.asarray(2 * array) for name, array in made_up().items()}}
WITHOUT = {**ALL, "tensorflow": None}
ALONE = {"jax": made_up()}


@pytest.mark.parametrize(
    ("arguments", "results", "code", "message"),
    [
        ([], ALL, 0, "The backends agree"),
        ([], APART, 1, "The backends disagree"),
        ([], WITHOUT, 0, "tensorflow: ImportError: libcuda.so"),
        (["--backends", "jax,tensorflow,torch"], WITHOUT, 1, "tensorflow: ImportError: libcuda.so"),
        (["--backends", "jax,torch"], WITHOUT, 0, "The backends agree"),
        ([], ALONE, 1, "There is nothing to compare"),
        (["--backends", "jax,theano"], ALL, 1, "Received: theano"),
        (["--set", "epochs=5"], ALL, 1, "--set changes only values of the variant"),
        (["--set", "drop_path=0.1"], ALL, 1, "Use drop_path=0"),
        (["--variant", "huge"], ALL, 1, "`name` must be one of"),
    ],
)
def test_exit_codes(arguments, results, code, message):
    got, output = run(arguments, **results)
    assert got == code and message in output


def test_help_lists_the_options_and_an_example():
    done = CliRunner().invoke(app.app, ["consistency", "--help"], env={"COLUMNS": "100"})
    assert done.exit_code == 0 and "Example: vmae consistency" in done.output
    for option in ("--variant", "--backends", "--steps", "--seed", "--set"):
        assert option in done.output


def test_backends_with_gradients_come_first_and_once():
    assert check.choose_backends("numpy, torch,jax,numpy") == ["torch", "jax", "numpy"]
    assert check.choose_backends(None) == backend.installed(COMPARED_BACKENDS)
    assert "numpy" in check.choose_backends(None)


def test_training_refuses_backends_without_gradients():
    for name in backend.INFERENCE_BACKENDS:
        with pytest.raises(backend.BackendError, match=f"{name}', which computes no gradients"):
            backend.select(name)


@pytest.mark.clause("EMBED-1", "EMBED-2", "ENC-2", "DEC-1", "DEC-2", "LOSS-2", "OPT-5")
@pytest.mark.clause("BLOCK-1", "BLOCK-2", "BLOCK-3", "BLOCK-4", "BLOCK-5")
def test_the_backends_agree():
    """Run the real command, which shows where one backend computes differently from the others."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from vmae_keras.cli.app import app; app(prog_name='vmae')",
            "consistency",
            "--variant",
            "tiny",
            "--backends",
            "jax,tensorflow,torch,numpy",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figure = r"\d\.\de[+-]\d\d"
    for quantity in QUANTITIES.values():
        last = figure if quantity.part in ("forward", "loss") else "-"
        line = rf"^{quantity.title} +{figure} +{figure} +{last} +{figure} +\S+ *$"
        assert len(re.findall(line, done.stdout, re.M)) == len(PRECISIONS), quantity.title
    assert f"The backends agree in all {len(TOLERANCES)} rows" in done.stdout
