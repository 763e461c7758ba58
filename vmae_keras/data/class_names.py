"""When two data sets mean the same class. Clauses WEIGHT-7, LABEL-1, LABEL-4."""

import re
import tomllib
from pathlib import Path

FOLDER = Path(__file__).with_name("aliases")


def plain(name: str) -> str:
    """A class's name without what data sets write differently: "Tai_Chi" and "tai chi" are "taichi".

    That is case, spaces, underscores, hyphens, quotes, brackets and other marks; a name that is nothing
    but marks stays as it is.
    """
    return re.sub(r"[\W_]+", "", name).casefold() or name.casefold()


def named_aliases(name: str) -> dict[str, str]:
    """Return the aliases {"old name": "new name"} of the package by their name, such as "k710".

    Raises:
        ValueError: there are none of that name.
    """
    known = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
    if name not in known:
        raise ValueError(
            f"Aliases must have one of the names {', '.join(known)}, or be a table of names. "
            f"Received: {name!r}."
        )
    return tomllib.loads(known[name].read_text("utf-8"))
