"""What the workers found, compared pair by pair: how far apart, in which weight, how far they may be."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import safe_open

from vmae_keras.consistency.setup import PRECISIONS

Pair = tuple[str, str]


class Result:
    """The file that one backend's worker wrote."""

    def __init__(self, path: Path):
        self.file = safe_open(path, "numpy")
        self.names = list(self.file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        return self.file.get_tensor(name).astype(np.float64)

    def parts(self, prefix: str) -> list[str]:
        """What follows the prefix in the names that begin with it."""
        return [name.removeprefix(prefix) for name in self.names if name.startswith(prefix)]

    def about(self) -> str:
        """The backend's version and device, for people."""
        return "{version} on {device}".format(**self.file.metadata())


@dataclasses.dataclass(frozen=True)
class Difference:
    """Between two backends: its size, the weight where it is largest, the share of entries compared."""

    value: float
    weight: str = ""
    share: float = 1.0


def _single(one, other, name):
    a, b = one[name], other[name]
    return Difference(_ratio(_largest(a - b), _largest(a)))


def _gradient(one, other, name):
    return _worst(
        Difference(_ratio(_largest(a - b), _largest(a)), weight)
        for weight, a, b in _weights(one, other, name)
    )


def _update(one, other, name):
    """Over all entries of all weights; names the weight that adds most."""
    squares, scale = [], 0.0
    for weight, a, b in _weights(one, other, name):
        squares.append(Difference(float(np.sum(np.square(a - b))), weight))
        scale += float(np.sum(np.square(a)))
    total = sum(square.value for square in squares)
    return Difference(math.sqrt(_ratio(total, scale)), _worst(squares).weight)


def _largest_update(one, other, name, clear=0.0):
    """Among entries whose first gradient is at least `clear` of the largest of their weight."""
    found, scales, compared, entries = [], [], 0, 0
    for weight, a, b in _weights(one, other, name):
        slopes = np.abs(one[f"{name.removesuffix('update')}gradient/{weight}"])
        chosen = slopes >= clear * slopes.max()
        found.append(Difference(_largest((a - b)[chosen]), weight))
        scales.append(_largest(a))
        compared, entries = compared + np.count_nonzero(chosen), entries + a.size
    worst = _worst(found)
    return Difference(_ratio(worst.value, np.max(scales)), worst.weight, compared / entries)


def _clear_update(one, other, name):
    return _largest_update(one, other, name, CLEAR[name.split("/")[0]])


# An entry of a gradient is clear from this share of its weight's largest on. Rounding, which is 1.5e-6 and
# 2.5e-2 of the largest, then moves it by no more than 5e-5 and 8e-2 of itself, and Adam's update likewise.
CLEAR = {"float32": 0.03, "mixed_bfloat16": 0.3}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What is compared.

    Args:
        part: where a result has it.
        measure: two results and the part's full name -> their `Difference`.
        title, of, reason: for people: what a difference is a share of, and where it comes from.
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
        "sums are rounded in another order",
    ),
    "loss": Quantity("loss", _single, "loss", "the loss", "likewise"),
    "gradient": Quantity(
        "gradient",
        _gradient,
        "gradient",
        "the largest of the same weight",
        "likewise; on CPUs TensorFlow sums those of biases in bfloat16",
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
        "weights are float32: near 1 they move in steps of 1.2e-7",
    ),
    "worst_update": Quantity(
        "update",
        _largest_update,
        "weights, worst",
        "the largest update",
        "not judged: near 0, rounding decides a gradient's sign",
    ),
}


# How far two backends may be apart, about ten times what was measured (spec/tolerances.toml).
TOLERANCES = {
    "forward.float32": 8e-6,
    "loss.float32": 2.4e-6,
    "gradient.float32": 1.3e-5,
    "update.float32": 4e-4,
    "clear_update.float32": 5e-4,
    "forward.mixed_bfloat16": 0.2,
    "loss.mixed_bfloat16": 2e-2,
    "gradient.mixed_bfloat16": 0.25,
    "update.mixed_bfloat16": 0.5,
    "clear_update.mixed_bfloat16": 0.4,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity in one precision, between every two backends that have it."""

    quantity: Quantity
    precision: str
    differences: dict[Pair, Difference]
    tolerance: float | None

    @property
    def worst(self) -> tuple[Pair, Difference]:
        """The pair that is furthest apart."""
        return max(self.differences.items(), key=lambda item: _rank(item[1]))

    @property
    def passes(self) -> bool:
        """Whether all are within the tolerance, if there is one; NaN is not."""
        return self.tolerance is None or all(
            difference.value <= self.tolerance for difference in self.differences.values()
        )


def compare(results: dict[str, Result]) -> list[Row]:
    """Every quantity that at least two results have, by precision."""
    rows = []
    for precision, (name, quantity) in itertools.product(PRECISIONS, QUANTITIES.items()):
        place = f"{precision}/{quantity.part}"
        having = [backend for backend, result in results.items() if result.parts(place)]
        with np.errstate(invalid="ignore"):  # what is not finite becomes NaN, which does not pass
            differences = {
                (one, other): quantity.measure(results[one], results[other], place)
                for one, other in itertools.combinations(having, 2)
            }
        if differences:
            tolerance = TOLERANCES.get(f"{name}.{precision}")
            rows.append(Row(quantity, precision, differences, tolerance))
    return rows


def _weights(one, other, name):
    """(weight, its array in one, in the other)"""
    for weight in one.parts(f"{name}/"):
        yield weight, one[f"{name}/{weight}"], other[f"{name}/{weight}"]


def _largest(array):
    return float(np.abs(array).max(initial=0.0))


def _ratio(difference, scale):
    """difference / scale, where equal things differ by 0 whatever the scale."""
    if difference == 0.0:
        return 0.0
    return difference / scale if scale else math.inf


def _rank(difference):
    """So that NaN is worse than any number."""
    return math.inf if math.isnan(difference.value) else difference.value


def _worst(differences):
    return max(differences, key=_rank)
