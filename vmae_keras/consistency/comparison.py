"""Pairwise comparison of the workers' results: differences, where they are largest, and tolerances."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from safetensors import safe_open

from vmae_keras.consistency.setup import PRECISIONS

Pair = tuple[str, str]


class Result:
    """The result file of one backend's worker."""

    def __init__(self, path: Path) -> None:
        self.file = safe_open(path, "numpy")
        self.names = list(self.file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        return self.file.get_tensor(name).astype(np.float64)

    def parts(self, prefix: str) -> list[str]:
        """Return the rest of each name that starts with the prefix."""
        return [name.removeprefix(prefix) for name in self.names if name.startswith(prefix)]

    def about(self) -> str:
        """Return the backend's version and device, formatted for display."""
        return "{version} on {device}".format(**self.file.metadata())


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference between two backends.

    Args:
        value: Size of the difference.
        weight: Weight where it is largest.
        share: Share of the weights' entries that were compared.
    """

    value: float
    weight: str = ""
    share: float = 1.0


def _single(one: Result, other: Result, name: str) -> Difference:
    a, b = one[name], other[name]
    return Difference(_ratio(_largest(a - b), _largest(a)))


def _gradient(one: Result, other: Result, name: str) -> Difference:
    return _worst(
        Difference(_ratio(_largest(a - b), _largest(a)), weight)
        for weight, a, b in _weights(one, other, name)
    )


def _update(one: Result, other: Result, name: str) -> Difference:
    """Measure the difference over all entries of all weights; name the weight that adds most to it."""
    squares, scale = [], 0.0
    for weight, a, b in _weights(one, other, name):
        squares.append(Difference(float(np.sum(np.square(a - b))), weight))
        scale += float(np.sum(np.square(a)))
    total = sum(square.value for square in squares)
    return Difference(math.sqrt(_ratio(total, scale)), _worst(squares).weight)


def _largest_update(one: Result, other: Result, name: str, clear: float = 0.0) -> Difference:
    """Measure the largest difference among entries with a clear gradient.

    An entry counts if its first gradient is at least `clear` times the largest of its weight.
    """
    found, scales, compared, entries = [], [], 0, 0
    for weight, a, b in _weights(one, other, name):
        slopes = np.abs(one[f"{name.removesuffix('update')}gradient/{weight}"])
        chosen = slopes >= clear * slopes.max()
        found.append(Difference(_largest((a - b)[chosen]), weight))
        scales.append(_largest(a))
        compared, entries = compared + int(np.count_nonzero(chosen)), entries + a.size
    worst = _worst(found)
    return Difference(_ratio(worst.value, np.max(scales)), worst.weight, compared / entries)


def _clear_update(one: Result, other: Result, name: str) -> Difference:
    return _largest_update(one, other, name, CLEAR[name.split("/")[0]])


# A gradient's entry is clear if it is at least this share of the largest entry of its weight. Rounding
# errors are 1.5e-6 (float32) and 2.5e-2 (bfloat16) of the largest entry. So they change a clear entry, and
# thus Adam's update, by at most 5e-5 and 8e-2 of its value.
CLEAR = {"float32": 0.03, "mixed_bfloat16": 0.3}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A quantity that is compared between backends.

    Args:
        part: Name of the quantity in a result file.
        measure: Function of two results and the part's full name that returns their `Difference`.
        title: Name for display.
        of: Quantity that a difference is a share of, for display.
        reason: Cause of differences, for display.
    """

    part: str
    measure: Callable[[Result, Result, str], Difference]
    title: str
    of: str
    reason: str


QUANTITIES = {
    "forward": Quantity(
        "forward",
        _single,
        "forward",
        "the largest prediction",
        "rounding, because sums are computed in another order",
    ),
    "loss": Quantity("loss", _single, "loss", "the loss", "rounding"),
    "gradient": Quantity(
        "gradient",
        _gradient,
        "gradient",
        "the largest of the same weight",
        "rounding; on CPUs TensorFlow sums gradients of biases in bfloat16",
    ),
    "update": Quantity(
        "update",
        _update,
        "weights, all",
        "their updates, root mean squares",
        "AdamW magnifies rounding where a gradient is near 0",
    ),
    "clear_update": Quantity(
        "update",
        _clear_update,
        "weights, clear gradients",
        "the largest update",
        "weights are float32: near 1 they change in steps of 1.2e-7",
    ),
    "worst_update": Quantity(
        "update",
        _largest_update,
        "weights, worst",
        "the largest update",
        "no tolerance: near 0, rounding decides a gradient's sign",
    ),
}


# Largest allowed differences, about ten times the measured ones (spec/tolerances.toml).
TOLERANCES = {
    "forward.float32": 8e-6,
    "loss.float32": 1.9e-6,
    "gradient.float32": 1.3e-5,
    "update.float32": 4e-4,
    "clear_update.float32": 5e-4,
    "forward.mixed_bfloat16": 0.2,
    "loss.mixed_bfloat16": 2e-2,
    "gradient.mixed_bfloat16": 0.3,
    "update.mixed_bfloat16": 0.5,
    "clear_update.mixed_bfloat16": 0.4,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity in one precision, compared between every two backends that compute it."""

    quantity: Quantity
    precision: str
    differences: dict[Pair, Difference]
    tolerance: float | None

    @property
    def worst(self) -> tuple[Pair, Difference]:
        """Return the pair with the largest difference, and that difference."""
        return max(self.differences.items(), key=lambda item: _rank(item[1]))

    @property
    def passes(self) -> bool:
        """Return whether all differences are within the tolerance, if there is one. NaN never is."""
        return self.tolerance is None or all(
            difference.value <= self.tolerance for difference in self.differences.values()
        )


def compare(results: dict[str, Result]) -> list[Row]:
    """Return a row for each precision and quantity that at least two results have."""
    rows = []
    for precision, (name, quantity) in itertools.product(PRECISIONS, QUANTITIES.items()):
        place = f"{precision}/{quantity.part}"
        having = [backend for backend, result in results.items() if result.parts(place)]
        with np.errstate(invalid="ignore"):  # non-finite values become NaN, which does not pass
            differences = {
                (one, other): quantity.measure(results[one], results[other], place)
                for one, other in itertools.combinations(having, 2)
            }
        if differences:
            tolerance = TOLERANCES.get(f"{name}.{precision}")
            rows.append(Row(quantity, precision, differences, tolerance))
    return rows


def _weights(one: Result, other: Result, name: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each weight's name and its arrays in both results."""
    for weight in one.parts(f"{name}/"):
        yield weight, one[f"{name}/{weight}"], other[f"{name}/{weight}"]


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0.0))


def _ratio(difference: float, scale: float) -> float:
    """Return difference / scale; 0 for equal values, even if the scale is 0."""
    if difference == 0.0:
        return 0.0
    return difference / scale if scale else math.inf


def _rank(difference: Difference) -> float:
    """Return a sort key that makes NaN worse than any number."""
    return math.inf if math.isnan(difference.value) else difference.value


def _worst(differences: Iterable[Difference]) -> Difference:
    return max(differences, key=_rank)
