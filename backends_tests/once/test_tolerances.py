"""Tests of the table of tolerances, its use in tests, and the command that measures the noise again."""

import ast
import functools
import re
import tokenize
from contextlib import nullcontext

import numpy as np
import pytest

from backends_tests import compare
from backends_tests.support import ROOT
from scripts import tolerances as command
from spec.tolerances import MOST, PATH, TOLERANCES

TESTS = sorted((ROOT / "backends_tests").rglob("*.py"))
# Parameters that take a tolerance's name.
COMPARES = {"assert_close": 2, "assert_within": 1, "record": 0}
# Parameters of NumPy and pytest that limit differences.
KEYWORDS = {"atol", "rtol", "abs", "rel"}
LOGITS = TOLERANCES["logits"].value


@pytest.fixture(autouse=True)
def nothing_is_recorded(monkeypatch):
    """Stop recording, as deliberate errors are not noise."""
    monkeypatch.delenv("VMAE_ERRORS", raising=False)


def constants(path):
    return {node.value for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant)}


@functools.cache
def parsed(path):
    return ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize("name", TOLERANCES)
def test_no_tolerance_is_far_wider_than_the_noise_without_a_reason(name):
    tolerance = TOLERANCES[name]
    times = tolerance.value / tolerance.measured
    assert times >= command.LEAST
    assert (times > MOST) == bool(tolerance.why)


def test_every_tolerance_is_used():
    conformance = (ROOT / "spec" / "conformance").glob("*.py")
    used = set().union(*map(constants, [*TESTS, *conformance]))
    used |= {f"consistency.{name}" for name in command.comparison.TOLERANCES}
    assert TOLERANCES.keys() - used == set()


def test_tests_name_tolerances_that_exist():
    named = [
        (path.name, call.args[COMPARES[call.func.id]])
        for path in TESTS
        for call in ast.walk(parsed(path))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in COMPARES
    ]
    assert [
        (file, argument.value)
        for file, argument in named
        if isinstance(argument, ast.Constant) and argument.value not in TOLERANCES
    ] == []


def widths(path):
    """Return lines with numeric tolerances in a test: keywords, and errors below a small number."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.keyword) and node.arg in KEYWORDS:
            numbers = ast.walk(node.value)
        elif isinstance(node, ast.Compare) and isinstance(node.ops[-1], ast.Lt | ast.LtE):
            numbers = [n for n in ast.walk(node.comparators[-1]) if small(n)]
        else:
            continue
        if any(isinstance(n, ast.Constant) and isinstance(n.value, float) for n in numbers):
            yield node.lineno


def small(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value < 1e-2


def test_a_tolerance_outside_of_the_table_says_why():
    """Require a comment on the line, or above it."""
    silent = []
    for path in TESTS:
        with tokenize.open(path) as file:
            tokens = list(tokenize.generate_tokens(file.readline))
        commented = {t.start[0] for t in tokens if t.type == tokenize.COMMENT}
        silent += [
            f"{path.name}:{line}" for line in widths(path) if not {line, line - 1} & commented
        ]
    assert silent == [], "\n".join(silent)


@pytest.mark.parametrize(
    ("found", "scale", "passes"),
    [
        ([1 + 180 * LOGITS, -200], None, True),
        ([1 + 220 * LOGITS, -200], None, False),
        ([1 + 0.9 * LOGITS, -200], 1, True),
        ([1 + 1.1 * LOGITS, -200], 1, False),
        ([np.nan, -200], None, False),
        ([1.0], None, False),
    ],
)
def test_values_further_apart_than_the_tolerance_are_found(found, scale, passes):
    with nullcontext() if passes else pytest.raises(AssertionError):
        compare.assert_close(found, [1, -200], "logits", scale)


def test_the_message_names_place_and_tolerance():
    found = [1, -200 - 1.1 * TOLERANCES["target"].value]  # not relative to 200
    with pytest.raises(
        AssertionError, match=r"^decoded, at \[1\] -200.* of 1, more than .* \(target\)$"
    ):
        compare.assert_close(found, [1, -200], "target", what="decoded")


def test_the_largest_errors_are_written_beside_the_values(monkeypatch, tmp_path):
    monkeypatch.setenv("VMAE_ERRORS", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for folder, error in (("each_backend", 1e-7), ("each_backend", 3e-7), ("once", 2e-7)):
        monkeypatch.setenv(
            "PYTEST_CURRENT_TEST", f"backends_tests/{folder}/a.py::test[b/c d] (call)"
        )
        compare.record("logits", error)
    found = command.measured(tmp_path)
    assert found == {"logits": (3e-7, "JAX, a.py::test[b/c d]; elsewhere 2.0e-07")}
    before = PATH.read_text("utf-8").splitlines()
    after = command.rewritten(PATH.read_text("utf-8"), found).splitlines()
    changed = [line for line, old in zip(after, before, strict=True) if line != old]
    assert changed == [
        "measured = 3.0e-07",
        'where = "JAX, a.py::test[b/c d]; elsewhere 2.0e-07"',
    ]
    assert re.search(r"\[logits\]\n.*\n.*\nmeasured = 3.0e-07\n", "\n".join(after))
