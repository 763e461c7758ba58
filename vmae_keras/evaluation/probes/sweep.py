"""Result of a probe: its evaluation, and the sweep that chose its learning rate or neighbours."""

import dataclasses
import os
from pathlib import Path

from vmae_keras.evaluation.classification import Evaluation
from vmae_keras.pictures import charts


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep over learning rates or numbers of neighbours, judged on held-out videos.

    Args:
        quantity: Name of the values.
        values: Values that were tried.
        top_1, losses: Top-1 and loss of each value.
    """

    quantity: str
    values: tuple[float, ...]
    top_1: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def best(self) -> int:
        """Return the index of the value with the best top-1; ties go to the lowest loss."""
        return min(range(len(self.values)), key=lambda i: (-self.top_1[i], self.losses[i]))


@dataclasses.dataclass(frozen=True)
class ProbeEvaluation(Evaluation):
    """An `Evaluation` of a probe on the test videos, with the sweep on held-out training videos."""

    sweep: Sweep

    def metrics(self) -> dict:
        """Return the metrics of `Evaluation`, with the sweep."""
        s = self.sweep
        tried = {"what": s.quantity, "values": s.values, "top_1": s.top_1, "losses": s.losses}
        return {**super().metrics(), "sweep": tried | {"chosen": s.values[s.best]}}

    def write(self, folder: str | os.PathLike) -> None:
        """Write the files of `Evaluation`, and sweep.png."""
        super().write(folder)
        s = self.sweep
        charts.sweep_picture(Path(folder) / "sweep.png", s.quantity, s.values, s.top_1, s.best)
