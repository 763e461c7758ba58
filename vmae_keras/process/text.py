"""Escaping of untrusted text (file names, labels, recipes, errors that quote them) for display."""

import re

_BYTES = re.compile("[\udc80-\udcff]+")  # bytes that Python could not decode
# Control characters except tab and line feed, bidirectional control characters, lone surrogates.
_UNSAFE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Escape characters that a terminal or a picture would not show as text: ESC becomes `\x1b`.

    Bytes of a file name that are not text in this locale are decoded as UTF-8 if possible, and otherwise
    shown as `\xe9`.
    """
    text = _BYTES.sub(
        lambda found: (
            found[0].encode("ascii", "surrogateescape").decode("utf-8", "backslashreplace")
        ),
        text,
    )
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """Escape as `printable` does, and also tabs and line breaks, for a name within a line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")
