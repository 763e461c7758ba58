"""The printed report of a comparison: progress, a table, and a verdict."""

import contextlib
import math
from collections.abc import Callable, Iterator

from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from vmae_keras.consistency.comparison import QUANTITIES, Difference, Result, Row
from vmae_keras.consistency.processes import Outcome
from vmae_keras.process.console import Console


@contextlib.contextmanager
def progress(
    console: Console, names: list[str]
) -> Iterator[tuple[Callable[[str, str], None], Callable[[str, Outcome], None]]]:
    """Yield `say(backend, current step)` and `ended(backend, outcome)`.

    Each running backend has a line. Without a terminal, only outcomes are printed.
    """
    bar = Progress(
        SpinnerColumn("line"),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[doing]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )

    def say(name: str, doing: str) -> None:
        bar.update(tasks[name], doing=doing)

    def ended(name: str, outcome: Outcome) -> None:
        bar.remove_task(tasks[name])
        text = outcome.failure
        if outcome.result:
            text = f"{Result(outcome.result).about()}, {outcome.seconds:.0f} s"
        console.print(f"{name}: {text}", soft_wrap=True)

    with bar:
        tasks = {name: bar.add_task(name, total=None, doing="waiting") for name in names}
        yield say, ended


def table(rows: list[Row], names: list[str]) -> Table:
    """Return a table with a row per quantity.

    It shows the differences from the first backend, the largest difference of any pair, and the tolerance.
    The pair is named unless it includes the first backend.
    """
    first, *others = names
    shown = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    shown.add_column(f"from {first}", overflow="fold", ratio=1)
    for heading in (*others, "furthest", "allowed"):
        shown.add_column(heading, justify="right", no_wrap=True)
    precision = None
    for row in rows:
        if row.precision != precision:
            precision = row.precision
            shown.add_row(Text(precision, style="bold"))
        pair, worst = row.worst
        share = f"of {worst.share:.0%} of all entries" if worst.share < 1 else ""
        details = [Text(f"  {text}", style="dim") for text in (worst.weight, share) if text]
        pair_names = [Text(name, style="dim") for name in pair if first not in pair]
        shown.add_row(
            _lines(Text(row.quantity.title), *details),
            *(_figure(row.differences.get((first, name)), row) for name in others),
            _lines(_figure(worst, row), *pair_names),
            f"{row.tolerance:.1e}" if row.tolerance else "-",
        )
    return shown


def reasons(rows: list[Row]) -> Table:
    """Return a table of what each difference is a share of, and of its cause."""
    shown = Table.grid(padding=(0, 2, 0, 0))
    for quantity in QUANTITIES.values():
        if any(row.quantity is quantity for row in rows):
            shown.add_row(quantity.title, f"of {quantity.of}; {quantity.reason}")
    return shown


def verdict(rows: list[Row]) -> tuple[bool, str]:
    """Return whether all rows with a tolerance are within it, and a line that says so."""
    judged = [row for row in rows if row.tolerance]
    failed = [row for row in judged if not row.passes]
    if not failed:
        return True, f"The backends agree in all {len(judged)} rows that are judged."
    row = max(failed, key=_excess)
    (one, other), worst = row.worst
    place = f", in {worst.weight}" if worst.weight else ""
    return False, (
        f"The backends disagree in {len(failed)} of {len(judged)} rows. Furthest: {row.quantity.title}, "
        f"{row.precision}, {one} and {other}: {worst.value:.1e}, allowed {row.tolerance:.1e}{place}."
    )


def _excess(row: Row) -> float:
    worst = row.worst[1].value
    return math.inf if math.isnan(worst) else worst / (row.tolerance or math.inf)


def _lines(*texts: Text) -> Text:
    return Text("\n").join(texts)


def _figure(difference: Difference | None, row: Row) -> Text:
    if difference is None:
        return Text("-")
    text = f"{difference.value:.1e}"
    allowed = row.tolerance is None or difference.value <= row.tolerance
    return Text(text) if allowed else Text(f"{text} !", style="bold red")
