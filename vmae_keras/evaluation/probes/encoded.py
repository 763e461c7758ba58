"""The features of a frozen encoder for all views of videos, kept on disk so that each is encoded once."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vmae_keras import backend
from vmae_keras.data.batches import paths_of
from vmae_keras.data.checks import check_at_least
from vmae_keras.data.files import VideoFile
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.view_dataset import views_dataset
from vmae_keras.evaluation.classification import fingerprint, model_fingerprint, predicted_views
from vmae_keras.evaluation.frozen_encoder import FrozenEncoder
from vmae_keras.process.failures import FULL
from vmae_keras.process.files import replacing, write_json
from vmae_keras.runs.run import RunError
from vmae_keras.runs.same_settings import different_settings, refuse_different


class Encoding:
    """Sets of videos and the features of all their views.

        encoding = Encoding(encoder, {"train": train, "test": test}, "probe/encoded", **views)
        encoding.run(skipped)
        features, places = encoding.read("train")

    Args:
        encoder: Frozen encoder. Its tokens are stored as float16, pooled features as float32.
        sets: Name -> videos.
        folder: Folder for NAME.npy, features (videos, S R, ...), and NAME.done.npy, which marks the videos
            that are encoded. With the same folder, encoding resumes after these.
        sampling, stride, clips, crops: See `views_dataset`.
        batch_views: Number of views per batch.

    Attributes:
        bytes: Size of all features.

    Raises:
        ValueError: A setting is out of range, or there is no video.
        RunError: The folder holds features of another model, other videos or other views, or the disk has
            too little space.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        sets: Mapping[str, Sequence[VideoFile]],
        folder: str | os.PathLike,
        *,
        sampling: str,
        stride: int,
        clips: int,
        crops: int,
        batch_views: int = 8,
    ) -> None:
        check_at_least(1, clips=clips, crops=crops, batch_views=batch_views)
        self.encoder, self.sets, self.folder = encoder, dict(sets), Path(folder)
        self.batch_views = batch_views
        self.views: dict[str, Any] = {
            "sampling": sampling,
            "stride": stride,
            "clips": clips,
            "crops": crops,
        }
        self.settings = {
            "model": model_fingerprint(encoder),
            "precision": encoder.dtype_policy.name,
            "pooling": encoder.pooling or "none",
            **self.views,
            **{
                name: fingerprint(f"{p}\n" for p in paths_of(files)) for name, files in sets.items()
            },
        }
        self._check_settings()
        c = encoder.config
        black = np.zeros((batch_views, c.frames, c.height, c.width, c.channels), np.uint8)
        self._shape = (clips * crops, *backend.predict(encoder, black).shape[1:])
        self._dtype = np.dtype("float32" if encoder.pooling else "float16")
        one = int(np.prod(self._shape)) * self._dtype.itemsize
        self.bytes = one * sum(map(len, self.sets.values()))
        self._make_room(one * sum(int((~self._done(name)).sum()) for name in self.sets))

    def run(
        self,
        skipped: SkippedFiles,
        workers: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Encode the remaining videos.

        Args:
            skipped, workers: See `views_dataset`.
            progress: Function of the number of remaining videos that are done, and of their total.

        Raises:
            ArithmeticError: Features are not finite, or too large for float16.
        """
        left = {name: np.flatnonzero(~self._done(name)) for name in self.sets}
        total, before = sum(map(len, left.values())), 0
        for name, places in left.items():
            if len(places):
                files = [self.sets[name][int(place)] for place in places]
                dataset = views_dataset(
                    files, self.encoder.config, **self.views, skipped=skipped, workers=workers
                )
                features, done = self._open(name)
                outputs = predicted_views(self.encoder, dataset, self._shape[0], self.batch_views)
                for place, output in outputs:
                    features[places[place]] = self._checked(output, files[place].path)
                    done[places[place]] = True
                    if progress:
                        progress(before + place + 1, total)
            before += len(places)

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a set's memory-mapped features (videos, S R, ...), and the indices of encoded videos."""
        features, done = self._open(name, "r")
        return features, np.flatnonzero(done)

    def _checked(self, output: np.ndarray, path: str) -> np.ndarray:
        with np.errstate(over="ignore"):
            kept = output.astype(self._dtype)
        if not np.isfinite(kept).all():
            raise ArithmeticError(
                f"The features of {path} are not finite in {self._dtype}. Check the model's weights, or "
                "compute in float32."
            )
        return kept

    def _check_settings(self) -> None:
        path = self.folder / "encoded.json"
        if path.exists():
            different = different_settings(path, self.settings)
            refuse_different(self.folder, "features of another probe", different)

    def _make_room(self, needed: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise RunError(
                f"The features need {size(needed)} on the disk. Received: {self.folder}, where "
                f"{size(free)} are free. Take fewer clips or crops, or a folder on another disk."
            )
        write_json(self.folder / "encoded.json", self.settings)

    def _done(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.done.npy"
        return np.load(path) if path.exists() else np.zeros(len(self.sets[name]), bool)

    def _open(self, name: str, mode: Literal["r", "r+"] = "r+") -> list[np.ndarray]:
        """Open a set's features and `done` flags. Create missing files, the flags last."""
        opened = []
        for path, shape, dtype in (
            (self.folder / f"{name}.npy", (len(self.sets[name]), *self._shape), self._dtype),
            (self.folder / f"{name}.done.npy", (len(self.sets[name]),), np.dtype(bool)),
        ):
            if not path.exists():
                with replacing(path) as partial:
                    np.lib.format.open_memmap(partial, "w+", dtype, shape)
                    _reserve(partial)
            opened.append(np.load(path, mmap_mode=mode))
        return opened


def encoding_folder(folder: str | os.PathLike, pooling: str | None) -> Path:
    """Return the folder of the features with a pooling in the folder of a probe."""
    return Path(folder) / ("tokens" if pooling is None else "pooled")


def _reserve(path: Path) -> None:
    """Allocate the disk space of a sparse file.

    Without it, a write to mapped memory on a full disk would kill the process.

    Raises:
        OSError: The disk has too little space.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:  # not every file system can reserve
            if error.errno in FULL:
                raise


def size(count: int) -> str:
    """Format a number of bytes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
