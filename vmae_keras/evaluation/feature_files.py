"""Files of features that grow window by window, and appear under their name when they are whole."""

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from vmae_keras.runs.files import write_atomically

FORMATS = ("npy", "safetensors")
_MOST = 10**15  # windows: a header leaves room for so many, as their number is known at the end


class FeatureFile:
    """The features of one video, float32 (W, D) or (W, N, D), and what there is to know of them.

    npy: the features in NAME.npy; notes, and `times`, in NAME.json.
    safetensors: the tensors `features` and `times`; notes as metadata.

    Args:
        path: NAME.npy or NAME.safetensors.
        video: the path of what the features are of, the first of the notes.
    """

    def __init__(self, path: Path, video: str):
        self.path = path
        # Not every file name is UTF-8, and every note is.
        self.video = video.encode(errors="surrogateescape").decode(errors="replace")
        self._partial = path.with_name(path.name + ".partial")
        self._file = None

    def source(self) -> str | None:
        """The video that the whole file is of; None if there is none."""
        if not self.path.exists():
            return None
        try:
            if self.path.suffix == ".npy":
                return json.loads(self.path.with_suffix(".json").read_text("utf-8"))["video"]
            with safe_open(self.path, "numpy") as file:
                return file.metadata()["video"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            return f"none that can be told: {error}"

    def begin(self, shape: tuple[int, ...], **notes) -> None:
        """`shape` is that of a window's features, (D,) or (N, D)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._shape, self._windows, self._notes = shape, 0, {"video": self.video, **notes}
        self._file = open(self._partial, "wb")  # noqa: SIM115 - it grows until it is whole
        self._file.write(self._header())

    def append(self, features: np.ndarray) -> None:
        self._windows += len(features)
        self._file.write(np.ascontiguousarray(features, "<f4").tobytes())

    def finish(self, times: np.ndarray) -> None:
        """`times` are seconds, (W, 2)."""
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
        """Deletes what has been begun and not finished."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what is left to write finds no room on a full disk
                self._file.close()
            self._partial.unlink(missing_ok=True)

    def _header(self) -> bytes:
        """Of one length, however many windows there are."""
        shape = (self._windows, *self._shape)
        if self.path.suffix == ".npy":
            header = io.BytesIO()  # NumPy pads it so that the first axis can grow
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            return header.getvalue()
        length = -(-len(self._safetensors_header((_MOST, *self._shape))) // 8) * 8
        return length.to_bytes(8, "little") + self._safetensors_header(shape).ljust(length)

    def _safetensors_header(self, shape) -> bytes:
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
