"""The folder that a command writes: locked against other processes, and continued by a command."""

import contextlib
import errno
import json
import os
import shlex
import socket
import sys
from pathlib import Path

import typer

from vmae_keras.cli.shared.terminal import errors_for_people, say
from vmae_keras.process import interrupts
from vmae_keras.process.failures import Unfinished, explain

LOCK = ".vmae-lock"


class FolderInUse(ValueError):
    """Another process writes the folder."""


@contextlib.contextmanager
def locked(folder: Path, first: bool = True):
    """Keep other commands out of a folder, which is made where there is none.

    The command ends with one line where another process holds the lock. The lock ends with its process,
    however that ends. On a file system that has no locks, the command says so and goes on.

    Args:
        first: of the processes of one job the first one takes the lock.
    """
    if not first:
        yield
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with errors_for_people(FolderInUse, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder)
    try:
        yield
    finally:
        if lock:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()  # before others can take it; they look whether it is there
            lock.release()
        with contextlib.suppress(OSError):
            for each in made:
                each.rmdir()  # as far as they are empty: nothing came of the command


def _acquire(folder):
    """Return the lock; None where the file system has none."""
    import filelock

    path = folder / LOCK
    lock = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise FolderInUse(_refusal(folder, path)) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        note = f"Note: the file system of {folder} has no locks. Let no other process write there."
        say(note, error=True, colour=typer.colors.YELLOW)
        return None
    holder = {"process": os.getpid(), "host": socket.gethostname(), "command": this_command()}
    with contextlib.suppress(OSError):  # Windows lets nobody else write a locked file
        path.write_text(json.dumps(holder), "utf-8")
    return lock


def _refusal(folder, path):
    try:
        holder = json.loads(path.read_text("utf-8"))
        who = f"process {holder['process']} on {holder['host']}: {holder['command']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return (
        f"{folder} is being written by {who}. Wait until it has ended, or give another folder "
        "(--out)."
    )


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
