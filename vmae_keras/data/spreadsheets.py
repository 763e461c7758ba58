"""Fields of CSV files that spreadsheets would run as formulas, such as a label `=HYPERLINK(...)`."""

import re

# Spreadsheets take a field for a formula by its first character, spaces aside. A field in which quotes come
# before such a character gets one more, so that reading gives back what was written.
_FORMULA = re.compile("[\\s']*[=+\\-@\uff1d\uff0b\uff0d\uff20]|'*[\\t\\r\\n]")


def guarded(field: str) -> str:
    """Return a field as it is written: with a quote (') before what may be a formula."""
    return f"'{field}" if _FORMULA.match(field) else field


def unguarded(field: str) -> str:
    """Return a field as it was before `guarded`."""
    return field[1:] if field.startswith("'") and _FORMULA.match(field) else field
