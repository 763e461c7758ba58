"""Class names: normal form and aliases, to match classes of different data sets.

Clauses WEIGHT-7, LABEL-1, LABEL-4.
"""

import re
import tomllib
from pathlib import Path

FOLDER = Path(__file__).with_name("aliases")


def normalise_name(name: str) -> str:
    """Return the normal form of a class name: "Tai_Chi" and "tai chi" become "taichi".

    Drops case, spaces, underscores, hyphens, quotes, brackets and other marks. A name that consists only
    of marks is kept, in lower case.
    """
    return re.sub(r"[\W_]+", "", name).casefold() or name.casefold()


def named_aliases(name: str) -> dict[str, str]:
    """Return the bundled alias table {"old name": "new name"} with a given name, such as "k710".

    Raises:
        ValueError: No table has this name.
    """
    known = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
    if name not in known:
        raise ValueError(
            f"Aliases must have one of the names {', '.join(known)}, or be a table of names. "
            f"Received: {name!r}."
        )
    return tomllib.loads(known[name].read_text("utf-8"))
