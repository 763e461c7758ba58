"""Locale-independent conversion between file names and text.

Python decodes file names in the locale's encoding, and each undecodable byte as a lone surrogate. So one
file name becomes different strings under UTF-8 and under LC_ALL=C.
"""

import os


def as_path(text: str) -> str:
    """Return a path from a UTF-8 list or run settings, as this process's locale decodes it."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def as_label(name: str) -> str:
    r"""Return a folder name as a label. Bytes that are not UTF-8 are escaped, as in `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
