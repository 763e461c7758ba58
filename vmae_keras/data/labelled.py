"""Lists of labelled videos, and their classes."""

import os
import re
import warnings
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from vmae_keras.data.files import VideoFile, list_videos
from vmae_keras.data.list_files import LABEL_COLUMNS, header_of
from vmae_keras.data.path_text import as_label

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_NOT_TEXT = re.compile("[\ud800-\udfff]")
_SEVERAL = re.compile(r"\[?\d+(\s*[,;|]\s*\d+)+\]?")
LabelledSource = str | os.PathLike | Sequence[VideoFile]


def list_labelled(source: str | os.PathLike) -> list[VideoFile]:
    """List the labelled videos of a list, a CSV, or a folder with one subfolder per class.

    A label is the name of a class, or its number, counted from 0.

    Raises:
        FileNotFoundError: See `list_videos`.
        ValueError: Videos have no label; the message names the first few. A label is a negative number,
            several numbers, or a number written in two ways (1, 01). See also `list_videos`.
    """
    files = list_videos(source)
    if os.path.isdir(source):
        files = [
            VideoFile(file.path, as_label(parts[0]) if len(parts) > 1 else None)
            for file in files
            for parts in [Path(file.path).relative_to(source).parts]
        ]
    without = [file.path for file in files if file.label is None]
    if without:
        is_csv = os.path.isfile(source) and os.fspath(source).lower().endswith(".csv")
        header = header_of(os.fspath(source)) if is_csv else None
        columns = f" Its columns are {', '.join(header)}." if header else ""
        raise ValueError(
            f"{len(without)} of {len(files)} videos have no label. Received: "
            f"{', '.join(without[:3])}.{columns} Give a list with `path label` in each row, a CSV with a "
            f"column of labels ({', '.join(LABEL_COLUMNS)}), or a folder with a folder for each class."
        )
    _check_labels(files, source)
    return files


def as_labelled(videos: LabelledSource) -> list[VideoFile]:
    """Return the videos of a source of `list_labelled`, or those of a sequence."""
    return list_labelled(videos) if isinstance(videos, str | os.PathLike) else list(videos)


def _check_labels(files: Sequence[VideoFile], source: str | os.PathLike) -> None:
    firsts: dict[str, VideoFile] = {}
    for file in files:
        firsts.setdefault(file.label or "", file)
    spellings: dict[Decimal, str] = {}
    for label, file in firsts.items():
        number = Decimal(label) if _NUMBER.fullmatch(label) else None
        if _NOT_TEXT.search(label):
            wrong = "not UTF-8; save the list as UTF-8"
        elif _SEVERAL.fullmatch(label):
            wrong = "several numbers, and a video has one class"
        elif number is not None and number < 0:
            wrong = "a negative number; -1 alone means that there is no label"
        elif number is not None and spellings.setdefault(number, label) != label:
            other = spellings[number]
            wrong = f"the same number as {other!r} of {_where(firsts[other])}; write it in one way"
        else:
            continue
        raise ValueError(
            f"In {source}, {_where(file)} has a label that is {wrong}. Received: {label!r}."
        )


def _where(file: VideoFile) -> str:
    return file.path if file.row is None else f"row {file.row}"


def classes_of(files: Sequence[VideoFile]) -> tuple[str, ...]:
    """Return the distinct labels, sorted as numbers if all are numbers, else as text.

    Raises:
        ValueError: A video has no label.
    """
    found = {file.label or "" for file in files}
    if "" in found:
        raise ValueError("Each video needs a label. Received: videos without; see `list_labelled`.")
    numbers = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=lambda label: (Decimal(label) if numbers else 0, label)))


def warn_of_one_class(labels: Sequence[str]) -> None:
    """Warn if there is only one class."""
    if len(labels) == 1:
        warnings.warn(
            f"All videos have one class, {labels[0]!r}, so there is nothing to tell apart. Look at the "
            "list's column of labels; of a folder, the folders in it are the classes.",
            UserWarning,
            stacklevel=2,
        )


def class_numbers(files: Sequence[VideoFile], labels: Sequence[str]) -> list[int]:
    """Return the index of each file's label in `labels`.

    Raises:
        ValueError: Labels of files are not in `labels`; the message names the first few.
    """
    places = {label: place for place, label in enumerate(labels)}
    unknown = sorted(map(str, {file.label for file in files} - places.keys()))
    if unknown:
        raise ValueError(
            f"{len(unknown)} labels are no class of the model. Received: {', '.join(unknown[:5])}. "
            f"It knows {', '.join(list(labels)[:5])}{', ...' if len(labels) > 5 else ''}."
        )
    return [places[file.label or ""] for file in files]
