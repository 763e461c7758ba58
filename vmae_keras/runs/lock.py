"""Lock of a folder, so that only one process at a time writes to it."""

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

LOCK = ".vmae-lock"


class FolderInUse(ValueError):
    """Another process holds the lock of the folder."""


class NoLocks(OSError):
    """The file system has no locks."""


@contextlib.contextmanager
def lock_folder(folder: Path, command: str) -> Iterator[None]:
    """Keep other processes out of a folder. The lock is released when this process ends in any way.

    Args:
        folder: An existing folder.
        command: Command line of this process, for error messages of other processes.

    Raises:
        FolderInUse: Another process holds the lock; the message names it.
        NoLocks: The file system has no locks.
    """
    import filelock

    path = folder / LOCK
    lock = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise FolderInUse(_refusal(folder, path)) from None
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise NoLocks(f"The file system of {folder} has no locks.") from error
        raise
    holder = {"process": os.getpid(), "host": socket.gethostname(), "command": command}
    with contextlib.suppress(OSError):  # on Windows, a locked file cannot be written
        path.write_text(json.dumps(holder), "utf-8")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            # Unlink before the release: `filelock` checks that the file that it locked still exists.
            path.unlink()
        lock.release()


def _refusal(folder: Path, path: Path) -> str:
    try:
        holder = json.loads(path.read_text("utf-8"))
        who = f"process {holder['process']} on {holder['host']}: {holder['command']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return (
        f"{folder} is being written by {who}. Wait until it has ended, or give another folder "
        "(--out)."
    )
