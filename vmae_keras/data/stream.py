"""Batch streams on Grain: file order, replacement of unreadable files, prefetching.

All randomness is derived from the seed and the sample's number, not from where or when the sample is
made. So neither the number of workers nor an interruption changes the training data.
"""

import functools
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grain
import numpy as np

from vmae_keras.data import augment, sampling
from vmae_keras.data.decode import UnreadableVideo, read_frames
from vmae_keras.data.files import VideoFile
from vmae_keras.data.random_streams import Purpose, generator
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.workers import WorkerDataset

SAMPLINGS = ("dense", "uniform")


class ClipSizes(Protocol):
    """Clip sizes, the part of a model configuration that sampling needs."""

    frames: int
    height: int
    width: int
    channels: int


class NoReadableVideo(ValueError):
    """Raised when none of the files can be read."""


@dataclass(frozen=True)
class Clips:
    """Sampling settings of a clip. They are validated when created, before any worker starts."""

    config: ClipSizes
    sampling: str
    stride: int

    def __post_init__(self):
        check_clip(self.config.channels, self.sampling, self.stride)

    @property
    def size(self) -> tuple[int, int]:
        return self.config.height, self.config.width

    def positions(self, ticks: int, generator: np.random.Generator | None) -> np.ndarray:
        """Return the ticks of a random clip, or without a generator of the centre clip: (T,)."""
        if self.sampling == "dense":
            return sampling.dense(ticks, self.config.frames, self.stride, generator)
        return sampling.uniform(ticks, self.config.frames, generator)

    def read(self, path: str, generator: np.random.Generator | None, on_damage) -> np.ndarray:
        """Read a clip at the video's own size: (T, H0, W0, C) uint8."""
        rgb = read_frames(path, lambda ticks: self.positions(ticks, generator), on_damage)
        return rgb if self.config.channels == 3 else augment.luma(rgb)


class Readable:
    """Reader that remembers unreadable files and does not open them again."""

    def __init__(self, paths: tuple[str, ...], clips: Clips, skipped: SkippedFiles):
        self.paths = paths
        self.clips = clips
        self.skipped = skipped
        self.broken: dict[str, str] = {}

    def try_to_read(self, path: str, generator: np.random.Generator | None) -> np.ndarray | None:
        """Return a clip (T, H0, W0, C) uint8 at the video's own size, or None if it cannot be read."""
        if path in self.broken:
            return None

        def on_damage(reason: str) -> None:
            self.skipped.record(path, f"used in part, as far as it decodes: {reason}")

        try:
            return self.clips.read(path, generator, on_damage)
        except UnreadableVideo as error:
            self.broken[path] = error.reason
            self.skipped.record(path, error.reason)
            return None

    def none_readable(self) -> NoReadableVideo:
        first = "; ".join(f"{path}: {reason}" for path, reason in list(self.broken.items())[:3])
        return NoReadableVideo(
            f"None of the {len(self.paths)} files can be read, so there is nothing to train on. "
            f"The first reasons: {first}. The record {self.skipped.path} names them all."
        )


class Batches(Readable):
    """Random access to an endless stream of batches. Subclasses define `sample`.

    Each batch is split into `parts` equal parts, for example one per process. Only part `part` is made.
    """

    def __init__(
        self, paths, clips, skipped, batch_size, repeats, seed, start_step, part=0, parts=1
    ):
        super().__init__(paths, clips, skipped)
        if batch_size % parts:
            raise ValueError(
                f"`batch_size` must be a multiple of `parts`. Received: {batch_size}, parts={parts}."
            )
        self.batch_size = batch_size
        self.repeats = repeats
        self.seed = seed
        self.start_step = start_step
        self.part, self.parts = part, parts

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        first = (self.start_step + index) * self.batch_size
        places = self.places()
        return stack([each for place in places for each in self.samples(first + place)])

    def places(self) -> Sequence[int]:
        """Return the indices of this part's samples within a batch. Clause SHARD-1."""
        size = self.batch_size // self.parts
        return range(self.part * size, (self.part + 1) * size)

    def samples(self, sample: int) -> list[dict[str, np.ndarray]]:
        for index in self.candidates(sample):
            # A new generator for each file, so that draws for a broken file do not affect its replacement.
            draws = generator(self.seed, Purpose.SAMPLE, sample)
            frames = self.try_to_read(self.paths[index], draws)
            if frames is not None:
                return [self.sample(index, frames, draws) for _ in range(self.repeats)]
        raise self.none_readable()

    def candidates(self, sample: int) -> Iterable[int]:
        """Yield the index of the sample's file, then of all files as replacements, in random order."""
        count = len(self.paths)
        epoch, place = divmod(sample, count)
        yield _file_order(count, self.seed, epoch)[place]
        yield from generator(self.seed, Purpose.REPLACEMENT, sample).permutation(count)

    def sample(self, index: int, frames: np.ndarray, generator: np.random.Generator):
        """Make a sample, a dict of arrays, from the decoded frames of file `index`."""
        raise NotImplementedError


@functools.lru_cache(maxsize=4)
def _file_order(count: int, seed: int, epoch: int) -> np.ndarray:
    return generator(seed, Purpose.FILE_ORDER, epoch).permutation(count)


def stack(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}


def read_ahead(samples: Sequence[dict[str, np.ndarray]], workers: int) -> grain.IterDataset:
    """Return the samples in order, prefetched by `workers` processes, or by threads if it is 0."""
    check_at_least(0, workers=workers)
    if workers:
        return WorkerDataset(samples, workers)
    # Every prefetched element occupies memory, so prefetch only one per thread.
    threads = max(2, min(8, os.cpu_count() or 1))
    return grain.MapDataset.source(samples).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    )


def paths_of(files: Sequence[VideoFile]) -> tuple[str, ...]:
    if not files:
        raise ValueError("`files` must name at least one video. Received none: see `list_videos`.")
    return tuple(file.path for file in files)


def check_clip(channels: int, sampling: str, stride: int) -> None:
    if channels not in (1, 3):
        raise ValueError(
            f"`channels` must be 3 (RGB) or 1 (brightness) to read videos. Received: {channels}."
        )
    if sampling not in SAMPLINGS:
        raise ValueError(
            f"`sampling` must be one of {', '.join(SAMPLINGS)}. Received: sampling={sampling!r}."
        )
    check_at_least(1, stride=stride)


def check_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}.")
