"""How an artifact's numbers differ from its model's."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vmae_keras.export.contract import ArtifactError

# Largest difference allowed, as a share of the largest output, by quantization. In float32 1e-6 was seen,
# in fp16 1e-3, in both kinds of int8 .01 to .02 with random weights.
TOLERANCES = {None: 1e-4, "fp16": 1e-2, "int8-dynamic": 0.1, "int8": 0.1}
_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """What was found on one kind of clips. Differences are shares of the largest output.

    `agreement` is the share of clips with the same most probable class; None without classes.
    """

    clips: str
    count: int
    largest: float
    mean: float
    agreement: float | None

    @property
    def figures(self) -> tuple[str, str, str]:
        """The differences and the agreement, for people."""
        same = "" if self.agreement is None else f"{100 * self.agreement:.0f} %"
        return f"{self.largest:.1e}", f"{self.mean:.1e}", same


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An artifact beside its model.

    Args:
        rows: on clips of each kind.
        tolerance: the largest difference allowed.
        bytes, model_bytes: of the artifact's files, and of the model's weights in float32.
        latency, model_latency: seconds for a single batch of `clips_timed` clips.
        backend: what the model was computed with.
    """

    rows: tuple[Row, ...]
    tolerance: float
    bytes: int
    model_bytes: int
    latency: float
    model_latency: float
    clips_timed: int
    backend: str

    @property
    def largest(self) -> float:
        return max(row.largest for row in self.rows)

    @property
    def passes(self) -> bool:
        return self.largest <= self.tolerance

    def save(self, path: Path):
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", "utf-8")


class InexactArtifact(ArtifactError):
    """An artifact does not compute what its model does; `comparison` says by how much."""

    def __init__(self, message: str, comparison: Comparison):
        super().__init__(message)
        self.comparison = comparison


def compared(clips: str, found: np.ndarray, wanted: np.ndarray, classes: bool) -> Row:
    """(n, ...) of the artifact and of the model -> how they differ. Not a number counts as infinite."""
    differences = np.nan_to_num(np.abs(found - wanted), nan=np.inf) / (np.abs(wanted).max() or 1)
    agreement = (found.argmax(-1) == wanted.argmax(-1)).mean() if classes else None
    return Row(
        clips,
        len(wanted),
        float(differences.max()),
        float(differences.mean()),
        None if agreement is None else float(agreement),
    )


def latencies(*ways: Callable[[], object]) -> list[float]:
    """Seconds that each takes, in turns: the best of three after a first one."""
    taken = [[] for _ in ways]
    for _ in range(_ROUNDS + 1):
        for way, seconds in zip(ways, taken, strict=True):
            began = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - began)
    return [min(seconds[1:]) for seconds in taken]


def first_deviating(
    found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float
) -> tuple[str, float] | None:
    """The first of the stages whose output differs by more than the tolerance, and by how much.

    Args:
        wanted: outputs by stage, in the order in which a clip passes them.
    """
    for name, output in wanted.items():
        difference = compared(name, found[name], output, False).largest
        if difference > tolerance:
            return name, difference
    return None
