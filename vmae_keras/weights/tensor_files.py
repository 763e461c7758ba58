"""Reader for the tensors of a weight file, one at a time and by name.

Files are untrusted. The format is detected from the content, not from the file name, and everything is
checked before it is used. Reading needs memory for one tensor only, even if the file has 4 GB.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vmae_keras.process.files import replacing

# The header for V2-g's 582 weights with AdamW states and averaged weights takes 0.4 MiB.
_LARGEST_HEADER = 4 * 2**20  # bytes
_LARGEST_INDEX = 4 * 2**20  # bytes
_MOST_SHARDS = 10_000
_PLAIN_NAME = re.compile(r"\w[\w.+ -]{0,199}", re.ASCII)
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # NumPy has no bfloat16
_NOT_WEIGHTS = {  # first bytes of a file: its format, and the way out
    b"version https://git-lfs": "is the pointer of a git-lfs file, not the file. Run `git lfs pull`.",
    b"<": "is a web page or XML, often a login or an error that was saved in place of the file. "
    "Download it again and look at what the address gives.",
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file, as Keras's .weights.h5 and .h5 are. Read it with Keras.",
    b"\x1f\x8b": "is compressed with gzip. Unpack it first.",
}


class WeightsError(ValueError):
    """Raised when a weight file cannot be used. Says which file, why, and the way out."""


@dataclass(frozen=True)
class Tensor:
    """Tensor in a file, not read yet.

    `read()` returns finite float32 values, whatever float type the file has, or float64 for Keras models in
    float64. It raises WeightsError, naming file and tensor, if the file has other types than 16, 32 or
    64-bit floats, or a NaN or infinite value.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class TensorFile:
    """Tensors of a file by their stored names, and the plain values in a training run's `args`."""

    path: Path
    tensors: dict[str, Tensor]
    arguments: dict[str, Any]


