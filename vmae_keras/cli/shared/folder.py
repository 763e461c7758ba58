"""Output folder of a command: locking it, and telling the user how to resume."""

import contextlib
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from vmae_keras.cli.shared.terminal import errors_for_people, say
from vmae_keras.process import interrupts
from vmae_keras.process.failures import Unfinished, explain
from vmae_keras.runs.lock import FolderInUse, NoLocks, lock_folder


@contextlib.contextmanager
def locked(folder: Path, first: bool = True) -> Iterator[None]:
    """Keep other commands out of a folder, which is created if it does not exist.

    If another process holds the lock, the command exits with an error. On a file system without locks, it
    prints a note and continues.

    Args:
        folder: The folder.
        first: Whether this is the first process of its job. The others do not take the lock.
    """
    if not first:
        yield
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, made)  # if the command wrote nothing
        with errors_for_people(FolderInUse, OSError):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(lock_folder(folder, this_command()))
            except NoLocks:
                note = f"Note: the file system of {folder} has no locks. Let no other process write there."
                say(note, error=True, colour=typer.colors.YELLOW)
        yield


def _remove_empty(folders: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def this_command() -> str:
    """Return the command line of this process."""
    return shlex.join(["vmae", *sys.argv[1:]])


@contextlib.contextmanager
def continued_by(again: str, folder: Path, first: bool = True) -> Iterator[None]:
    """Print how to resume if the block is interrupted, one of its workers is killed or the disk is full.

    In the block, Ctrl-C and SIGTERM raise an exception.

    Args:
        again: Command line that resumes.
        folder: Output folder.
        first: Whether this is the first process of its job, which prints.
    """
    try:
        with errors_for_people(Unfinished), interrupts.unwinding():
            try:
                yield
            except (OSError, Unfinished) as error:
                raise Unfinished(f"{explain(error, folder)}\nContinue with: {again}") from error
    except (interrupts.Stopped, KeyboardInterrupt) as stopped:
        if first and not getattr(stopped, "told", False):
            say(f"Stopped.\nContinue with: {again}")
        stopped.told = True  # type: ignore[union-attr]  # any exception takes attributes
        raise
