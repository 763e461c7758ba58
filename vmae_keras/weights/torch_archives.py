"""Checks of a torch file before torch opens it. They read little of it, and execute or unpack nothing.

In a crafted file, zipfile and torch's own reader may see two different archives. To make them agree, the
archive must end at the end of the file, without a comment, and its parts must lie uncompressed in one root.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from vmae_keras.weights import pickles
from vmae_keras.weights.tensor_files import WeightsError

LONGEST_DIRECTORY = 2**20  # bytes; V2-g with optimizer states took 0.2 MiB
_MAGIC = 0x1950A86A20F9469CFC6C  # value of the first pickle in a legacy file
_MOST_OF_A_NUMBER = (
    100  # opcodes of a legacy file's first pickles: numbers, or a small dict of numbers
)


def check_zip(path: Path) -> None:
    """Check a zip file: uncompressed parts that do not overlap, a pickle, and the storages it names."""
    content, sizes = b"", {}
    try:
        with open(path, "rb") as file:
            start = directory(file)
            archive = zipfile.ZipFile(file)
            entries = archive.infolist()
            root = entries[0].orig_filename.split("/")[0] if entries else ""
            if archive.start_dir != start:
                raise zipfile.BadZipFile("it is put together with something else")
            faults = _faults(file, entries, root, archive.start_dir)
            if not faults:
                content = archive.read(f"{root}/data.pkl")
                sizes = {entry.orig_filename: entry.file_size for entry in entries}
    except (zipfile.BadZipFile, RuntimeError, ValueError, struct.error, EOFError, OSError) as error:
        raise WeightsError(
            f"{path} is a damaged zip archive: {error}. Download it again."
        ) from error
    if faults:
        raise WeightsError(
            f"{path} is no archive as torch writes them. Download it again.\n  "
            + "\n  ".join(faults[:20])
        )
    _, storages = _inspect(path, io.BytesIO(content))
    for key, size in storages.items():
        there = sizes.get(f"{root}/data/{key}", 0)
        if size > there:
            raise WeightsError(
                f"{path} is damaged: its storage {key!r} wants {size} bytes. Received: {there} bytes."
            )


def directory(file: BinaryIO) -> int:
    """Return the offset of a zip archive's directory. The archive must end at the end of the file.

    Raises:
        zipfile.BadZipFile: The archive is followed by something else, or its directory is too long.
    """
    start, size = _start_and_size(file)
    if size - start > LONGEST_DIRECTORY:
        raise zipfile.BadZipFile(
            f"its directory takes {size - start} bytes, at most {LONGEST_DIRECTORY} are read"
        )
    return start


def _start_and_size(file: BinaryIO) -> tuple[int, int]:
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - 98, 0))
    end = file.read()
    if end[-22:-18] != b"PK\5\6" or end[-2:] != b"\0\0":
        raise zipfile.BadZipFile("something is appended to it")
    if end[-42:-38] != b"PK\6\7":
        return int.from_bytes(end[-6:-2], "little"), size
    record = int.from_bytes(end[-34:-26], "little")  # zip64: beyond 4 GiB
    if record != size - 98 or end[:4] != b"PK\6\6":
        raise zipfile.BadZipFile("its end is in two places")
    return int.from_bytes(end[48:56], "little"), size


def _faults(file: BinaryIO, entries: list[zipfile.ZipInfo], root: str, directory: int) -> list[str]:
    names = {entry.orig_filename for entry in entries}
    if "model.weights.h5" in names:
        return ["it is a .keras file: read it with vmae_keras.load"]
    if f"{root}/constants.pkl" in names:
        return ["it is a TorchScript program, which cannot be read without running it"]
    if f"{root}/data.pkl" not in names:
        return ["it has no data.pkl: it is a zip archive of something else"]
    faults = [f"{len(entries) - len(names)} names occur twice"] if len(names) < len(entries) else []
    end, small = 0, 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        name = entry.orig_filename
        parts = name.split("/")
        if (
            parts[0] != root
            or not {"..", ".", ""}.isdisjoint(parts)
            or not name.isprintable()
            or "\\" in name
        ):
            faults.append(f"{name!r} is no name of a part")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            faults.append(
                f"{name!r} is compressed: {entry.compress_size} to {entry.file_size} bytes"
            )
        if entry.header_offset < end:
            faults.append(f"{name!r} overlaps the part before it")
        file.seek(entry.header_offset + 26)
        lengths = file.read(4)
        end = entry.header_offset + 30 + sum(struct.unpack("<HH", lengths)) + entry.file_size
        small += entry.file_size * (not name.startswith(f"{root}/data/"))
    if end > directory:
        faults.append("its last part is cut short")
    if small > pickles.LONGEST:
        faults.append(
            f"{small} bytes beside the tensors' values, at most {pickles.LONGEST} are read"
        )
    return faults


def check_old(path: Path) -> None:
    """Check a legacy file: five pickles (magic, protocol, system, content, keys), then the storages."""
    with open(path, "rb") as file:
        start = io.BytesIO(file.read(pickles.LONGEST))
    magic, _ = _inspect(path, start, _MOST_OF_A_NUMBER)
    if magic != _MAGIC:
        raise WeightsError(
            f"{path} is a Python pickle, but not a file of torch. Nothing in it was executed."
        )
    wanted = 0
    for most in (*[_MOST_OF_A_NUMBER] * 2, *[pickles.MOST_OPCODES] * 2):
        _, storages = _inspect(path, start, most)
        wanted += sum(8 + size for size in storages.values())
    there = path.stat().st_size - start.tell()
    if wanted != there:
        raise WeightsError(
            f"{path} is damaged: its storages want {wanted} bytes. Received: {there} bytes. "
            "Download it again."
        )


def _inspect(
    path: Path, stream: BinaryIO, most: int = pickles.MOST_OPCODES
) -> tuple[Any, dict[str, int]]:
    try:
        return pickles.inspect(stream, most)
    except pickles.RefusedPickle as error:
        raise WeightsError(
            f"The pickle in {path} is refused: {error}. Nothing in it was executed. "
            "If you trust its source, save its tensors alone, best as safetensors, and read those."
        ) from error