def read_tensors(path: Path) -> TensorFile:
    """Open a safetensors file, a torch file (zip or legacy), or a JSON index of such shards.

    Raises:
        WeightsError: The file has another format; common mistakes (a web page, a git-lfs pointer, a Keras
            file) are named. The file is damaged or hostile. An index does not match its shards; all faults
            are listed.
    """
    path = Path(path)
    head = _head(path)
    if _is_text(head) and head.lstrip().startswith(b"{"):
        return _read_index(path)
    return _read_one(path, head)


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write the tensors unchanged, in C order, to a safetensors file, atomically."""
    ordered = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial_file:
        save_file(ordered, partial_file, metadata=metadata)


def as_float32(path: Path, name: str, values: np.ndarray, keep_float64: bool = False) -> np.ndarray:
    """Convert floats, or uint16 as the bits of bfloat16, to float32; raise WeightsError if not finite."""
    if values.dtype == np.uint16:  # bfloat16 is the upper half of a float32
        values = values.astype(np.uint32)
        values <<= 16
        values = values.view(np.float32)
    if not (keep_float64 and values.dtype == np.float64):
        with np.errstate(over="ignore"):  # counted below
            values = values.astype(np.float32, copy=False)
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise WeightsError(
            f"{path}: `{name}` holds values that are NaN or infinite as float32. "
            f"Received: {bad} of {values.size}. The file is damaged or the training diverged; use another."
        )
    return values


def mismatches(expected: dict[str, tuple[int, ...]], found: dict[str, Tensor]) -> list[str]:
    """Return a line for each expected weight that is missing or has another shape."""
    return [f"missing: {name}" for name in expected if name not in found] + [
        f"shape {found[name].shape}, wanted {shape}: {name}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]


def listed(faults: list[str], most: int = 1000) -> str:
    """Return the first `most` faults as indented lines to append to a message."""
    more = [f"... and {len(faults) - most} more"] if len(faults) > most else []
    return "".join(f"\n  {line}" for line in (*faults[:most], *more))


def not_floats(path: Path, name: str, received: str) -> WeightsError:
    """Return the error for a tensor that does not contain floats."""
    return WeightsError(
        f"{path}: `{name}` is no tensor of 16, 32 or 64-bit floats. Received: {received}. "
        "Convert it where it was made, or leave it out."
    )


def _head(path: Path) -> bytes:
    if not path.is_file():  # a named pipe would block
        found = "a folder" if path.is_dir() else "nothing there, or no regular file"
        raise WeightsError(f"{path} is not a file. Received: {found}. Name a file of weights.")
    with open(path, "rb") as file:
        return file.read(512)


def _is_text(head: bytes) -> bool:
    """Return True if the first 8 bytes are text. As a safetensors header length they would exceed 10^17."""
    return all(8 < byte < 127 for byte in head[:8])


def _read_one(path: Path, head: bytes) -> TensorFile:
    if not head:
        raise WeightsError(f"{path} is empty. Download it again.")
    if head[8:9] == b"{" and not _is_text(head):
        return _read_safetensors(path)
    if head.startswith((b"PK\3\4", b"\x80")):
        from vmae_keras.weights.torch_files import read_torch  # imports this module

        return read_torch(path)
    for start, what in _NOT_WEIGHTS.items():
        if head.lstrip().startswith(start):
            raise WeightsError(f"{path} {what}")
    raise WeightsError(
        f"{path} is neither safetensors, nor a file of torch, nor a JSON index of such files. "
        f"Received: a file that begins with {head[:16]!r}. It may be damaged; download it again."
    )


def _read_safetensors(path: Path) -> TensorFile:
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LARGEST_HEADER:
                raise ValueError(
                    f"its header takes {length} bytes, at most {_LARGEST_HEADER} are read"
                )
            with safe_open(path, "numpy"):  # the library checks sizes, offsets and overlaps
                pass
            header = json.loads(file.read(length), object_pairs_hook=_without_repeats)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} is a damaged safetensors file: {error}. Download it again."
        ) from error
    header.pop("__metadata__", None)
    tensors = {
        name: Tensor(tuple(entry["shape"]), partial(_read_values, path, name, entry, 8 + length))
        for name, entry in header.items()
    }
    return TensorFile(path, tensors, {})


def _read_values(path: Path, name: str, entry: dict[str, Any], start: int) -> np.ndarray:
    """Read values from the file. safetensors lacks bfloat16 for NumPy, and a mmap counts as memory."""
    dtype = entry["dtype"]
    if dtype not in _FLOATS:
        raise not_floats(path, name, dtype)
    begin, end = entry["data_offsets"]
    stored = np.dtype(_FLOATS[dtype])
    try:
        values = np.fromfile(path, stored, (end - begin) // stored.itemsize, offset=start + begin)
        values = values.reshape(entry["shape"])
    except ValueError as error:
        raise WeightsError(f"{path}: `{name}` cannot be read: {error}.") from error
    return as_float32(path, name, values)


def _read_index(path: Path) -> TensorFile:
    """Read the shards that an index names, all in its own folder, as one file."""
    places = _weight_map(path)
    files = sorted(set(places.values()))
    if len(files) > _MOST_SHARDS:
        raise WeightsError(
            f"{path} names {len(files)} files, at most {_MOST_SHARDS} are read. No VideoMAE has so many."
        )
    shards, faults = {}, []
    for file in files:
        if fault := _shard_fault(path.parent, file):
            faults.append(f"{file!r} {fault}")
        else:
            shard = path.parent / file
            shards[file] = _read_one(shard, _head(shard)).tensors
    faults += [
        f"`{name}` is not in {file}, where the index puts it"
        for name, file in places.items()
        if file in shards and name not in shards[file]
    ]
    faults += [
        f"`{name}` is in {file}, but the index "
        + (f"puts it in {places[name]}" if name in places else "does not name it")
        for file, tensors in shards.items()
        for name in tensors
        if places.get(name) != file
    ]
    if faults:
        raise WeightsError(
            f"{path} does not fit the files beside it. Download the folder again.{listed(faults, 20)}"
        )
    return TensorFile(path, {name: shards[file][name] for name, file in places.items()}, {})


def _weight_map(path: Path) -> dict[str, str]:
    if path.stat().st_size > _LARGEST_INDEX:
        raise WeightsError(
            f"{path} is too long for an index. Received: {path.stat().st_size} bytes, "
            f"at most {_LARGEST_INDEX} are read."
        )
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no valid JSON: {error}. Download it again.") from error
    places = content.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise WeightsError(
            f"{path} is JSON, but no index of weights: it lacks a `weight_map` of tensor names to file "
            f"names. Received the keys: {sorted(content)[:10]}."
        )
    return places


def _shard_fault(folder: Path, file: str) -> str | None:
    """Return the fault in a shard's name or location, or None."""
    if not _PLAIN_NAME.fullmatch(file):
        return "is not the plain name of a file in the index's folder; nothing else is followed"
    home = folder.resolve()
    try:
        target = (folder / file).resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError for a cycle of links
        return "is missing"
    # In the hub's cache, snapshots/<revision>/<file> links to blobs/<hash> beside `snapshots`.
    roots = [home, *(up.parent / "blobs" for up in home.parents if up.name == "snapshots")]
    if not any(target.is_relative_to(root) for root in roots):
        return "is a link that leads out of the index's folder"
    return None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = [name for name, count in counts.items() if count > 1]
        raise ValueError(f"the same name twice: {', '.join(repeated[:10])}")
    return found
