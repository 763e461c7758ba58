"""The form of golden vectors: numbers rounded so that every machine rounds them alike, then bytes.

Float64 results differ in their last bits between machines. What a file holds of them are multiples
of 2^-BITS of the tensor's power of two, and its generator makes sure that none lies within MARGIN of
that power of where rounding turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

BITS = 22
# Largest difference seen between machines' arithmetic: 2.3e-13; vectors/README.md says where.
MARGIN = 1e-11

Tensors = dict[str, np.ndarray]
Contents = tuple[dict[str, Any], Tensors]  # about, tensors

TYPES = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4"), "U8": np.dtype("u1")}
NAMES = {kind: name for name, kind in TYPES.items()}


# Float64 -> float32 ------------------------------------------------------------------------------


def rounded(values: np.ndarray) -> np.ndarray:
    """float64 -> float32: multiples of 2^(e - BITS), 2^e the power of two above the largest."""
    _, e = _share_and_exponent(values)
    steps = np.round(np.ldexp(values, BITS - e)) + 0.0  # without a sign on zeros
    return np.ldexp(steps, e - BITS).astype(np.float32)


def room(values: np.ndarray) -> float:
    """Return the least distance of a value from being rounded differently, as a share of 2^e."""
    share, e = _share_and_exponent(values)
    steps = np.ldexp(values, BITS - e)
    to_boundary = float(np.abs(steps - np.floor(steps) - 0.5).min()) * 2.0**-BITS
    return min(to_boundary, share - 0.5, 1 - share) if share else to_boundary


def _share_and_exponent(values: np.ndarray) -> tuple[float, int]:
    """The largest magnitude as share * 2^e, .5 <= share < 1; 0 and 0 if it is 0.

    A little above the largest: else one of exactly 1, as in a table of cosines, is on the edge.
    """
    share, e = np.frexp(np.abs(values).max() * (1 + 2.0**-20))
    return float(share), int(e)


# Tensors -> bytes --------------------------------------------------------------------------------


def stored(values: np.ndarray) -> np.ndarray:
    """Return the stored form: uint8 and float32 unchanged, integers as int32, float64 rounded."""
    if values.dtype == np.float64:
        return rounded(values)
    return values.astype(np.int32) if values.dtype == np.int64 else values


def encode(about: dict[str, Any], tensors: Tensors) -> bytes:
    """-> a safetensors file: length of the header, header, tensors; the wider numbers first.

    One entry of metadata and sorted keys: the bytes depend on the contents alone.
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
    """The inverse of `encode`; ValueError or KeyError where it is no such file."""
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


# Bytes against bytes -----------------------------------------------------------------------------


def differences(found: bytes, wanted: bytes) -> Iterator[str]:
    """Return the differences between a file and the wanted tensors, one line for each tensor."""
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
