"""Batches of samples from video files, on Grain: order, unreadable files, parts, prefetching.

A data set is composed of a function that reads the frames of a sample from a file, and a function that
makes the sample from these frames. `Batches` shuffles the files without end, for training. `EachVideo` goes
through them once, in order.

All randomness is derived from the seed and the sample's number, not from where or when the sample is
made. So neither the number of workers nor an interruption changes the training data.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grain
import numpy as np

from vmae_keras.data.checks import check_at_least
from vmae_keras.data.files import VideoFile
from vmae_keras.data.random_streams import Purpose, check_seed, generator
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.video import OnDamage, UnreadableVideo
from vmae_keras.data.workers import WorkerDataset

Arrays = dict[str, Any]  # NumPy arrays and integers


class NoReadableVideo(ValueError):
    """Raised when none of the files can be read."""


class Videos:
    """Video files, read by index. Unreadable ones are recorded and not opened again.

    Args:
        files: Videos, from `list_videos`.
        read: Function (path, generator, on_damage) -> the frames of a sample. The generator may be None.
        skipped: Record of unreadable files. None warns of them.

    Raises:
        ValueError: There is no file.
    """

    def __init__(
        self,
        files: Sequence[VideoFile],
        read: Callable[[str, np.random.Generator | None, OnDamage], np.ndarray],
        skipped: SkippedFiles | None = None,
    ) -> None:
        self.paths = paths_of(files)
        self.read = read
        self.skipped = skipped or SkippedFiles()
        self.broken: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def try_to_read(
        self, index: int, generator: np.random.Generator | None = None
    ) -> np.ndarray | None:
        """Return the frames of a sample of file `index`, or None if the file cannot be read."""
        path = self.paths[index]
        if path in self.broken:
            return None

        def on_damage(reason: str) -> None:
            self.skipped.record(path, f"used in part, as far as it decodes: {reason}")

        try:
            return self.read(path, generator, on_damage)
        except UnreadableVideo as error:
            self.broken[path] = error.reason
            self.skipped.record(path, error.reason)
            return None

    def none_readable(self) -> NoReadableVideo:
        first = "; ".join(f"{path}: {reason}" for path, reason in list(self.broken.items())[:3])
        return NoReadableVideo(
            f"None of the {len(self.paths)} files can be read, so there is nothing to train on. "
            f"The first reasons: {first}.{self.skipped.hint}"
        )


class Batches:
    """Random access to an endless stream of batches.

    The files are shuffled anew in each epoch. Batches cross epoch boundaries, so no video is left over.

    Args:
        videos: Videos to read.
        make_sample: Function (file index, frames, generator) -> sample, a dict of arrays.
        batch_size: Global batch size in videos.
        repeats: Number of samples made from the frames of each video.
        seed: Random seed.
        start_step: Number of batches to skip, to resume a run.
        places: Indices of the videos of each batch to use, as from `part_of`.
        finish: Function (batch, step) -> element, applied to the stacked samples; None for none.

    Raises:
        ValueError: A setting is out of range.
    """

    def __init__(
        self,
        videos: Videos,
        make_sample: Callable[[int, np.ndarray, np.random.Generator], Arrays],
        *,
        batch_size: int,
        repeats: int,
        seed: int,
        start_step: int,
        places: Sequence[int],
        finish: Callable[[Arrays, int], Any] | None = None,
    ) -> None:
        check_at_least(1, batch_size=batch_size, repeats=repeats)
        check_at_least(0, start_step=start_step)
        check_seed(seed)
        self.videos, self.make_sample, self.finish = videos, make_sample, finish
        self.batch_size, self.repeats, self.places = batch_size, repeats, places
        self.seed, self.start_step = seed, start_step

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Any:
        step = self.start_step + index
        first = step * self.batch_size
        batch = stack([each for place in self.places for each in self.samples(first + place)])
        return self.finish(batch, step) if self.finish else batch

    def samples(self, number: int) -> list[Arrays]:
        """Return the samples made from the frames of one readable video."""
        for index in self.candidates(number):
            # A new generator for each file, so that draws for a broken file do not affect its replacement.
            draws = generator(self.seed, Purpose.SAMPLE, number)
            frames = self.videos.try_to_read(index, draws)
            if frames is not None:
                return [self.make_sample(index, frames, draws) for _ in range(self.repeats)]
        raise self.videos.none_readable()

    def candidates(self, number: int) -> Iterable[int]:
        """Yield the index of the sample's file, then of all files as replacements, in random order."""
        count = len(self.videos)
        epoch, place = divmod(number, count)
        yield _file_order(count, self.seed, epoch)[place]
        yield from generator(self.seed, Purpose.REPLACEMENT, number).permutation(count)


@functools.lru_cache(maxsize=4)
def _file_order(count: int, seed: int, epoch: int) -> np.ndarray:
    return generator(seed, Purpose.FILE_ORDER, epoch).permutation(count)


def part_of(batch_size: int, part: int, parts: int) -> range:
    """Return the indices of a part's samples within a batch. Clause SHARD-1.

    Raises:
        ValueError: The batch cannot be divided into equal parts.
    """
    if batch_size % parts:
        raise ValueError(
            f"`batch_size` must be a multiple of `parts`. Received: {batch_size}, parts={parts}."
        )
    size = batch_size // parts
    return range(part * size, (part + 1) * size)


class EachVideo:
    """Random access to one sample of each file, in order; {} for a file that cannot be read.

    Args:
        videos: Videos to read.
        make_sample: Function (file index, frames) -> sample, a dict of arrays.
    """

    def __init__(self, videos: Videos, make_sample: Callable[[int, np.ndarray], Arrays]) -> None:
        self.videos, self.make_sample = videos, make_sample
        self._made: dict[int, Arrays] = {}

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Arrays:
        if index in self._made:
            return self._made[index]
        frames = self.videos.try_to_read(index)
        return {} if frames is None else self.make_sample(index, frames)

    def check_any_readable(self) -> None:
        """Raise NoReadableVideo if no file can be read. Keep the first sample, which is thus made once."""
        for index in range(len(self)):
            if sample := self[index]:
                self._made[index] = sample
                return
        raise self.videos.none_readable()

    def dataset(self, workers: int) -> grain.IterDataset:
        """Return the samples of readable files, made by `workers` processes; see `prefetch`."""
        # Unreadable files are dropped after the workers: workers take turns, so dropping elements earlier
        # would change the order.
        return prefetch(self, workers).filter(bool)


def stack(samples: Sequence[Arrays]) -> Arrays:
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}


def prefetch(elements: grain.sources.RandomAccessDataSource, workers: int) -> grain.IterDataset:
    """Return the elements in order, prefetched by `workers` processes, or by threads if it is 0."""
    check_at_least(0, workers=workers)
    if workers:
        return WorkerDataset(elements, workers)
    # Every prefetched element occupies memory, so prefetch only one per thread.
    threads = max(2, min(8, os.cpu_count() or 1))
    return grain.MapDataset.source(elements).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    )


def paths_of(files: Sequence[VideoFile]) -> tuple[str, ...]:
    if not files:
        raise ValueError("`videos` must name at least one video. Received none: see `list_videos`.")
    return tuple(file.path for file in files)
