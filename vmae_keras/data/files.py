"""List the videos of a folder, a glob, a list file or a CSV."""

import dataclasses
import glob
import os
from collections.abc import Iterator

from vmae_keras.data.list_files import VIDEO_SUFFIXES, is_video, read_csv, read_list
from vmae_keras.data.names import as_path

_WAYS = "a folder, a glob, a video file, a list (.txt) or a CSV (.csv)"


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """One video of a data set.

    Args:
        label: as the list gives it; None where there is none.
        row: its number in the list; None if it is from no list.
    """

    path: str
    label: str | None = None
    row: int | None = dataclasses.field(default=None, compare=False, repr=False)


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
    - a CSV (.csv), separated by commas, semicolons or tabs: with a header that names a column of paths
      (`path`, `video`, `file`, `filename`, ...) and maybe one of labels (`label`, `class`, ...), or
      without one in rows `path,label`, or in rows as in a list; a field stays within its row, and a
      quote (') before what a spreadsheet would take for a formula is left away

    Lists are UTF-8, or UTF-16 with a byte order mark. Empty rows and those that begin with `# ` are passed
    over. Relative paths start from `root`, by default the folder of the list; backslashes between folders
    are understood where only so the file exists.

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
    return iter(sorted(found, key=os.fsencode))  # the same order under any locale


def _is_video(path: str) -> bool:
    return is_video(path) and not os.path.basename(path).startswith(".")


def _joined(folder: str, path: str) -> str:
    joined = os.path.join(folder, path)
    if "\\" in path and os.sep == "/" and not os.path.exists(joined):
        other = os.path.join(folder, path.replace("\\", "/"))
        return other if os.path.exists(other) else joined
    return joined
