"""Report how an implementation conforms to the specification.

    python -m spec.conformance backends_tests.adapters.hugging_face:Adapter
    KERAS_BACKEND=torch python -m spec.conformance backends_tests.adapters.keras_model:Adapter

The exit status is 1 if anything deviates. Known gaps are reported, but are not failures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spec.conformance.checks import CHECKS
from spec.conformance.results import Report, Result, run

STYLES = {"pass": "green", "deviates": "bold red", "gap": "yellow"}
WORDS = {"pass": "passed", "deviates": "deviate", "gap": "known gaps"}
NUMBERS = ("cases", "measured", "tolerance")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m spec.conformance", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "adapter", help="MODULE:CLASS of an adapter, see spec/conformance/adapter.py"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write every result as JSON to FILE"
    )
    options = parser.parse_args(arguments)
    module, _, name = options.adapter.partition(":")
    adapter = getattr(importlib.import_module(module), name)()

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    with console.status(adapter.name) as status:
        report = run(adapter, progress=lambda check: status.update(f"{adapter.name}: {check.name}"))
    console.print(table(adapter.name, report.results))
    for line in remarks(report):
        console.print(Text(line), soft_wrap=True)
    if options.json:
        records = [result.record() for result in report.results]
        options.json.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
    return 0 if report.passed else 1


def table(name: str, results: list[Result]) -> Table:
    """Return a table with a row for each check and state, showing its worst case."""
    grid = Table(
        title=f"{name} and spec/SPEC.md", title_justify="left", box=None, padding=(0, 2, 0, 0)
    )
    for header in ("layer", "check", "clauses", "cases", "measured", "tolerance", "state"):
        grid.add_column(header, justify="right" if header in NUMBERS else "left")
    rows: dict[tuple, list[Result]] = {}
    for result in results:
        rows.setdefault((result.check, result.state), []).append(result)
    for check, state in sorted(rows, key=lambda row: CHECKS.index(row[0])):
        group = rows[check, state]
        worst = max(group, key=lambda result: np.nan_to_num(result.measured))
        clauses = dict.fromkeys(clause for result in group for clause in result.clauses)
        grid.add_row(
            check.layer,
            check.name,
            ", ".join(clauses),
            str(len(group)),
            number(worst.measured),
            number(worst.tolerance),
            Text(state, STYLES[state]),
        )
    return grid


def number(value: float) -> str:
    """Format a number, or return "" if nothing was measured."""
    return "" if math.isnan(value) else f"{value:.2g}"


def remarks(report: Report) -> Iterator[str]:
    """Yield lines on gaps and their reasons, on deviations, and on what explains them."""
    gaps: dict[str, dict[str, None]] = {}
    for result in report.results:
        if result.state == "gap":
            gaps.setdefault(result.note, {}).update(dict.fromkeys(result.clauses))
    for reason, clauses in gaps.items():
        yield f"Known gap in {', '.join(clauses)}: {reason}"
    for result in report.results:
        if result.state == "deviates":
            yield f"Deviates: {result.check.name}, {result.case.name}: {result.note}"
    diagnosis = report.diagnosis
    for deviation in diagnosis.deviations:
        yield f"Diagnosis: {deviation}"
    if diagnosis.deviations:
        remaining = ", ".join(f"{name} {error:.1e}" for name, error in diagnosis.agreement.items())
        yield f"With these accounted for, the largest errors are: {remaining}"
    for observation in diagnosis.unexplained:
        yield f"Not explained by any known deviation: {observation}"
    states = Counter(result.state for result in report.results)
    yield ", ".join(f"{states[state]} {word}" for state, word in WORDS.items())


if __name__ == "__main__":
    sys.exit(main())
