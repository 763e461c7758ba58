"""Split of a list of videos into training and held-out files. Clauses HOLD-1 to HOLD-3."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from vmae_keras.data.files import VideoFile

FEWEST = 10  # with fewer files, none is held out


def hold_out(
    files: Sequence[VideoFile],
    share: float,
    most: int,
    generator: np.random.Generator,
    by_class: bool,
) -> tuple[list[VideoFile], list[VideoFile]]:
    """Split files into training and held-out files, each in the order of the list.

    All rows of one file stay on the same side. The training list keeps repeated rows; the held-out list
    has each file once.

    Args:
        files: Files to split.
        share: Share of the distinct files to hold out; the count is rounded down.
        most: Maximum number of files to hold out.
        generator: Generator that draws the held-out files.
        by_class: If true, hold out the same share of each class, but never all files of a class.
    """
    rows: dict[str, list[int]] = {}
    for place, file in enumerate(_real_paths(files)):
        rows.setdefault(file, []).append(place)
    firsts = [places[0] for places in rows.values()]
    count = min(int(len(firsts) * share), most) if len(firsts) >= FEWEST else 0
    order = generator.permutation(firsts).tolist()
    held = set(_evenly(_by_class(files, order), count, generator) if by_class else order[:count])
    left_out = {place for places in rows.values() if places[0] in held for place in places}
    training = [file for place, file in enumerate(files) if place not in left_out]
    return training, [file for place, file in enumerate(files) if place in held]


def distinct(files: Sequence[VideoFile]) -> list[VideoFile]:
    """Return the first row of each file."""
    found: dict[str, VideoFile] = {}
    for path, file in zip(_real_paths(files), files, strict=True):
        found.setdefault(path, file)
    return list(found.values())


def _by_class(files: Sequence[VideoFile], order: np.ndarray) -> list[int]:
    """Return the indices that may be held out, grouped by class: all but one of each class."""
    classes: dict[str | None, list[int]] = {}
    for place in order:
        classes.setdefault(files[place].label, []).append(place)
    return [place for places in classes.values() for place in places[1:]]


def _evenly(places: list[int], count: int, generator: np.random.Generator) -> list[int]:
    """Return `count` of the places, or all if there are fewer, at equal distances from a drawn start."""
    count = min(count, len(places))
    if not count:
        return []
    start = int(generator.integers(len(places)))
    return [places[(index * len(places) + start) // count] for index in range(count)]


def _real_paths(files: Sequence[VideoFile]) -> Iterator[str]:
    """Yield each file's path with symbolic links resolved. Each folder is resolved only once."""
    folders: dict[str, str] = {}
    for file in files:
        folder, name = os.path.split(file.path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        path = os.path.join(folders[folder], name)
        yield os.path.realpath(path) if os.path.islink(path) else path
