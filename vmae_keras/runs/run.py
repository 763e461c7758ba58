"""Run folder: settings, log and checkpoints of one run."""

import csv
import shlex
import shutil
from pathlib import Path

from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.process.files import write_atomically, write_json
from vmae_keras.runs.checkpoint_files import latest
from vmae_keras.runs.settings import (
    SETTINGS_OF,
    AnySettings,
    find_settings_class,
    parse_settings,
    settings_as_json,
)
from vmae_keras.weights.json_files import read_settings

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "clips_per_second",
)


class RunError(ValueError):
    """A run folder is missing, incomplete or already in use."""


class Run:
    """Paths and files of a run folder.

    - run.json: settings
    - log.csv: loss curve; loss.png: its plot
    - checkpoints/: newest weights
    - best/: best weights, if the recipe has a patience
    - tensorboard/: event files
    - skipped.jsonl: broken files

    Args:
        folder: The run folder.
        process: Rank of this process among those that train together. Process 0 writes all files. The
            others only record the broken files that they find, in skipped-1.jsonl, skipped-2.jsonl, ...
    """

    def __init__(self, folder: str | Path, process: int = 0) -> None:
        self.folder, self.writes = Path(folder), process == 0
        self.checkpoints = self.folder / "checkpoints"
        self.best = self.folder / "best"
        self.tensorboard = self.folder / "tensorboard"
        self.skipped = self.folder / (f"skipped-{process}.jsonl" if process else "skipped.jsonl")
        self.log = self.folder / "log.csv"
        self.loss_picture = self.folder / "loss.png"
        self.settings_file = self.folder / "run.json"

    def exists(self) -> bool:
        """Return whether the folder holds a run."""
        return self.settings_file.is_file()

    def has_checkpoint(self) -> bool:
        """Return whether training can resume."""
        return latest(self.checkpoints) is not None

    def weights_file(self) -> Path:
        """Return the checkpoint to use: the best one if there is any, else the newest.

        Raises:
            RunError: There is no checkpoint yet.
        """
        if path := latest(self.best) or latest(self.checkpoints):
            return path
        command = find_settings_class(read_settings(self.settings_file)).command
        raise RunError(
            f"{self.folder} holds no checkpoint yet. Train it: {resume_command(command, self.folder)}"
        )

    def save(self, settings: AnySettings) -> None:
        """Write the settings of a new run, and delete best weights of an earlier attempt."""
        if self.writes:
            shutil.rmtree(self.best, ignore_errors=True)
            self.update(settings)

    def update(self, settings: AnySettings) -> None:
        """Write the settings."""
        if self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.settings_file, settings_as_json(settings))

    def settings(self) -> AnySettings:
        """Return the settings of the run.

        Raises:
            RunError: There is no run, or its run.json cannot be read.
        """
        if not self.exists():
            raise RunError(
                f"{self.folder} holds no run (no run.json). Give the folder that a run was written to: "
                f"--out of {', '.join(f'vmae {each.command}' for each in SETTINGS_OF.values())}."
            )
        try:
            return parse_settings(read_settings(self.settings_file))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise RunError(f"{self.settings_file} cannot be read: {error}") from error

    def skipped_files(self) -> SkippedFiles:
        """Return the record of broken files. It starts empty if the run has no checkpoint."""
        if not self.has_checkpoint():
            self.skipped.unlink(missing_ok=True)  # left by an attempt that failed early
        return SkippedFiles(self.skipped)

    def rows(self) -> list[dict]:
        """Return the loss curve so far: rows of `COLUMNS`, with None where empty."""
        return [
            {name: float(row[name]) if row.get(name) else None for name in COLUMNS}
            for row in self._texts()
        ]

    def rewind(self, step: int) -> None:
        """Remove the rows after a step from the log. The resumed run will log them again."""
        if not self.writes:
            return
        kept = [row for row in self._texts() if float(row["step"]) <= step]
        lines = [COLUMNS, *(tuple(row.get(name) or "" for name in COLUMNS) for row in kept)]
        write_atomically(self.log, "".join(",".join(line) + "\n" for line in lines))

    def append(self, row: dict) -> None:
        """Add a row to the log."""
        if not self.writes:
            return
        values = ("" if row.get(name) is None else repr(row[name]) for name in COLUMNS)
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(",".join(values) + "\n")

    def _texts(self) -> list[dict[str, str]]:
        if not self.log.is_file():
            return []
        with open(self.log, newline="", encoding="utf-8") as file:
            # Skip a partial line that a killed process left: it lacks columns.
            return [row for row in csv.DictReader(file) if None not in row.values()]


def resume_command(command: str, folder: str | Path) -> str:
    """Return the command line that resumes a run.

    Args:
        command: "pretrain", "finetune" or "distill".
        folder: The run folder.
    """
    return f"vmae {command} --out {shlex.quote(str(folder))} --resume"
