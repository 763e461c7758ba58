"""Feature files, written window by window and renamed to their final name when complete."""

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vmae_keras.process.files import write_atomically

_MOST = 10**15  # windows that a header has room for; their number is known only at the end


class FeatureFile:
    """The features of one video, float32 (W, D) or (W, N, D), with notes.

    npy: The features are in NAME.npy; the notes and `times` are in NAME.json.
    safetensors: The tensors are `features` and `times`; the notes are metadata.

    Args:
        path: NAME.npy or NAME.safetensors.
        video: Path of the video, stored as the first note.
    """

    def __init__(self, path: Path, video: str) -> None:
        self.path = path
        # Notes must be UTF-8, but file names need not be.
        self.video = video.encode(errors="surrogateescape").decode(errors="replace")
        self._partial = path.with_name(path.name + ".partial")
        self._file: Any = None

    def source(self) -> str | None:
        """Return the video that a complete file belongs to; None if there is no file."""
        if not self.path.exists():
            return None
        try:
            if self.path.suffix == ".npy":
                return json.loads(self.path.with_suffix(".json").read_text("utf-8"))["video"]
            with safe_open(self.path, "numpy") as file:
                return file.metadata()["video"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            return f"no readable record: {error}"

    def begin(self, shape: tuple[int, ...], **notes: Any) -> None:
        """Start the file.

        Args:
            shape: Shape of a window's features, (D,) or (N, D).
            notes: Further notes.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._shape, self._windows, self._notes = shape, 0, {"video": self.video, **notes}
        self._file = open(self._partial, "wb")  # noqa: SIM115 - it grows until it is whole
        self._file.write(self._header())

    def append(self, features: np.ndarray) -> None:
        """Append the features of some windows."""
        self._windows += len(features)
        self._file.write(np.ascontiguousarray(features, "<f4").tobytes())

    def finish(self, times: np.ndarray) -> None:
        """Complete the file with the windows' times in seconds, (W, 2), and rename it atomically."""
        if self.path.suffix == ".npy":
            notes = {**self._notes, "times": times.tolist()}
            write_atomically(self.path.with_suffix(".json"), json.dumps(notes) + "\n")
        else:
            self._file.write(np.ascontiguousarray(times, "<f8").tobytes())
        self._file.seek(0)
        self._file.write(self._header())
        self._file.close()
        os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Delete the partial file."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # closing flushes, which fails on a full disk
                self._file.close()
            self._partial.unlink(missing_ok=True)

    def _header(self) -> bytes:
        """Return the header, whose length does not depend on the number of windows."""
        shape = (self._windows, *self._shape)
        if self.path.suffix == ".npy":
            header = io.BytesIO()  # NumPy pads headers so that the first axis can grow
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            return header.getvalue()
        length = -(-len(self._safetensors_header((_MOST, *self._shape))) // 8) * 8
        return length.to_bytes(8, "little") + self._safetensors_header(shape).ljust(length)

    def _safetensors_header(self, shape: tuple[int, ...]) -> bytes:
        end = 4 * int(np.prod(shape, dtype=object))
        tensors = {
            "features": {"dtype": "F32", "shape": shape, "data_offsets": (0, end)},
            "times": {
                "dtype": "F64",
                "shape": (shape[0], 2),
                "data_offsets": (end, end + 16 * shape[0]),
            },
        }
        notes = {name: str(note) for name, note in self._notes.items()}
        return json.dumps({"__metadata__": notes, **tensors}).encode()
