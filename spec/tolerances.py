"""The tolerances of `tolerances.toml`: about ten times the noise that was measured."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """The largest allowed distance of a float32 implementation from the float64 oracle.

    Args:
        value: the largest error that passes.
        of: what the error is relative to.
        measured: the noise that was seen.
        where: on which implementation, for what.
        why: the value is more than `MOST` times the noise.
    """

    value: float
    of: str
    measured: float
    where: str
    why: str = ""


MOST = 15
PATH = Path(__file__).with_name("tolerances.toml")

TOLERANCES = {
    name: Tolerance(**entry) for name, entry in tomllib.loads(PATH.read_text("utf-8")).items()
}
