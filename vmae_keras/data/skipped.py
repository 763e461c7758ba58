"""Record of the files that could not be read, or only in part, shared by all processes of a run."""

import json
import os
import shutil
import tempfile
import warnings
import weakref
from pathlib import Path

from vmae_keras.data.path_text import as_path


class SkippedFiles:
    """Append-only file of JSON lines, {"path": ..., "reason": ...}.

    Any number of processes may write to it: a record is one small append, and each process records a path
    once. The object is pickled to worker processes. A process killed while writing or a second run on the
    same file does no harm, because incomplete lines are ignored.
    """

    def __init__(self, path: str | os.PathLike | None = None) -> None:
        """Create the record.

        Args:
            path: File for the record. It and its folder are created at the first record. None takes a
                temporary file, deleted with this object, and also warns of each broken file.
        """
        self._temporary = path is None
        if path is None:
            folder = tempfile.mkdtemp(prefix="vmae-skipped-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            path = os.path.join(folder, "skipped.jsonl")
        self.path = os.fspath(path)
        self._recorded: set[str] = set()

    def record(self, path: str, reason: str) -> None:
        """Record why `path` is broken, unless this process has already recorded it."""
        if path in self._recorded:
            return
        self._recorded.add(path)
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        # The leading line break ends a line that a killed process may have left incomplete.
        line = "\n" + json.dumps({"path": path, "reason": reason}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        if self._temporary:
            warnings.warn(f"{path} is broken: {reason}", stacklevel=2)

    @property
    def hint(self) -> str:
        """Return the end of an error message: where all broken files are named."""
        return "" if self._temporary else f" The record {self.path} names them all."

    def report(self) -> dict[str, str]:
        """Return {path: reason} sorted by path, with the first reason recorded for each path."""
        path = Path(self.path)
        others = sorted(
            path.parent.glob(f"{path.stem}-*{path.suffix}")
        )  # records of the run's other processes
        lines = [
            line
            for each in (path, *others)
            if each.is_file()
            for line in each.read_text("utf-8", "replace").split("\n")
        ]
        reasons: dict[str, str] = {}
        for line in lines:
            try:
                entry = json.loads(line)
                reasons.setdefault(as_path(entry["path"]), entry["reason"])
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # empty, or incomplete because the process was killed
        return dict(sorted(reasons.items()))
