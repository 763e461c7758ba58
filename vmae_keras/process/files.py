"""Atomic writing of files: neither a reader nor a crash sees a partial file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | os.PathLike, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` atomically when the block ends without an error.

    Args:
        shared: Whether other processes may write the same file at the same time. If false, a killed
            process leaves at most one partial file, which the next one overwrites.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}{f'.{os.getpid()}' if shared else ''}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        os.chmod(partial, mode)  # safetensors 0.8 makes files readable only by their owner
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file atomically with a text."""
    with replacing(path) as partial:
        partial.write_text(text, "utf-8", "backslashreplace")  # names need not be UTF-8


def write_json(path: Path, values: Any) -> None:
    """Replace a file atomically with values as JSON."""
    write_atomically(path, json.dumps(values, indent=2) + "\n")
