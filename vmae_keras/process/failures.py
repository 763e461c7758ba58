"""Failures that leave work unfinished: a full disk, a process that was killed."""

import errno
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)


class Unfinished(RuntimeError):
    """A command had to end before its work was done; started again, it continues."""


def explain(error: BaseException, folder: Path) -> str:
    """Say what went wrong and what to do about it.

    Args:
        folder: that is written; errors of writing do not name their file.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = error.filename or folder
    if error.errno in FULL:
        return f"No space is left on the disk of {where}. Free some space there."
    return f"{where}: {error.strerror}."
