"""Report of the clauses of spec/SPEC.md that hold in each implementation, from the records of test runs.

    python -m backends_tests.report build/clauses

`pytest --clauses FOLDER` writes the records of the library, and `python -m spec.conformance ADAPTER --json
FILE` those of another implementation: one file, and one column, for each. Tests that need no backend have a
column for the library itself. The exit status is 1 if a test failed, an id is unknown, or a clause has no
passing test either without a backend or on each of them. Skipped tests and known gaps do not count as
passed. "partly" means that some tests of a clause passed and others were skipped.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backends_tests.clauses import LIBRARY, clauses, unknown

BACKENDS = ("jax", "tensorflow", "torch")
COLUMNS = ("oracle", LIBRARY, *BACKENDS, "hugging_face")
HEADS = {LIBRARY: "no backend"}
# A cell shows the worst state of the clause's tests.
CELLS = {"fail": "FAIL", "deviates": "deviates", "gap": "gap", "skip": "skip", "pass": "pass"}
STYLES = {"FAIL": "bold red", "deviates": "red", "gap": "yellow", "skip": "yellow"}


def main(arguments=None) -> int:
    """Print the report; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("records", nargs="+", type=Path, help="record files, or folders of them")
    found = read(parser.parse_args(arguments).records)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    console.print(table(found))
    for line in remarks(found):
        console.print(Text(line), soft_wrap=True)
    wrong = problems(found)
    for line in wrong:
        console.print(Text(line, "bold red"), soft_wrap=True)
    count = Counter(record["state"] for records in found.values() for record in records)
    console.print(
        f"{len(clauses())} clauses, {count.total()} checks: {count['pass']} passed, "
        f"{count['fail']} failed, {count['gap']} known gaps, {count['deviates']} deviate, "
        f"{count['skip']} skipped."
    )
    if not wrong:
        console.print(
            f"Every clause has a passing test without a backend, or on each of {', '.join(BACKENDS)}."
        )
    return 1 if wrong else 0


def read(paths) -> dict[str, list[dict]]:
    """Read files and folders into {implementation: records}."""
    files = [
        file
        for path in paths
        for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])
    ]
    return {file.stem: json.loads(file.read_text("utf-8")) for file in files}


def states(found, name) -> dict[str, set[str]]:
    """Return the states of each clause's tests on an implementation; empty where nothing was recorded."""
    seen = defaultdict(set)
    for record in found.get(name, []):
        for clause in record["clauses"]:
            seen[clause].add(record["state"])
    return seen


def table(found) -> Table:
    """Return a table with a row per clause and a column per implementation."""
    grid = Table(box=None, padding=(0, 2, 0, 0))
    grid.add_column("clause", no_wrap=True)
    grid.add_column("says", max_width=40)
    columns = {}
    for name in (*COLUMNS, *sorted(found.keys() - set(COLUMNS))):
        columns[name] = states(found, name)
        grid.add_column(HEADS.get(name, name), no_wrap=True)
    for clause, text in clauses().items():
        cells = [cell(seen[clause]) for seen in columns.values()]
        says = Text(text, no_wrap=True, overflow="ellipsis")
        grid.add_row(clause, says, *(Text(cell, STYLES.get(cell, "")) for cell in cells))
    return grid


def cell(seen: set[str]) -> str:
    """Return the cell for a clause, from the states of its tests."""
    if seen == {"pass", "skip"}:
        return "partly"
    return next((text for state, text in CELLS.items() if state in seen), "-")


def failed(name, record) -> bool:
    """Return whether a record is a failure. Implementations other than the library may deviate."""
    return record["state"] == "fail" or (record["state"] == "deviates" and name in BACKENDS)


def remarks(found) -> list[str]:
    """Return what may fall short: known gaps, other implementations' deviations, skips, missing records."""
    merged = defaultdict(dict)
    for name, records in found.items():
        for record in records:
            if record["state"] != "pass" and not failed(name, record):
                reason = record["note"] or record["check"]
                merged[record["state"], name, reason] |= dict.fromkeys(record["clauses"])
    lines = [
        f"{state}, {name}: {', '.join(ids)}: {reason}"
        for (state, name, reason), ids in sorted(merged.items())
    ]
    absent = set(COLUMNS) - {*found, *BACKENDS}
    return lines + [f"Not recorded: {name}." for name in sorted(absent)]


def problems(found) -> list[str]:
    """Return the problems that make the report fail."""
    lines = []
    for name, records in found.items():
        for record in records:
            ids = record["clauses"]
            if failed(name, record):
                lines.append(
                    f"{CELLS[record['state']]}, {name}: {', '.join(ids)}: {record['check']}"
                )
            if strangers := unknown(ids):
                lines.append(
                    f"Not in spec/SPEC.md: {', '.join(strangers)}: {name}, {record['check']}"
                )
    for name in BACKENDS:
        passing = {
            clause
            for owner in (LIBRARY, name)
            for clause, seen in states(found, owner).items()
            if "pass" in seen
        }
        without = [clause for clause in clauses() if clause not in passing]
        if name not in found:
            lines.append(f"Not recorded: {name}.")
        elif without:
            lines.append(f"No passing test on {name}: {', '.join(without)}.")
    return lines


if __name__ == "__main__":
    sys.exit(main())
