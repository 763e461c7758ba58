"""The clauses of spec/SPEC.md, and the records of what a test run found for each of them.

A record is `{"clauses": [ids], "check": test, "state": state, "note": reason or link}`. Those of one
implementation lie in one file, `<implementation>.json`, a list.
"""

import functools
import json
import re
from collections import defaultdict
from pathlib import Path

SPECIFICATION = Path(__file__).resolve().parents[1] / "spec" / "SPEC.md"
# Of tests that need no backend: what they find holds for the library on every one.
LIBRARY = "library"


@functools.cache
def clauses() -> dict[str, str]:
    """Id -> text of every clause, in the order of the specification."""
    text = SPECIFICATION.read_text("utf-8")
    return dict(re.findall(r"^- \*\*([A-Z]+-\d+)\*\* (.+)$", text, re.M))


def unknown(ids) -> list[str]:
    """Those of the ids that the specification does not have."""
    return [clause for clause in ids if clause not in clauses()]


def implementation(test: Path) -> str | None:
    """Whom the tests of a file examine, by its folder; None for any other folder."""
    if test.parent.name == "each_backend":
        import keras

        return keras.backend.backend()
    return {"oracle": "oracle", "once": LIBRARY}.get(test.parent.name)


class Recorder:
    """A pytest plugin: writes the records of the tests that name clauses, into `folder`.

    What it needs of a test travels in its reports' `user_properties`, from xdist's workers too.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.records = defaultdict(dict)

    def pytest_runtest_logreport(self, report):
        """Called after setup, call and teardown; the worst of them is the test's state."""
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
