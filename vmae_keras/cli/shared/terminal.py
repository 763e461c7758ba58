"""Output of commands: messages, errors, notes and progress.

Everything that a command prints goes through `say` or `process.console.Console`. Both escape untrusted
text, and the linter forbids other ways to print.
"""

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer

from vmae_keras.backend import import_keras, select
from vmae_keras.process import interrupts
from vmae_keras.process.text import one_line, printable

if TYPE_CHECKING:
    from vmae_keras.process.console import Console


def say(text: object, *, error: bool = False, colour: str | None = None) -> None:
    """Print a line."""
    typer.secho(printable(str(text)), fg=colour, err=error)


def escape_what_cannot_be_encoded() -> None:
    """Escape characters that the output's encoding lacks (for example in a pipe on Windows)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def errors_for_people(*kinds: type[Exception]) -> Iterator[None]:
    """Print errors of these kinds without a traceback, and exit with code 1."""
    try:
        yield
    except kinds as error:
        say(f"Error: {error}", error=True, colour=typer.colors.RED)
        raise typer.Exit(1) from error


@contextlib.contextmanager
def notes_for_people() -> Iterator[None]:
    """Print warnings as notes, without their location in the code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        say(f"Note: {message}", error=True, colour=typer.colors.YELLOW)


def import_keras_on(backend: str | None) -> None:
    """Select the backend and import Keras, or exit with an error."""
    with errors_for_people(ValueError):
        select(backend)
    import_keras()


@contextlib.contextmanager
def progress_of(console: "Console", what: str) -> Iterator[Callable[[float, int], None]]:
    """Yield a function of (done, total) that updates a progress bar, or prints lines without a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began, lined = time.monotonic(), time.monotonic()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)

        def update(done: float, total: int) -> None:
            nonlocal lined
            interrupts.check()
            bar.update(task, completed=done, total=total)
            now = time.monotonic()
            if not console.is_terminal and now - lined >= 10:
                lined = now
                left = int((now - began) / done * (total - done))
                console.print(f"{done}/{total} {what}  left {left // 60}:{left % 60:02d}")

        yield update


def report_skipped(console: "Console", skipped: dict[str, str]) -> None:
    """Print the broken files and the reasons."""
    if skipped:
        console.print(f"Broken files: {len(skipped)}")
        for path, reason in skipped.items():
            console.print(f"  {one_line(path)}: {one_line(reason)}", soft_wrap=True)
