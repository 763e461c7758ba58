"""Locations of the parts of a `.keras` file, which is a zip archive with uncompressed parts."""

import io
import struct
import zipfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vmae_keras.weights.tensor_files import WeightsError
from vmae_keras.weights.torch_archives import directory


@dataclass(frozen=True)
class Part:
    """Region of a file."""

    path: Path
    start: int
    size: int

    def read(self, most: int) -> bytes:
        """Return at most the first `most` bytes."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return file.read(min(self.size, most))


def read_archive(path: Path, wanted: Collection[str]) -> dict[str, Part] | None:
    """Return the locations of the wanted parts of a `.keras` file, or None if it is another kind of file.

    Raises:
        WeightsError: A part occurs twice, is compressed or is cut short.
    """
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        if file.read(4) != b"PK\3\4":
            return None
        try:
            start = directory(file)
            entries = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, RuntimeError, ValueError, struct.error, EOFError, OSError):
            return None  # `torch_archives` reports what is wrong with a zip archive
        counts = Counter(entry.orig_filename for entry in entries)
        if not counts.keys() >= set(wanted):
            return None
        parts = {}
        for entry in entries:
            name = entry.orig_filename
            if counts[name] > 1:
                raise WeightsError(
                    f"{path} is no archive as Keras writes them: {name!r} is in it twice."
                )
            if name in wanted:
                parts[name] = _part(path, file, entry, start)
    return parts


def _part(path: Path, file: BinaryIO, entry: zipfile.ZipInfo, end: int) -> Part:
    file.seek(entry.header_offset + 26)
    begin = entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    if (
        entry.compress_type != zipfile.ZIP_STORED
        or entry.compress_size != entry.file_size
        or entry.flag_bits & 1
        or begin + entry.file_size > end
    ):
        raise WeightsError(
            f"{path} is no archive as Keras writes them: {entry.orig_filename!r} is compressed or cut "
            "short. Save the model again."
        )
    return Part(path, begin, entry.file_size)


class Window(io.RawIOBase):
    """File object for a region of an open file, to be read by h5py."""

    def __init__(self, file: io.BufferedReader, part: Part) -> None:
        self._file, self._part, self._place = file, part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {0: 0, 1: self._place, 2: self._part.size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self._part.size - self._place), 0)
        self._file.seek(self._part.start + self._place)
        read = self._file.readinto(memoryview(buffer)[:count])
        self._place += read
        return read
