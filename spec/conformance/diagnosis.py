"""The search for the fewest known deviations that explain an implementation's answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from spec.conformance.cases import Case
from spec.conformance.deviations import Deviation, applied
from spec.conformance.observations import LOSS, Quantity, difference


@dataclasses.dataclass(frozen=True, eq=False)
class Observation:
    """An implementation's answer, with the tolerance of its comparison with the oracle's."""

    quantity: Quantity
    case: Case
    answer: Any
    tolerance: float
    _errors: dict[frozenset[Deviation], float] = dataclasses.field(default_factory=dict)

    def error(self, deviations: Sequence[Deviation] = ()) -> float:
        """Return the error against an oracle with these deviations, cached for the search."""
        key = frozenset(deviations)
        if key not in self._errors:
            with applied(deviations):
                expected = self.quantity.oracle(self.case)
            self._errors[key] = difference(self.quantity, self.answer, expected).error
        return self._errors[key]

    def explained(self, deviations: Sequence[Deviation]) -> bool:
        return self.error(deviations) <= self.tolerance

    def __str__(self) -> str:
        return f"{self.quantity.name} of {self.case.name}"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The deviations that explain the observations.

    Args:
        deviations: Deviations from the specification.
        unexplained: Observations that still differ from an oracle with these deviations.
        agreement: Largest error of the other observations against that oracle, by quantity.
    """

    deviations: tuple[Deviation, ...]
    unexplained: tuple[Observation, ...]
    agreement: dict[str, float]

    def causes(self, observation: Observation) -> list[Deviation]:
        """Return the deviations that are necessary to explain an observation."""
        if observation in self.unexplained:
            return []
        return [
            each
            for each in self.deviations
            if not observation.explained([other for other in self.deviations if other is not each])
        ]


def diagnose(observations: Sequence[Observation], known: Sequence[Deviation]) -> Diagnosis:
    """Explain the failing observations, the smallest first.

    Losses come last, once all else is explained: a wrong explanation may match a single number by chance.
    """
    passing = [each for each in observations if each.explained(())]
    failing = [each for each in observations if each not in passing]
    failing.sort(key=lambda each: np.size(each.answer))
    losses = [each for each in failing if each.quantity is LOSS]
    others = [each for each in failing if each.quantity is not LOSS]
    chosen, explained = _explain(others, [], passing, known)
    if len(explained) == len(others):
        chosen, _ = _explain(losses, chosen, [*passing, *others], known)
    chosen = sorted(_without_needless(failing, chosen), key=known.index)
    errors = {each: each.error(chosen) for each in observations}
    agreement: dict[str, float] = {}
    for each, error in errors.items():
        if error <= each.tolerance:
            name = each.quantity.name
            agreement[name] = max(error, agreement.get(name, 0.0))
    unexplained = tuple(each for each, error in errors.items() if error > each.tolerance)
    return Diagnosis(tuple(chosen), unexplained, agreement)


def _explain(
    failing: Sequence[Observation],
    chosen: list[Deviation],
    passing: Sequence[Observation],
    known: Sequence[Deviation],
) -> tuple[list[Deviation], list[Observation]]:
    """Return deviations that explain as many observations as possible, and the explained ones.

    Observations in `passing` must still pass.
    """
    explained: list[Observation] = []
    while True:
        before = len(explained)
        for each in failing:
            if each not in explained:
                found = _search([*explained, each], chosen, known)
                if all(other.explained(found) for other in (*explained, each, *passing)):
                    chosen = found
                    explained.append(each)
        if len(explained) == before:
            return chosen, explained


def _search(
    observations: Sequence[Observation], chosen: list[Deviation], known: Sequence[Deviation]
) -> list[Deviation]:
    """Add or exchange the deviation that brings the oracle closest, until none improves it."""
    distance = _distance(observations, chosen)
    while not all(each.explained(chosen) for each in observations):
        candidates = [
            [*(other for other in chosen if not each.excludes(other)), each] for each in known
        ]
        distances = [_distance(observations, candidate) for candidate in candidates]
        best = int(np.argmin(distances))
        if distances[best] > 0.99 * distance:
            break
        chosen, distance = candidates[best], distances[best]
    return chosen


def _distance(observations: Sequence[Observation], deviations: Sequence[Deviation]) -> float:
    """Return the summed logarithms of the errors, so that a small deviation shows beside a large one."""
    return sum(
        math.log1p(min(each.error(deviations) / each.tolerance, 1e30)) for each in observations
    )


def _without_needless(
    observations: Sequence[Observation], chosen: list[Deviation]
) -> list[Deviation]:
    """Drop every deviation that is not needed to explain as much."""

    def explained(deviations: Sequence[Deviation]) -> set[Observation]:
        return {each for each in observations if each.explained(deviations)}

    for each in list(chosen):
        fewer = [other for other in chosen if other is not each]
        if explained(fewer) >= explained(chosen):
            chosen = fewer
    return chosen
