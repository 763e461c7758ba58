"""Escaping of CSV fields that spreadsheets would run as formulas, such as a label `=HYPERLINK(...)`."""

import re

# Spreadsheets recognise a formula by its first character after spaces. A field that already has quotes
# before such a character gets one more quote, so that reading restores the original field.
_FORMULA = re.compile("[\\s']*[=+\\-@\uff1d\uff0b\uff0d\uff20]|'*[\\t\\r\\n]")


def guarded(field: str) -> str:
    """Return a field as written to a file: with a leading quote (') if it may be a formula."""
    return f"'{field}" if _FORMULA.match(field) else field


def unguarded(field: str) -> str:
    """Return the original of a field that `guarded` returned."""
    return field[1:] if field.startswith("'") and _FORMULA.match(field) else field
