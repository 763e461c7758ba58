"""Failures that leave work unfinished, such as a full disk or a killed process."""

import errno
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)


class Unfinished(RuntimeError):
    """A command ended before its work was done. Run again, it resumes."""


def explain(error: BaseException, folder: Path) -> str:
    """Return what went wrong and what to do about it.

    Args:
        error: Error to explain.
        folder: Folder that was being written, because write errors do not name their file.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = error.filename or folder
    if error.errno in FULL:
        return f"No space is left on the disk of {where}. Free some space there."
    return f"{where}: {error.strerror}."
