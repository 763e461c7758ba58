"""Lists of videos from a folder, a glob, a list file or a CSV."""

import dataclasses
import glob
import os
from collections.abc import Iterator, Sequence

from vmae_keras.data.list_files import VIDEO_SUFFIXES, is_video, read_csv, read_list
from vmae_keras.data.path_text import as_path

_WAYS = "a folder, a glob, a video file, a list (.txt) or a CSV (.csv)"


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """One video of a data set.

    Args:
        path: Path of the file.
        label: Label as written in the list, or None.
        row: Row number in the list, or None if the video does not come from a list.
    """

    path: str
    label: str | None = None
    row: int | None = dataclasses.field(default=None, compare=False, repr=False)


VideoSource = str | os.PathLike | Sequence[VideoFile | str | os.PathLike]


def list_videos(source: VideoSource, root: str | os.PathLike | None = None) -> list[VideoFile]:
    """List the videos that `source` names. It is one of:

    - A folder: every video in it and its subfolders, by suffix, sorted. Other files and hidden files are
      ignored.
    - A glob (`clips/**/*.mp4`): the videos that it matches, sorted.
    - A video file.
    - A list (.txt) with one row per video, as in the official VideoMAE lists: `path`, `path label`,
      `path total_frames label`, or `path 0 -1` (VideoMAE V2's pretraining lists, without labels). The path
      ends with the last video suffix in the row, so it may contain spaces. The label is the last field
      after the path; -1 means none. Integers between path and label are ignored.
    - A CSV (.csv) separated by commas, semicolons or tabs. A header names a column of paths (`path`,
      `video`, `file`, `filename`, ...) and optionally a column of labels (`label`, `class`, ...). Without a
      header, rows are `path,label` or as in a list. A field must not span rows. The quote (') that protects
      a field from being run as a spreadsheet formula is removed.
    - A sequence of paths of video files, or of `VideoFile`s.

    Lists are UTF-8, or UTF-16 with a byte order mark. Empty rows and rows that begin with `# ` are skipped.
    Relative paths start from `root`, by default the list's folder. Backslashes count as folder separators
    if the file does not exist otherwise.

    Raises:
        FileNotFoundError: `source` is missing, or every file that it lists.
        ValueError: `source` contains no video, has an unknown suffix, or has a row that cannot be parsed.

    Example:
        from vmae_keras import list_videos

        for video in list_videos("train.csv"):
            print(video.path, video.label)
    """
    if not isinstance(source, str | os.PathLike):
        return [
            each if isinstance(each, VideoFile) else VideoFile(os.fspath(each)) for each in source
        ]
    source = os.fspath(source)
    suffix = os.path.splitext(source)[1].lower()
    if os.path.isdir(source):
        videos = [VideoFile(path) for path in _walk(source)]
    elif not os.path.exists(source):
        if not glob.has_magic(source):
            raise FileNotFoundError(
                f"`source` does not exist. Received: source={source!r}. Give {_WAYS}."
            )
        matches = sorted(glob.glob(source, recursive=True), key=os.fsencode)
        videos = [VideoFile(path) for path in matches if _is_video(path) and os.path.isfile(path)]
    elif suffix in VIDEO_SUFFIXES:
        videos = [VideoFile(source)]
    elif suffix in (".txt", ".csv"):
        folder = os.path.dirname(source) if root is None else os.fspath(root)
        rows = (read_csv if suffix == ".csv" else read_list)(source)
        videos = [
            VideoFile(_joined(folder, as_path(path)), label, number) for number, path, label in rows
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
    return iter(sorted(found, key=os.fsencode))  # by bytes, so that the locale does not matter


def _is_video(path: str) -> bool:
    return is_video(path) and not os.path.basename(path).startswith(".")


def _joined(folder: str, path: str) -> str:
    joined = os.path.join(folder, path)
    if "\\" in path and os.sep == "/" and not os.path.exists(joined):
        other = os.path.join(folder, path.replace("\\", "/"))
        return other if os.path.exists(other) else joined
    return joined
