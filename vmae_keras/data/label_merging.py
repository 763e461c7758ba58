"""Merging of labelled data sets into one, with classes matched by name. Clauses LABEL-1 to LABEL-4."""

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmae_keras.data.class_names import named_aliases, normalise_name
from vmae_keras.data.files import VideoFile
from vmae_keras.data.labelled import classes_of, list_labelled
from vmae_keras.data.spreadsheets import guarded
from vmae_keras.process.files import replacing


@dataclass(frozen=True)
class Merged:
    """Labelled data set merged from several, with a record of how their classes were merged.

    Args:
        files: Absolute paths with merged labels, each path once, in the order of the data sets.
        classes: Merged labels, in the order of `classes_of`.
        spellings: Mapping from data set to a mapping from its labels to merged labels.
        repeated: Number of rows whose path had occurred before.
        unused: Aliases whose old name occurs in no data set.
    """

    files: list[VideoFile]
    classes: tuple[str, ...]
    spellings: dict[str, dict[str, str]]
    repeated: int
    unused: tuple[str, ...]

    def report(self) -> str:
        """Return a text with the class counts before and after merging, and each class that was merged."""
        lines = [f"{source}: {len(labels)} classes" for source, labels in self.spellings.items()]
        found = Counter(name for labels in self.spellings.values() for name in labels.values())
        lines.append(
            f"merged: {len(self.classes)} classes, {sum(n > 1 for n in found.values())} of them out of "
            f"several; {len(self.files)} videos, {self.repeated} rows repeated"
        )
        for name in self.classes:
            written = {
                old
                for labels in self.spellings.values()
                for old, new in labels.items()
                if new == name
            }
            if written != {name}:
                lines.append(f"  {name}: {', '.join(sorted(written))}")
        return "\n".join(lines)


def merge_labelled(
    sources: Sequence[str | os.PathLike], aliases: Mapping[str, str] | str | None = None
) -> Merged:
    """Merge labelled data sets: list all videos, and give the labels of one class the same spelling.

    Two labels are the same class if they have the same letters and digits, or if an alias says so. The
    spelling comes from an alias if there is one, else from the first data set that has the class. If that
    data set has several spellings, the first in sorted order wins. A path that occurs again is listed once.

    Args:
        sources: Data sets, in any form that `list_labelled` accepts.
        aliases: {"old name": "new name"}, or the name of a bundled alias table such as "k710".

    Raises:
        ValueError: A file has two different classes; the message names such files. Labels are numbers,
            which mean nothing in another data set. An alias has an alias. See also `list_labelled`.
        FileNotFoundError: See `list_labelled`.

    Source: VideoMAE V2's K710, Kinetics-400, -600 and -700 merged.
    """
    aliases = named_aliases(aliases) if isinstance(aliases, str) else aliases or {}
    renamed = _renamed(aliases)
    listed = {os.fspath(source): list_labelled(source) for source in sources}
    if not listed:
        raise ValueError("`sources` must name at least one data set. Received: none.")
    chosen = dict(renamed.values())  # normal form -> spelling
    spellings: dict[str, dict[str, str]] = {}
    for source, files in listed.items():
        labels = sorted({file.label or "" for file in files})
        spellings[source] = {}
        for label in labels:
            name, spelling = renamed.get(
                normalise_name(label), (normalise_name(label), label.strip())
            )
            spellings[source][label] = chosen.setdefault(name, spelling)
        if len(listed) > 1 and all(name.isdecimal() for name in spellings[source].values()):
            raise ValueError(
                f"Classes are merged by their names, and {source} has numbers. Received: "
                f"{', '.join(labels[:3])}. Write the names into the list, or give an alias for each."
            )
    files, repeated = _each_once(listed, spellings)
    used = {normalise_name(label) for labels in spellings.values() for label in labels}
    return Merged(
        files,
        classes_of(files),
        spellings,
        repeated,
        tuple(old for old in aliases if normalise_name(old) not in used),
    )


def write_list(path: str | os.PathLike, files: Sequence[VideoFile]) -> None:
    """Write a CSV of files atomically, with a label column if any file has a label.

    A field that a spreadsheet would run as a formula gets a leading quote ('), which `list_videos` removes.

    Raises:
        ValueError: A path or label contains a line break, which a row cannot hold.
    """
    labelled = any(file.label is not None for file in files)
    lines = [
        ["path", "label"],
        *([guarded(file.path), guarded(file.label or "")] for file in files),
    ]
    broken = [field for line in lines for field in line if re.search(r"[\r\n]", field)]
    if broken:
        raise ValueError(f"A name has a line break. Received: {broken[0]!r}. Rename it.")
    with (
        replacing(path) as partial,
        # File names need not be UTF-8.
        open(partial, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(line[: 1 + labelled] for line in lines)


def _renamed(aliases: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return {normal form of an old name: (normal form of its new name, the new name)}."""
    renamed: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for old, new in aliases.items():
        if (
            spelled.setdefault(normalise_name(new), new) != new
            or renamed.get(normalise_name(old), new) != new
        ):
            raise ValueError(
                f"Two aliases contradict each other in {new!r}. Received: {dict(aliases)}. Give each "
                "class one name and one spelling."
            )
        renamed[normalise_name(old)] = new
    for new in aliases.values():
        target = renamed.get(normalise_name(new), new)
        if target != new:
            raise ValueError(
                f"{new!r} is an alias and has one itself. Received: {dict(aliases)}. Write "
                f"{target!r} in its place."
            )
    return {old: (normalise_name(new), new) for old, new in renamed.items()} | {
        name: (name, new) for name, new in spelled.items()
    }


def _each_once(
    listed: Mapping[str, Sequence[VideoFile]], spellings: Mapping[str, Mapping[str, str]]
) -> tuple[list[VideoFile], int]:
    """Return the files, each once, and the number of repeated rows."""
    found: dict[str, str] = {}
    conflicts: dict[str, list[str]] = {}
    rows = 0
    for source, files in listed.items():
        for file in files:
            rows += 1
            path, label = os.path.abspath(file.path), spellings[source][file.label or ""]
            if found.setdefault(path, label) != label:
                conflicts.setdefault(path, [found[path]]).append(label)
    if conflicts:
        first = "; ".join(
            f"{path}: {', '.join(dict.fromkeys(labels))}"
            for path, labels in list(conflicts.items())[:5]
        )
        raise ValueError(
            f"{len(conflicts)} files have two classes. Received: {first}. Correct the lists, or give an "
            "alias where both mean one class."
        )
    return [VideoFile(path, label) for path, label in found.items()], rows - len(found)
