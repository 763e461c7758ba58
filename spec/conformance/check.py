"""A check and its finding, as types; `checks` defines the checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from spec.conformance.cases import Case
from spec.conformance.observations import Quantity, Subject


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of a check: its measured error, the tolerance, and the expected and actual values."""

    measured: float
    tolerance: float
    text: str

    @property
    def passed(self) -> bool:
        return self.measured <= self.tolerance


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Check:
    """A statement about an implementation, examined on each of its cases.

    Args:
        layer: Layer of the check.
        name: Name of the check.
        clauses: Clauses that it checks.
        cases: Cases on which it runs.
        examine: Function that runs it.
        needs: Clauses that the implementation must have for the check to run.
        quantity: Quantity that is compared with the oracle, if any.
        tolerance: Name of the tolerance of that comparison.
    """

    layer: str
    name: str
    clauses: tuple[str, ...]
    cases: tuple[Case, ...]
    examine: Callable[[Subject, Case], Finding]
    needs: tuple[str, ...] = ()
    quantity: Quantity | None = None
    tolerance: str = ""

    def __repr__(self) -> str:
        return self.name
