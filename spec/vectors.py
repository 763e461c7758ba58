"""Golden vectors: the oracle's results as small files that any language can read.

    python -m spec.vectors           # write vectors/*.safetensors and vectors/SHA256SUMS
    python -m spec.vectors --check   # write nothing; name every tensor that differs, and exit with 1

The files are byte-identical on every machine, although float64 arithmetic is not. Inputs come only
from PCG64's raw stream and are exact in float32. Results are rounded as `vector_files` describes.
vectors/README.md documents the contents.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from spec import call_vectors, model_vectors
from spec.vector_files import MARGIN, Contents, differences, encode, room

FOLDER = Path(__file__).with_name("vectors")

FILES: dict[str, Callable[[], Contents]] = {
    "v1": model_vectors.v1,
    "v2": model_vectors.v2,
    "odd_grid": model_vectors.odd_grid,
    "options": model_vectors.options,
    "classifier": model_vectors.classifier,
    "masks": call_vectors.mask_cases,
    "positions": call_vectors.positions,
    "schedules": call_vectors.schedules,
    "views": call_vectors.views,
}


class NearBoundary(ValueError):
    """A result that another machine might round differently."""


def files(made: dict[str, Contents]) -> dict[str, bytes]:
    """Return the content of every file by name, SHA256SUMS last."""
    encoded = {f"{name}.safetensors": encode(*contents) for name, contents in made.items()}
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in encoded.items()]
    return {**encoded, "SHA256SUMS": "".join(sums).encode()}


def write(folder: Path) -> None:
    """Write every file to `folder`.

    Raises:
        NearBoundary: A result depends on the machine; nothing is written.
    """
    made = {name: make() for name, make in FILES.items()}
    for name, (_, tensors) in made.items():
        for key, values in tensors.items():
            if values.dtype == np.float64 and (distance := room(values)) < MARGIN:
                raise NearBoundary(
                    f"{name}: {key} has a value that another machine might round otherwise. Received: "
                    f"{distance:.1e} of the tensor's size from a boundary, less than {MARGIN}. Take "
                    "another seed."
                )
    for name, content in files(made).items():
        (folder / name).write_bytes(content)


def check(folder: Path) -> list[str]:
    """Return one line for every file or tensor that the oracle now computes differently."""
    wanted = files({name: make() for name, make in FILES.items()})
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    lines = [f"{name}: unexpected file" for name in found.keys() - wanted.keys() - {"README.md"}]
    for name, content in wanted.items():
        if name not in found:
            lines.append(f"{name}: missing")
        elif name == "SHA256SUMS":
            lines += [f"{name}: differs"] * (found[name] != content)
        else:
            lines += [f"{name}: {line}" for line in differences(found[name], content)]
    return sorted(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spec.vectors")
    parser.add_argument(
        "--check", action="store_true", help="compare with the files instead of writing them"
    )
    if not parser.parse_args(arguments).check:
        write(FOLDER)
        return 0
    lines = check(FOLDER)
    sys.stdout.write("\n".join(lines or ["Every file matches the oracle."]) + "\n")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
