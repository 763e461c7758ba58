"""List the videos of a folder, a glob, a list file or a CSV."""

import csv
import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

VIDEO_SUFFIXES = (
    ".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip
_WAYS = "a folder, a glob, a video file, a list (.txt) or a CSV (.csv)"
_ROW = re.compile(
    rf"(?P<path>.*(?:{'|'.join(map(re.escape, VIDEO_SUFFIXES))}))(?:\s+(?P<rest>\S.*))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class VideoFile:
    """One video of a data set; `label` as the list gives it, None where there is none."""

    path: str
    label: str | None = None


def list_videos(
    source: str | os.PathLike, root: str | os.PathLike | None = None
) -> list[VideoFile]:
    """List the videos that `source` names, which is one of

    - a folder: every video in it and below, by suffix, sorted; other and hidden files are ignored
    - a glob (`clips/**/*.mp4`): the videos that it matches, sorted
    - a video file
    - a list (.txt), a row per video as in the official VideoMAE lists: `path`, `path label`,
      `path total_frames label`, or `path 0 -1` (VideoMAE V2's pretraining lists: no label). The
      path ends with the last video suffix of the row, so it may hold spaces; the label is the last
      field after it, -1 meaning none; integers between path and label are not used
    - a CSV (.csv): with a header that names `path` and maybe `label` among its columns, or without
      one in rows `path,label`, or in rows as in a list

    Relative paths in a list or CSV start from `root`, by default the folder of that list.

    Raises:
        FileNotFoundError: `source`, or every file that it lists, is missing.
        ValueError: it holds no video, has another suffix, or has a row that cannot be understood.
    """
    source = os.fspath(source)
    suffix = os.path.splitext(source)[1].lower()
    if os.path.isdir(source):
        videos = [VideoFile(path) for path in _walk(source)]
    elif not os.path.exists(source):
        if not glob.has_magic(source):
            raise FileNotFoundError(
                f"`source` does not exist. Received: source={source!r}. Give {_WAYS}."
            )
        matches = sorted(glob.glob(source, recursive=True))
        videos = [VideoFile(path) for path in matches if _is_video(path) and os.path.isfile(path)]
    elif suffix in VIDEO_SUFFIXES:
        videos = [VideoFile(source)]
    elif suffix in (".txt", ".csv"):
        folder = os.path.dirname(source) if root is None else os.fspath(root)
        videos = [
            VideoFile(os.path.join(folder, path), label)
            for path, label in (_read_csv if suffix == ".csv" else _read_list)(source)
        ]
        if videos and not any(os.path.exists(video.path) for video in videos):
            raise FileNotFoundError(
                f"None of the {len(videos)} files that {source} lists exists; the first is "
                f"{videos[0].path!r}. Relative paths start from {folder or '.'!r}: give `root`."
            )
    else:
        raise ValueError(f"`source` has an unknown suffix. Received: {source!r}. Give {_WAYS}.")
    if not videos:
        raise ValueError(
            f"`source` holds no video. Received: source={source!r}. "
            f"Videos are known by their suffix: {' '.join(VIDEO_SUFFIXES)}."
        )
    return videos


def _walk(folder: str) -> Iterator[str]:
    found = (
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if _is_video(name)
    )
    return iter(sorted(found))


def _is_video(path: str) -> bool:
    name = os.path.basename(path)
    return name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith(".")


def _open(path: str):
    # Spreadsheets write a byte order mark, and file names need not be UTF-8.
    return open(path, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _read_list(source: str) -> Iterator[tuple[str, str | None]]:
    with _open(source) as file:
        for number, row in enumerate(file, 1):
            if row.strip():
                yield _parse_row(row.strip(), source, number)


def _read_csv(source: str) -> Iterator[tuple[str, str | None]]:
    with _open(source) as file:
        rows = csv.reader(file)
        columns = None
        for number, row in enumerate(rows):
            fields = [field.strip() for field in row]
            if not any(fields):
                continue
            if columns is None and number == 0 and "path" in map(str.lower, fields):
                columns = [field.lower() for field in fields]
            elif columns is not None:
                yield _named_row(dict(zip(columns, fields, strict=False)), source, rows.line_num)
            elif len(fields) == 1:
                yield _parse_row(fields[0], source, rows.line_num)
            else:
                yield _split_row(fields[0], fields[1:], source, rows.line_num)


def _named_row(row: dict[str, str], source: str, number: int) -> tuple[str, str | None]:
    if not row.get("path"):
        raise _bad_row("has no path", list(row.values()), source, number)
    return row["path"], row.get("label") or None


def _parse_row(row: str, source: str, number: int) -> tuple[str, str | None]:
    match = _ROW.fullmatch(row)
    if match is None:
        raise _bad_row("names no video file, known by its suffix", row, source, number)
    return _split_row(match["path"], (match["rest"] or "").split(), source, number)


def _split_row(path: str, rest: Iterable[str], source: str, number: int) -> tuple[str, str | None]:
    *counts, label = rest or [None]
    if not path.lower().endswith(VIDEO_SUFFIXES):
        raise _bad_row("names no video file, known by its suffix", path, source, number)
    if any(re.fullmatch(r"-?\d+", count) is None for count in counts):
        raise _bad_row("has more than a label after the path", [*counts, label], source, number)
    return path, None if label in (None, "", "-1") else label


def _bad_row(what: str, received: object, source: str, number: int) -> ValueError:
    return ValueError(
        f"Row {number} of {source} {what}. Received: {received!r}. "
        "Write `path label`, with integers between them at most."
    )
