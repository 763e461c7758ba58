"""The file format of golden vectors: reproducibly rounded numbers in safetensors files.

Float64 results differ in their last bits between machines. A file therefore stores them as multiples
of 2^(e - BITS), with 2^e the power of two above the tensor's largest value. The generator ensures that
no value lies within MARGIN * 2^e of a rounding boundary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

BITS = 22
# The largest difference measured between machines is 2.3e-13, see vectors/README.md.
MARGIN = 1e-11

Tensors = dict[str, np.ndarray]
Contents = tuple[dict[str, Any], Tensors]  # about, tensors

TYPES = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4"), "U8": np.dtype("u1")}
NAMES = {kind: name for name, kind in TYPES.items()}


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    """Prepend a prefix to the names of tensors."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


# Float64 -> float32 ------------------------------------------------------------------------------


def rounded(values: np.ndarray) -> np.ndarray:
    """Round float64 values to multiples of 2^(e - BITS), exact in float32."""
    _, e = _share_and_exponent(values)
    steps = np.round(np.ldexp(values, BITS - e)) + 0.0  # + 0.0 turns -0.0 into 0.0
    return np.ldexp(steps, e - BITS).astype(np.float32)


def room(values: np.ndarray) -> float:
    """Return the smallest change, as a share of 2^e, that could change `rounded(values)`.

    Either a value crosses a rounding boundary, or the largest one changes e.
    """
    share, e = _share_and_exponent(values)
    steps = np.ldexp(values, BITS - e)
    to_boundary = float(np.abs(steps - np.floor(steps) - 0.5).min()) * 2.0**-BITS
    return min(to_boundary, share - 0.5, 1 - share) if share else to_boundary


def _share_and_exponent(values: np.ndarray) -> tuple[float, int]:
    """Split the largest magnitude into share * 2^e, .5 <= share < 1; (0, 0) if it is 0.

    It is first increased slightly: exactly 1, as in a table of cosines, would lie on the boundary.
    """
    share, e = np.frexp(np.abs(values).max() * (1 + 2.0**-20))
    return float(share), int(e)


# Tensors -> bytes --------------------------------------------------------------------------------


def stored(values: np.ndarray) -> np.ndarray:
    """Convert to a type that files store: int64 to int32, float64 to rounded float32."""
    if values.dtype == np.float64:
        return rounded(values)
    return values.astype(np.int32) if values.dtype == np.int64 else values


def encode(about: dict[str, Any], tensors: Tensors) -> bytes:
    """Encode as a safetensors file: length of the header, header, tensors by descending item size.

    With a single metadata entry and sorted keys, the bytes depend only on the contents.
    """
    tensors = {name: stored(values) for name, values in tensors.items()}
    header: dict[str, Any] = {"__metadata__": {"about": _json(about)}}
    data = b""
    for name, values in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        kind = values.dtype.newbyteorder("<")
        start, data = len(data), data + values.astype(kind).tobytes()
        offsets = [start, len(data)]
        header[name] = {"data_offsets": offsets, "dtype": NAMES[kind], "shape": values.shape}
    text = _json(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def decode(content: bytes) -> Contents:
    """Decode what `encode` wrote.

    Raises:
        ValueError or KeyError: The content is not such a file.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header, tensors = json.loads(content[8:start]), {}
    about = json.loads(header.pop("__metadata__")["about"])
    for name, entry in header.items():
        first, end = (start + offset for offset in entry["data_offsets"])
        values = np.frombuffer(content[first:end], TYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return about, tensors


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


# Comparison of files -----------------------------------------------------------------------------


def differences(found: bytes, wanted: bytes) -> Iterator[str]:
    """Describe how a file differs from the expected one, with one line per tensor."""
    if found == wanted:
        return
    try:
        (found_about, found_tensors), (about, tensors) = decode(found), decode(wanted)
    except (ValueError, KeyError, TypeError) as error:
        yield f"cannot be read ({error})"
        return
    lines = [] if found_about == about else ["about differs"]
    for name in sorted(tensors.keys() | found_tensors.keys()):
        if name not in found_tensors:
            lines.append(f"{name} is missing")
        elif name not in tensors:
            lines.append(f"{name} is not wanted")
        else:
            lines += _tensor_differences(name, found_tensors[name], tensors[name])
    yield from lines or ["the header differs"]


def _tensor_differences(name: str, found: np.ndarray, wanted: np.ndarray) -> Iterator[str]:
    is_like = (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    if not is_like:
        yield f"{name} is {found.dtype} {found.shape}, not {wanted.dtype} {wanted.shape}"
    elif found.tobytes() != wanted.tobytes():
        largest = np.abs(found.astype(np.float64) - wanted).max()
        yield f"{name} differs, by up to {largest:.2g}"
