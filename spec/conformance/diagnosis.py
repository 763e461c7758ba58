"""Finds the fewest known deviations that explain what an implementation answered."""

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
    """An answer of an implementation, and how far it may be from the oracle's."""

    quantity: Quantity
    case: Case
    answer: Any
    tolerance: float
    _errors: dict[frozenset[Deviation], float] = dataclasses.field(default_factory=dict)

    def error(self, deviations: Sequence[Deviation] = ()) -> float:
        """From an oracle that deviates; kept, as the search comes back to it."""
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
    """The result of a diagnosis.

    Args:
        deviations: from the specification.
        unexplained: what still differs once they are accounted for.
        agreement: the largest error of all else once they are accounted for, by quantity.
    """

    deviations: tuple[Deviation, ...]
    unexplained: tuple[Observation, ...]
    agreement: dict[str, float]

    def causes(self, observation: Observation) -> list[Deviation]:
        """The deviations without which an observation that they explain is unexplained."""
        if observation in self.unexplained:
            return []
        return [
            each
            for each in self.deviations
            if not observation.explained([other for other in self.deviations if other is not each])
        ]


def diagnose(observations: Sequence[Observation], known: Sequence[Deviation]) -> Diagnosis:
    """Looks first at what is quickest to compute, and at losses only once all else is explained.

    A loss is a single number, which a wrong explanation may well hit.
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
    """-> deviations that explain as many as possible, and those; what passed must go on to do so."""
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
    """Adds, or puts in another's place, the deviation that brings the oracle nearest, while one does."""
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
    """Orders of magnitude count, so that a small deviation is seen beside a large one."""
    return sum(
        math.log1p(min(each.error(deviations) / each.tolerance, 1e30)) for each in observations
    )


def _without_needless(
    observations: Sequence[Observation], chosen: list[Deviation]
) -> list[Deviation]:
    """Drops every deviation without which as much is explained."""

    def explained(deviations: Sequence[Deviation]) -> set[Observation]:
        return {each for each in observations if each.explained(deviations)}

    for each in list(chosen):
        fewer = [other for other in chosen if other is not each]
        if explained(fewer) >= explained(chosen):
            chosen = fewer
    return chosen
