"""Atomic writing of files that other processes may read at any time."""

import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Replace a file atomically: neither a reader nor a crash sees a partial file."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, "utf-8", "backslashreplace")  # names need not be UTF-8
        os.replace(partial, path)
    except OSError:  # such as a full disk
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, values: Any) -> None:
    """Replace a file atomically with values as JSON."""
    write_atomically(path, json.dumps(values, indent=2) + "\n")
