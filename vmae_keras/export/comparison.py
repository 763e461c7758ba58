"""Comparison of an artifact's outputs with its model's."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vmae_keras.export.contract import ArtifactError

# Largest allowed difference, as a share of the largest output, by quantization. With random weights, the
# measured differences were 1e-6 in float32, 1e-3 in fp16, and .01 to .02 in both kinds of int8.
TOLERANCES = {None: 1e-4, "fp16": 1e-2, "int8-dynamic": 0.1, "int8": 0.1}
_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """The comparison on one kind of clips.

    Args:
        clips: Description of the clips.
        count: Number of clips.
        largest, mean: Largest and mean difference, as shares of the largest output.
        agreement: Share of clips with the same most probable class; None without classes.
    """

    clips: str
    count: int
    largest: float
    mean: float
    agreement: float | None

    @property
    def figures(self) -> tuple[str, str, str]:
        """Return the differences and the agreement, formatted for display."""
        same = "" if self.agreement is None else f"{100 * self.agreement:.0f} %"
        return f"{self.largest:.1e}", f"{self.mean:.1e}", same


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of an artifact with its model.

    Args:
        rows: Comparison on each kind of clips.
        tolerance: Largest allowed difference.
        bytes, model_bytes: Size of the artifact's files, and of the model's weights in float32.
        latency, model_latency: Seconds for a single batch of `clips_timed` clips.
        clips_timed: Number of clips in the timed batch.
        backend: Keras backend that computed the model.
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

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", "utf-8")


class InexactArtifact(ArtifactError):
    """An artifact does not compute what its model computes; `comparison` holds the differences."""

    def __init__(self, message: str, comparison: Comparison) -> None:
        super().__init__(message)
        self.comparison = comparison


def compared(clips: str, found: np.ndarray, wanted: np.ndarray, classes: bool) -> Row:
    """Compare (n, ...) outputs of the artifact with those of the model. NaN counts as infinite."""
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
    """Return the seconds that each function takes: the best of three rounds after a warm-up.

    The functions take turns.
    """
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(_ROUNDS + 1):
        for way, seconds in zip(ways, taken, strict=True):
            began = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - began)
    return [min(seconds[1:]) for seconds in taken]


def first_deviating(
    found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float
) -> tuple[str, float] | None:
    """Return the first stage whose output differs by more than the tolerance, and the difference.

    Args:
        found: Outputs of the artifact by stage.
        wanted: Outputs of the model by stage, in the order in which the stages run.
        tolerance: Largest allowed difference, as a share of the stage's largest output.
    """
    for name, output in wanted.items():
        difference = compared(name, found[name], output, False).largest
        if difference > tolerance:
            return name, difference
    return None
