"""Clauses of spec/SPEC.md, and records of the test results for each of them.

A record is `{"clauses": [ids], "check": test, "state": state, "note": reason or link}`. The records of one
implementation are a list in one file, `<implementation>.json`.
"""

import functools
import json
import re
from collections import defaultdict
from pathlib import Path

SPECIFICATION = Path(__file__).resolve().parents[1] / "spec" / "SPEC.md"
# Column for tests that need no backend: their results hold for the library on every backend.
LIBRARY = "library"


@functools.cache
def clauses() -> dict[str, str]:
    """Return {id: text} for every clause, in the order of the specification."""
    text = SPECIFICATION.read_text("utf-8")
    return dict(re.findall(r"^- \*\*([A-Z]+-\d+)\*\* (.+)$", text, re.M))


def unknown(ids) -> list[str]:
    """Return the ids that are missing from the specification."""
    return [clause for clause in ids if clause not in clauses()]


def implementation(test: Path) -> str | None:
    """Return the implementation that a test file examines, determined by its folder, or None."""
    if test.parent.name == "each_backend":
        import keras

        return keras.backend.backend()
    return {"oracle": "oracle", "once": LIBRARY}.get(test.parent.name)


class Recorder:
    """Pytest plugin that writes the records of tests that name clauses into `folder`.

    It reads clauses and notes from the reports' `user_properties`, which xdist workers also transmit.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.records = defaultdict(dict)

    def pytest_runtest_logreport(self, report):
        """Record the outcome of a phase. The worst of setup, call and teardown is the test's state."""
        properties = dict(report.user_properties)
        if properties.get("implementation") is None:
            return
        record = self.records[properties["implementation"]].setdefault(
            report.nodeid,
            {"clauses": properties["clauses"], "check": report.nodeid, "state": "pass", "note": ""},
        )
        if report.failed:
            record |= {"state": "fail", "note": ""}
        elif report.skipped and hasattr(report, "wasxfail"):
            record |= {"state": "gap", "note": report.wasxfail}
        elif report.skipped:
            record |= {"state": "skip", "note": report.longrepr[2]}

    def pytest_sessionfinish(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, records in self.records.items():
            text = json.dumps(list(records.values()), indent=1)
            (self.folder / f"{name}.json").write_text(text + "\n", "utf-8")
