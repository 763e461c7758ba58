"""A record of the files that could not be read, or only in part, by all processes of a run."""

import json
import os
from pathlib import Path

from vmae_keras.data.names import as_path


class SkippedFiles:
    """An append-only file of JSON lines, {"path": ..., "reason": ...}.

    Any number of processes may write: a record is one small append, and each process writes a path
    once. It travels to worker processes by pickling. Neither a process killed while writing nor a
    second run on the same file spoils it: a line that is not whole is ignored.
    """

    def __init__(self, path: str | os.PathLike):
        """`path`: the file, made with its folder when the first record is written."""
        self.path = os.fspath(path)
        self._recorded: set[str] = set()

    def record(self, path: str, reason: str) -> None:
        """Note that `path` is broken, unless this process has noted it before."""
        if path in self._recorded:
            return
        self._recorded.add(path)
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        # The leading line break ends a line that a killed process may have left half written.
        line = "\n" + json.dumps({"path": path, "reason": reason}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def report(self) -> dict[str, str]:
        """{path: reason}, each path once with the first reason recorded, sorted by path."""
        path = Path(self.path)
        others = sorted(
            path.parent.glob(f"{path.stem}-*{path.suffix}")
        )  # of a run's other processes
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
                continue  # Empty, or cut off by a kill.
        return dict(sorted(reasons.items()))
