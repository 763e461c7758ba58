"""The results of the checks on an implementation: passes, deviations with their causes, known gaps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from spec.conformance.adapter import Adapter, NotOffered
from spec.conformance.cases import Case
from spec.conformance.check import Check
from spec.conformance.checks import CHECKS
from spec.conformance.diagnosis import Diagnosis, Observation, diagnose
from spec.conformance.input_deviations import INPUT
from spec.conformance.model_deviations import BLOCKS, LAYER_NORM, OUTPUT
from spec.conformance.observations import GRADIENT, THREE_STEPS, Subject
from spec.conformance.training_deviations import OPTIMISER, TARGET_AND_LOSS

FORWARD = [*LAYER_NORM, *INPUT, *BLOCKS, *OUTPUT, *TARGET_AND_LOSS]


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of one check on one case.

    Its state is "pass", "deviates" or "gap". The latter two have a note.
    """

    check: Check
    case: Case
    clauses: tuple[str, ...]
    state: str
    measured: float = math.nan
    tolerance: float = math.nan
    note: str = ""

    def record(self) -> dict:
        """Return plain values for JSON."""
        return {
            "clauses": list(self.clauses),
            "layer": self.check.layer,
            "check": f"{self.check.name}: {self.case.name}",
            "state": self.state,
            "measured": self.measured if math.isfinite(self.measured) else None,
            "tolerance": self.tolerance if math.isfinite(self.tolerance) else None,
            "note": self.note,
        }


@dataclasses.dataclass(frozen=True)
class Report:
    """The results of an implementation in the order of the checks, and the diagnosis of deviations."""

    results: list[Result]
    diagnosis: Diagnosis

    @property
    def passed(self) -> bool:
        """True if no result deviates. A known gap is not a failure."""
        return all(result.state != "deviates" for result in self.results)


def run(
    adapter: Adapter,
    checks: Sequence[Check] = CHECKS,
    progress: Callable[[Check], None] = lambda check: None,
) -> Report:
    """Run every check on every case, and search for deviations that explain the failures."""
    subject = Subject(adapter)
    results = []
    for check in checks:
        progress(check)
        results += [examine(subject, check, case) for case in check.cases]
    observations = {
        index: Observation(check.quantity, case, subject.answer(check.quantity, case), limit)
        for index, (check, case, limit) in enumerate(
            (result.check, result.case, result.tolerance) for result in results
        )
        if check.quantity and math.isfinite(limit)
    }
    diagnosis = _diagnose(list(observations.values()))
    for index, observation in observations.items():
        if results[index].state == "deviates" and (causes := diagnosis.causes(observation)):
            note = f"explained by {'; '.join(map(str, causes))}"
            results[index] = dataclasses.replace(results[index], note=note)
    return Report(results, diagnosis)


def examine(subject: Subject, check: Check, case: Case) -> Result:
    """Run one check on one case. An exception from the implementation counts as a deviation."""
    clauses = tuple(dict.fromkeys((*check.clauses, *case.clauses)))
    known = subject.adapter.gaps
    needs = dict.fromkeys((*check.needs, *case.clauses))
    if gaps := tuple(clause for clause in needs if clause in known):
        note = "; ".join(dict.fromkeys(known[clause] for clause in gaps))
        return Result(check, case, gaps, "gap", note=note)
    try:
        finding = check.examine(subject, case)
    except NotOffered as missing:
        return Result(check, case, clauses, "gap", note=f"the adapter offers no `{missing}`")
    except Exception as error:
        return Result(check, case, clauses, "deviates", note=f"{type(error).__name__}: {error}")
    state, note = ("pass", "") if finding.passed else ("deviates", finding.text)
    return Result(check, case, clauses, state, finding.measured, finding.tolerance, note)


def _diagnose(observations: list[Observation]) -> Diagnosis:
    """Diagnose the forward pass or, if it and the gradients are correct, the optimiser."""
    forward = [each for each in observations if each.quantity not in (GRADIENT, THREE_STEPS)]
    backward = [each for each in observations if each.quantity is GRADIENT]
    if all(each.explained(()) for each in (*forward, *backward)):
        return diagnose(observations, OPTIMISER)
    return diagnose(forward, FORWARD)
