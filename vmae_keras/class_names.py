"""When two data sets mean the same class. Clauses WEIGHT-7, LABEL-1."""

import re


def plain(name: str) -> str:
    """A class's name without what data sets write differently: "Tai_Chi" and "tai chi" are "taichi".

    That is case, spaces, underscores, hyphens, quotes, brackets and other marks; a name that is nothing
    but marks stays as it is.
    """
    return re.sub(r"[\W_]+", "", name).casefold() or name.casefold()
