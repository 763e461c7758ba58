"""Files that other processes may read at any moment."""

import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: no reader and no crash ever sees a part of it."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, "utf-8", "backslashreplace")  # names need not be UTF-8
        os.replace(partial, path)
    except OSError:  # a full disk
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, values: Any) -> None:
    """Replace a file with values as JSON, in one step."""
    write_atomically(path, json.dumps(values, indent=2) + "\n")
