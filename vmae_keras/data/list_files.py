"""Parser for lists (.txt) and CSVs of videos. A row gives its number, a path and a label."""

import codecs
import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vmae_keras.data.spreadsheets import unguarded

VIDEO_SUFFIXES = (
    ".3g2",
    ".3gp",
    ".asf",
    ".avi",
    ".flv",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ogv",
    ".ts",
    ".vob",
    ".webm",
    ".wmv",
)
# Known column names. Of several in one header, `path` or `label` wins; others are rejected as ambiguous.
PATH_COLUMNS = (
    "path",
    "video",
    "video_path",
    "file",
    "file_path",
    "filepath",
    "filename",
    "file_name",
)
LABEL_COLUMNS = ("label", "class", "class_name", "label_name", "category", "action")
DELIMITERS = ",;\t"
_ROW = re.compile(
    rf"(?P<path>.*(?:{'|'.join(map(re.escape, VIDEO_SUFFIXES))}))(?:\s+(?P<rest>\S.*))?",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"#(\s|$)")

Row = tuple[int, str, str | None]  # number, path, label
_Refuse = Callable[[str, object], ValueError]


def is_video(path: str) -> bool:
    """Return True if a path has a video suffix."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def read_list(source: str) -> Iterator[Row]:
    """Read the rows of a list: `path` or `path label`, optionally with integers between them.

    Raises:
        ValueError: The file is not text, or a row cannot be parsed.
    """
    for number, line in _lines(source):
        yield number, *_parse_row(line.strip(), _error(source, number))


def read_csv(source: str) -> Iterator[Row]:
    """Read the rows of a CSV separated by commas, semicolons or tabs, with or without a header.

    Raises:
        ValueError: The file is not text, a column cannot be identified, or a row cannot be parsed.
    """
    delimiter = path = label = None
    for number, line in _lines(source):
        error = _error(source, number)
        if delimiter is None:
            delimiter, header = _first_row(line, error)
            if header:
                columns = len(header)
                path = _column(header, PATH_COLUMNS, error)
                label = _column(header, LABEL_COLUMNS, error)
                continue
        fields = _fields(line, delimiter, error)
        if not any(fields):
            continue  # spreadsheets append rows of empty fields
        if path is not None:
            if any(fields[columns:]):
                raise error(f"has {len(fields)} fields, and the header {columns}", fields)
            fields += [""] * (columns - len(fields))
            if not fields[path]:
                raise error("has no path", fields)
            yield number, fields[path], None if label is None else _label(fields[label])
        elif len(fields) == 1:
            yield number, *_parse_row(fields[0], error)
        else:
            yield number, *_split_row(fields[0], fields[1:], error)


def header_of(source: str) -> list[str] | None:
    """Return the column names of a CSV, or None if it has no header."""
    for number, line in _lines(source):
        return _first_row(line, _error(source, number))[1]
    return None


def _lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield (number, row) for each row that is neither empty nor a comment (`# `)."""
    content = Path(source).read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        # File names need not be UTF-8.
        text = content.decode("utf-16") if utf16 else content.decode("utf-8", "surrogateescape")
    except UnicodeDecodeError as error:
        raise _no_text(source) from error
    if "\0" in text:
        raise _no_text(source)
    for number, line in enumerate(io.StringIO(text.lstrip("\ufeff"), newline=None), 1):
        if line.strip() and not _COMMENT.match(line.strip()):
            yield number, line.rstrip("\n")


def _no_text(source: str) -> ValueError:
    return ValueError(
        f"{source} is no text in UTF-8, or in UTF-16 with a byte order mark. Received: NUL characters or "
        "broken UTF-16. Save the list as UTF-8."
    )


def _first_row(line: str, error: _Refuse) -> tuple[str, list[str] | None]:
    """Return the delimiter of a CSV, and its column names if the first row is a header, else None."""
    split = {each: _fields(line, each, error) for each in DELIMITERS if each in line or each == ","}
    for delimiter, fields in split.items():
        if len(fields) > 1 and is_video(fields[0]):
            return delimiter, None
    if len(split[","]) == 1 and _ROW.fullmatch(split[","][0]):
        return ",", None
    headers = {each: [_plain(field) for field in fields] for each, fields in split.items()}
    for delimiter, header in headers.items():
        if set(header) & set(PATH_COLUMNS):
            return delimiter, header
    delimiter, fields = max(split.items(), key=lambda each: len(each[1]))
    if any(map(is_video, fields)):
        raise error("does not begin with a video's path", fields)
    raise error(
        f"names no column of paths, which is called {', '.join(PATH_COLUMNS)}; labels are in one called "
        f"{', '.join(LABEL_COLUMNS)}",
        fields,
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _column(header: Sequence[str], known: Sequence[str], error: _Refuse) -> int | None:
    """Return the index of the column with a known name, or None. Prefer the first known name."""
    found = [place for place, name in enumerate(header) if name in known]
    best = [place for place in found if header[place] == known[0]]
    if len(best or found) > 1:
        raise error(
            f"has several columns that may be its {known[0]}; call the one that is meant {known[0]!r}",
            [header[place] for place in found],
        )
    return next(iter(best or found), None)


def _fields(line: str, delimiter: str, error: _Refuse) -> list[str]:
    try:
        (fields,) = csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True)
    except csv.Error as reason:
        raise error(
            f"is no row of a CSV: {reason}. A field begins and ends in one row", line
        ) from reason
    return [unguarded(field.strip()).strip() for field in fields]


def _parse_row(row: str, error: _Refuse) -> tuple[str, str | None]:
    match = _ROW.fullmatch(row)
    if match is None:
        raise error("names no video file, known by its suffix", row)
    return _split_row(match["path"], (match["rest"] or "").split(), error)


def _split_row(path: str, rest: Sequence[str], error: _Refuse) -> tuple[str, str | None]:
    *counts, label = rest or [""]
    if not is_video(path):
        raise error("names no video file, known by its suffix", path)
    if any(re.fullmatch(r"-?\d+", count) is None for count in counts):
        raise error("has more than a label after the path", [*counts, label])
    return path, _label(label)


def _label(text: str) -> str | None:
    return None if text in ("", "-1") else text


def _error(source: str, number: int) -> Callable[[str, object], ValueError]:
    csv_file = os.path.splitext(source)[1].lower() == ".csv"
    wanted = (
        "Write `path,label`, or name the columns in a header."
        if csv_file
        else "Write `path label`, with integers between them at most; a list with commas is a .csv."
    )

    def error(what: str, received: object) -> ValueError:
        shown = repr(received)
        shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
        return ValueError(f"Row {number} of {source} {what}. Received: {shown}. {wanted}")

    return error
