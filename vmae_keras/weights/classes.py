"""Mapping between the classes of two data sets by name. Clause WEIGHT-7."""

from collections.abc import Sequence

from vmae_keras.data.class_names import normalise_name


def match_classes(have: Sequence[str], want: Sequence[str]) -> list[int]:
    """Return the index in `have` of each class in `want`, for example of K400's classes in K710.

    The comparison ignores case, spaces, underscores, hyphens, quotes and brackets: "Tai_Chi" equals
    "tai chi".

    Raises:
        ValueError: Wanted classes are missing, or names occur twice. The message lists all of them.
    """
    places: dict[str, int] = {}
    twice = []
    for place, name in enumerate(have):
        if normalise_name(name) in places:
            twice.append(name)
        places[normalise_name(name)] = place
    missing = [name for name in want if normalise_name(name) not in places]
    faults = [
        f"{', '.join(map(repr, names))}, {what}"
        for what, names in (("that occur twice", twice), ("that are not among them", missing))
        if names
    ]
    if faults:
        raise ValueError(
            f"Classes cannot be matched by name. Received: {'; '.join(faults)}. "
            "Pass the numbers of the classes yourself."
        )
    return [places[normalise_name(name)] for name in want]
