"""The quantities of an implementation and of the oracle, and the difference between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from spec import gradient_reference, reference, training_reference
from spec.conformance.adapter import Adapter, Classifier, Model
from spec.conformance.cases import Case

# Three steps of AdamW at different rates. Decay and epsilon are large enough to show every detail of
# OPT-2 and OPT-5. With the usual epsilon, Adam would turn rounding of vanishing gradients into whole steps.
RATES = (0.01, 0.02, 0.015)
ADAMW = {"weight_decay": 0.5, "beta_1": 0.9, "beta_2": 0.95, "epsilon": 0.1}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """An array, or several by name, that an implementation and the oracle both compute.

    Args:
        name: Name of the quantity and of its tolerance.
        ask: Function (model, case) -> the implementation's answer.
        oracle: Function case -> the oracle's answer in float64.
        relative_to: Scale of the error: the largest value of "all" arrays or of "each", or "nothing".
        trains: True if asking changes the model's weights.
    """

    name: str
    ask: Callable[[Any, Case], Any]
    oracle: Callable[[Case], Any]
    relative_to: str = "all"
    trains: bool = False


def _batches(case: Case) -> list[dict[str, np.ndarray]]:
    """Return a batch with different pixels for each step."""
    video = case.batch["video"]
    return [{**case.batch, "video": np.roll(video, i, axis=2)} for i in range(len(RATES))]


def _updates(case: Case, after: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: after[name] - before.astype(float) for name, before in case.weights.items()}


PREDICTION = Quantity(
    "prediction",
    lambda model, case: model.forward(case.batch),
    lambda case: reference.forward(case.config, case.weights, case.batch),
)
TARGET = Quantity(
    "target",
    lambda model, case: model.target(case.batch),
    lambda case: reference.target(case.config, case.batch["video"], case.batch["decoded"]),
    relative_to="nothing",
)
LOSS = Quantity(
    "loss",
    lambda model, case: model.loss(case.batch),
    lambda case: reference.pretraining_loss(case.config, case.weights, case.batch),
)
GRADIENT = Quantity(
    "gradient",
    lambda model, case: model.gradients(case.batch),
    lambda case: gradient_reference.pretraining_gradients(case.config, case.weights, case.batch)[1],
    relative_to="each",
)
THREE_STEPS = Quantity(
    "three_adamw_steps",
    lambda model, case: _updates(case, model.train(_batches(case), RATES, **ADAMW)),
    lambda case: _updates(
        case,
        training_reference.adamw_steps(case.config, case.weights, _batches(case), RATES, **ADAMW),
    ),
    trains=True,
)
LOGITS = Quantity(
    "logits",
    lambda model, case: model.classify(case.batch["video"]),
    lambda case: reference.classify(
        case.config, case.weights, case.batch["video"], pooling=case.pooling
    ),
)


class Subject:
    """The implementation behind an adapter. Its answers are cached and shared by the checks."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self._models: dict[tuple, Model | Classifier] = {}
        self._loaded: dict[tuple, Case] = {}
        self._answers: dict[tuple, Any] = {}

    def model(self, case: Case) -> Any:
        """Return the case's model with the case's weights."""
        if case.model not in self._models:
            self._models[case.model] = case.build(self.adapter)
        model = self._models[case.model]
        if self._loaded.get(case.model) is not case:
            model.load(case.weights)
            self._loaded[case.model] = case
        return model

    def answer(self, quantity: Quantity, case: Case) -> Any:
        """Return the implementation's answer."""
        key = (quantity.name, case)
        if key not in self._answers:
            self._answers[key] = quantity.ask(self.model(case), case)
            if quantity.trains:
                del self._loaded[case.model]
        return self._answers[key]


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest error and a description of it."""

    error: float
    text: str


def difference(quantity: Quantity, got: Any, expected: Any) -> Difference:
    """Compare an answer with the oracle's. A wrong shape or non-finite values give an infinite error."""
    got, expected = _by_name(got), _by_name(expected)
    if got.keys() != expected.keys():
        return Difference(np.inf, f"expected {sorted(expected)}, got {sorted(got)}")
    largest = max(np.abs(value).max() for value in expected.values())
    worst = Difference(-1.0, "")
    for name, value in expected.items():
        where = f"{name} " if name else ""
        if got[name].shape != value.shape:
            text = f"{where}expected the shape {value.shape}, got {got[name].shape}"
            return Difference(np.inf, text)
        if not np.isfinite(got[name]).all():
            return Difference(np.inf, f"{where}is not finite")
        scale = {"all": largest, "each": np.abs(value).max(), "nothing": 1.0}[quantity.relative_to]
        errors = np.abs(got[name] - value) / scale
        index = np.unravel_index(errors.argmax(), errors.shape)
        if errors[index] > worst.error:
            place = f"{where}{list(map(int, index))}" if index else where.rstrip()
            text = f"{place}: expected {value[index]:.7g}, got {got[name][index]:.7g}".lstrip(": ")
            worst = Difference(float(errors[index]), text)
    return worst


def _by_name(values: Any) -> dict[str, np.ndarray]:
    values = values if isinstance(values, Mapping) else {"": values}
    return {name: np.asarray(value, np.float64) for name, value in values.items()}
