"""Results of an evaluation: a row of results.csv for each video."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from vmae_keras.data.path_text import as_path
from vmae_keras.data.spreadsheets import guarded, unguarded
from vmae_keras.process.files import replacing, write_json
from vmae_keras.runs.same_settings import different_settings, refuse_different

TOP = 5  # classes that are kept of each video, or all if there are fewer


@dataclasses.dataclass(frozen=True)
class Result:
    """A video's class, and the most probable classes with their probabilities, best first.

    Classes are indices into the model's output.
    """

    path: str
    label: int
    predicted: tuple[int, ...]
    probabilities: tuple[float, ...]


class ResultsTable:
    """The file results.csv, and evaluation.json with its settings.

    Cells that a spreadsheet would take for formulas start with a quote (').
    """

    def __init__(self, folder: Path, classes: int, labels: Sequence[str] | None) -> None:
        self.path = folder / "results.csv"
        self.settings = folder / "evaluation.json"
        self.names = [str(name) for name in labels or range(classes)]
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.columns = ["path", "label"]
        for place in range(1, min(TOP, classes) + 1):
            self.columns += [f"predicted_{place}", f"probability_{place}"]

    def begin(self, settings: dict) -> dict[tuple[str, int], Result]:
        """Return the results that exist already, by path and class, and prepare to append others."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        results = self.read(settings) if self.path.exists() else []
        write_json(self.settings, settings)
        self.write(results)  # without the partial row of a killed evaluation
        return {(result.path, result.label): result for result in results}

    def read(self, settings: dict) -> list[Result]:
        with open(self.path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        rows = list(csv.reader(io.StringIO(text, newline="")))
        if not text.endswith("\n"):
            rows = rows[:-1]
        if len(rows) > 1:
            different = different_settings(self.settings, settings)
            if not different and rows[0] != self.columns:
                different = ["header"]
            refuse_different(self.path, "the results of another evaluation", different)
        return [self.result(row) for row in rows[1:] if len(row) == len(self.columns)]

    def result(self, row: list[str]) -> Result:
        path, name, *rest = map(unguarded, row)
        label, *predicted = (self.numbers[each] for each in (name, *rest[::2]))
        return Result(as_path(path), label, tuple(predicted), tuple(map(float, rest[1::2])))

    def write(self, results: Iterable[Result]) -> None:
        with replacing(self.path) as partial:
            self._save(partial, "w", [self.columns, *map(self.row, results)])

    def append(self, result: Result) -> None:
        self._save(self.path, "a", [self.row(result)])

    def row(self, result: Result) -> list:
        row: list[str | float] = [guarded(result.path), guarded(self.names[result.label])]
        for number, probability in zip(result.predicted, result.probabilities, strict=True):
            row += [guarded(self.names[number]), probability]
        return row

    @staticmethod
    def _save(path: Path, mode: str, rows: list[list]) -> None:
        # File names need not be UTF-8.
        with open(path, mode, newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
