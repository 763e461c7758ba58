"""From the classes of one data set to those of another, by their names. Clause WEIGHT-7."""

from collections.abc import Sequence

from vmae_keras.data.class_names import plain


def match_classes(have: Sequence[str], want: Sequence[str]) -> list[int]:
    """For each wanted class the number of the one that has its name, as K400's within K710's.

    Names are compared without regard to case, to spaces, underscores and hyphens, and to quotes and
    brackets: "Tai_Chi" is "tai chi".

    Raises:
        ValueError: wanted classes that are not there, or names that occur twice, all listed.
    """
    places: dict[str, int] = {}
    twice = []
    for place, name in enumerate(have):
        if plain(name) in places:
            twice.append(name)
        places[plain(name)] = place
    missing = [name for name in want if plain(name) not in places]
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
    return [places[plain(name)] for name in want]
