"""The folder that a command writes: locked against other processes, and continued by a command."""

import contextlib
import shlex
import sys
from pathlib import Path

import typer

from vmae_keras.cli.shared.terminal import errors_for_people, say
from vmae_keras.process import interrupts
from vmae_keras.process.failures import Unfinished, explain
from vmae_keras.runs.lock import FolderInUse, NoLocks, lock_folder


@contextlib.contextmanager
def locked(folder: Path, first: bool = True):
    """Keep other commands out of a folder, which is made if there is none.

    The command ends with one line if another process holds the lock. On a file system that has no locks,
    the command says so and continues.

    Args:
        first: Of the processes of one job only the first one takes the lock.
    """
    if not first:
        yield
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, made)  # nothing came of the command
        with errors_for_people(FolderInUse, OSError):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(lock_folder(folder, this_command()))
            except NoLocks:
                note = f"Note: the file system of {folder} has no locks. Let no other process write there."
                say(note, error=True, colour=typer.colors.YELLOW)
        yield


def _remove_empty(folders):
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def this_command() -> str:
    """Return what was typed."""
    return shlex.join(["vmae", *sys.argv[1:]])


@contextlib.contextmanager
def continued_by(again: str, folder: Path, first: bool = True):
    """Say how to continue where the block is stopped, a process of its is killed or the disk is full.

    From here on Ctrl-C and SIGTERM unwind what is running.
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
        stopped.told = True
        raise
