"""Comparison of values within the tolerances of `spec/tolerances.toml`, with a record of the errors.

`scripts/tolerances.py` sets VMAE_ERRORS to a folder, and writes the errors found there into the table.
"""

import json
import os
from pathlib import Path

import numpy as np

from spec.tolerances import TOLERANCES


def assert_close(found, expected, tolerance, scale=None, what="the values"):
    """Raise if a value differs from the expected one by more than the tolerance.

    Args:
        tolerance: Name in `spec/tolerances.toml`.
        scale: Size that the error is relative to, for all values or for each. By default 1 where the table
            says "1", else the largest expected value.
        what: Name of the compared values, for the message.
    """
    found, expected = (np.asarray(values).astype("float64") for values in (found, expected))
    assert found.shape == expected.shape, f"{what}: {found.shape} is not {expected.shape}"
    if scale is None:
        scale = 1.0 if TOLERANCES[tolerance].of == "1" else np.abs(expected).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.abs(found - expected)
        errors = np.where(apart == 0, 0.0, apart / scale)
    place = np.unravel_index(errors.argmax(), errors.shape)
    assert_within(
        errors[place],
        tolerance,
        f"{what}, at {list(map(int, place))} {found[place]:.7g} instead of {expected[place]:.7g}",
    )


def assert_within(error, tolerance, what):
    """Raise if an error, in the tolerance's unit, is too large; record it."""
    record(tolerance, error)
    limit = TOLERANCES[tolerance]
    assert error <= limit.value, (
        f"{what}: {error:.2g} of {limit.of}, more than {limit.value:.2g} ({tolerance})"
    )


def record(tolerance, error):
    """Append an error to this process's file in the folder of errors, if one is set."""
    if folder := os.environ.get("VMAE_ERRORS"):
        # "backends_tests/each_backend/file.py::test[parameters] (call)"
        test = os.environ["PYTEST_CURRENT_TEST"].rsplit(" ", 1)[0]
        line = {"tolerance": tolerance, "error": float(error), "test": test}
        if "/each_backend/" in test:
            line["backend"] = os.environ["KERAS_BACKEND"]
        with open(Path(folder) / f"{os.getpid()}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
