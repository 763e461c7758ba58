"""What people read of a command: its errors, its notes, how far it is."""

import contextlib
import time
import warnings

import typer

from vmae_keras.backend import import_keras, select


@contextlib.contextmanager
def errors_for_people(*kinds: type[Exception]):
    """Errors of kinds that say what to do end a command with exit code 1 and without a traceback."""
    try:
        yield
    except kinds as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error


@contextlib.contextmanager
def notes_for_people():
    """Warnings as lines of their own, without where in the code they were given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        typer.secho(f"Note: {warning.message}", fg=typer.colors.YELLOW, err=True)


def import_keras_on(backend):
    """Chooses the backend and imports Keras, or ends the command with what is wrong."""
    with errors_for_people(ValueError):
        select(backend and backend.value)
    import_keras()


@contextlib.contextmanager
def progress_of(console, what):
    """Gives a function of (done, total) that moves a bar with the time left; lines without a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began, lined = time.monotonic(), time.monotonic()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)

        def update(done, total):
            nonlocal lined
            bar.update(task, completed=done, total=total)
            now = time.monotonic()
            if not console.is_terminal and now - lined >= 10:
                lined = now
                left = int((now - began) / done * (total - done))
                console.print(
                    f"{done}/{total} {what}  left {left // 60}:{left % 60:02d}", highlight=False
                )

        yield update


def report_skipped(console, skipped):
    if skipped:
        console.print(f"Broken files: {len(skipped)}", highlight=False)
        for path, reason in skipped.items():
            console.print(f"  {path}: {reason}", highlight=False, soft_wrap=True)
