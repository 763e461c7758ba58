"""Validation of keys and values from a command line or a TOML file."""

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any

LARGEST_TOML = 128 * 2**10  # bytes
_PART = r"""(?>[\w-]{1,100}|"(?:[^"\\\n]|\\.){0,100}"|'[^'\n]{0,100}')"""
_LONG_KEY = re.compile(rf"(?:{_PART}[ \t]{{0,100}}+\.[ \t]{{0,100}}+){{50}}")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file, which may be untrusted.

    `tomllib` stores every prefix of a dotted key, so one key of 100 000 parts would fill 8 GB.

    Raises:
        OSError, ValueError: The file cannot be read, is too long or too deep, or has a key of 50 parts or
            more.
    """
    with open(path, "rb") as file:
        content = file.read(LARGEST_TOML + 1)
    if len(content) > LARGEST_TOML:
        raise ValueError(f"It is too long. At most {LARGEST_TOML} bytes are read.")
    text = content.decode("utf-8")
    if _LONG_KEY.search(text):
        raise ValueError("It has a key of 50 parts or more, with dots between them.")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("It has lists or tables within each other, too deep to be read.") from None


def check_key(key: str, known: Collection[str], what: str = "setting") -> None:
    """Raise ValueError for an unknown key, and suggest the closest known one."""
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        raise ValueError(f"No {what} is called {key!r}. {hint}")


def typed(key: str, value: Any, kind: Any) -> Any:
    """Convert a value to a field's type: integers to floats, lists to tuples.

    The string "None" becomes None, which TOML cannot express.

    Raises:
        ValueError: The value has another type.
    """
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    parts = typing.get_args(kind) if is_union else (kind,)
    allowed = tuple(typing.get_origin(part) or part for part in parts)
    received = value
    if value == "None" and types.NoneType in allowed:
        value = None
    if float in allowed and type(value) is int:
        value = float(value)
    if tuple in allowed and type(value) is list:
        value = tuple(value)
    if type(value) not in allowed:
        names = " or ".join(part.__name__.replace("NoneType", "None") for part in allowed)
        raise ValueError(f"`{key}` must be of type {names}. Received: {key}={received}.")
    return value
