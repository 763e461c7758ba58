"""Known deviations of implementations in this field, each a patch of the oracle.

A deviation replaces one of the oracle's functions with a variant.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

from spec import reference


@dataclasses.dataclass(frozen=True, eq=False)
class Deviation:
    """A departure from a clause.

    Args:
        clause: Id of the clause.
        text: What is done instead.
        function: Name of the oracle's function.
        patch: Function that turns the original function into the deviating one.
        site: Deviations of the same site exclude each other.
        module: Module of the oracle's function.
    """

    clause: str
    text: str
    function: str
    patch: Callable[[Callable], Callable]
    site: str = ""
    module: ModuleType = reference

    def excludes(self, other: Deviation) -> bool:
        return self is other or (self.site != "" and self.site == other.site)

    def __str__(self) -> str:
        return f"{self.text} ({self.clause})"


@contextlib.contextmanager
def applied(deviations: Iterable[Deviation]) -> Iterator[None]:
    """Patch the oracle within the context."""
    with contextlib.ExitStack() as originals:
        for each in deviations:
            original = getattr(each.module, each.function)
            originals.callback(setattr, each.module, each.function, original)
            setattr(each.module, each.function, each.patch(original))
        yield


def configured(function: str, clause: str, text: str, **fields) -> Deviation:
    """Build a deviation in which a function receives a changed configuration."""

    def patch(original: Callable) -> Callable:
        return lambda config, *rest, **named: original(
            dataclasses.replace(config, **{k: v(config) for k, v in fields.items()}), *rest, **named
        )

    return Deviation(clause, text, function, patch, site=function)
