"""The tolerances in `tolerances.toml`, each about ten times the measured noise."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """The largest error of a float32 implementation relative to the float64 oracle that passes.

    Args:
        value: Largest error that passes.
        of: Quantity that the error is relative to.
        measured: Noise that was measured.
        where: Implementation and computation on which it was measured.
        why: Reason if the value is more than `MOST` times the noise.
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
