"""Names of files as text, and text as names of files, whatever the locale.

Python reads names of files in the locale's encoding, and each byte that does not fit as a lone surrogate.
So the same name is one text under UTF-8 and another one under LC_ALL=C.
"""

import os


def as_path(text: str) -> str:
    """Return the path that a list or a run's settings name in UTF-8, as this process spells it."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def as_label(name: str) -> str:
    r"""Return a folder's name as the text of a label; bytes that are not UTF-8 become `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
