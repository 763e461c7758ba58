"""Videos to batches of clips and masks, on Grain.

A batch is a dict of arrays: `video` (B, T, H, W, C) uint8, `visible` (B, V) int32, `decoded` (B, M)
int32 and, with a decoder mask, `weight` (B, M) float32.

Everything random is drawn from the seed and a sample's number, nothing from where or when the
sample is made: neither the number of workers nor an interruption changes what training sees.
"""

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grain
import numpy as np
from absl import flags

from vmae_keras import masks
from vmae_keras.data import augment
from vmae_keras.data import sampling as positions
from vmae_keras.data.decode import UnreadableVideo, read_frames
from vmae_keras.data.files import VideoFile
from vmae_keras.data.skipped import SkippedFiles

SAMPLINGS = ("dense", "uniform")
# Streams of random numbers beside a sample's own, (seed, sample).
_ORDER, _REPLACEMENT = 1, 2


class ClipSizes(Protocol):
    """What a model configuration says about its clips."""

    frames: int
    height: int
    width: int
    channels: int
    grid: tuple[int, int, int]


class NoReadableVideo(ValueError):
    """Not one of the files can be read."""


def pretraining_dataset(
    files: Sequence[VideoFile],
    config: ClipSizes,
    *,
    batch_size: int,
    skipped: SkippedFiles,
    sampling: str = "dense",
    stride: int = 4,
    repeats: int = 1,
    mask: str = "tube",
    mask_ratio: float = 0.9,
    decoder_mask_ratio: float | None = None,
    seed: int = 0,
    start_step: int = 0,
    workers: int = 0,
) -> grain.IterDataset:
    """Endless batches of randomly cropped and masked clips, from batch `start_step` on.

    Batch k is a function of the files, the settings, `seed` and k alone. The files are passed
    through epoch after epoch, each in an order of its own; batches run across the ends of epochs,
    so that no video is left over.

    Args:
        files: from `list_videos`.
        config: gives the size of the clips and the grid of the masks.
        batch_size: videos in a batch. It holds `batch_size * repeats` clips.
        skipped: where files that cannot be read are recorded. Another file takes their place.
        sampling: "dense", a window of `frames * stride` ticks, or "uniform", one of each segment.
        stride: ticks between the frames of a dense clip.
        repeats: crops and masks made of each clip that is decoded (V2's repeated augmentation).
        mask, mask_ratio, decoder_mask_ratio: as in `masks.pretraining`.
        seed: not negative.
        start_step: batches to leave out, to continue an interrupted run.
        workers: processes that make batches; with 0 threads of this process make them. A worker
            imports the main module of the program, as any spawned process, so a script needs the
            usual `if __name__ == "__main__"`.

    Raises:
        ValueError: a setting out of range, or no file.
        NoReadableVideo: while iterating, if not one of the files can be read.
    """
    _check_at_least(1, batch_size=batch_size, repeats=repeats)
    _check_at_least(0, seed=seed, start_step=start_step)
    recipe = _Recipe(config, sampling, stride, mask, mask_ratio, decoder_mask_ratio)
    batches = _Batches(_paths(files), recipe, skipped, batch_size, repeats, seed, start_step)
    return _read_ahead(grain.MapDataset.source(batches), workers)


def validation_dataset(
    files: Sequence[VideoFile],
    config: ClipSizes,
    *,
    batch_size: int,
    skipped: SkippedFiles,
    sampling: str = "dense",
    stride: int = 4,
    mask: str = "tube",
    mask_ratio: float = 0.9,
    decoder_mask_ratio: float | None = None,
    seed: int = 0,
    workers: int = 0,
) -> grain.IterDataset:
    """One pass over the files in order: centre clips, centre crops, the same masks every time.

    The mask of a file is drawn from `seed` and its place in `files`. Files that cannot be read are
    recorded and left out. So there are ceil(readable files / batch_size) batches, the last of which
    may be smaller; iterate again for another pass. Arguments are those of `pretraining_dataset`.

    Raises:
        ValueError: a setting out of range, or no file.
        NoReadableVideo: not one of the files can be read.
    """
    _check_at_least(1, batch_size=batch_size)
    _check_at_least(0, seed=seed)
    recipe = _Recipe(config, sampling, stride, mask, mask_ratio, decoder_mask_ratio)
    samples = _CentreSamples(_paths(files), recipe, skipped, seed)
    samples.check_any_readable()
    # What cannot be read comes as {} and is dropped here, after the workers: they take turns, and
    # dropping it before would change the order.
    dataset = _read_ahead(grain.MapDataset.source(samples), workers).filter(bool)
    return dataset.batch(batch_size, drop_remainder=False, batch_fn=_stack)


def read_clip(
    path: str | os.PathLike,
    *,
    frames: int,
    height: int,
    width: int,
    channels: int = 3,
    stride: int = 4,
    sampling: str = "dense",
) -> np.ndarray:
    """The centre clip of a video, cropped in the centre: (frames, height, width, channels) uint8.

    Raises:
        ValueError: a setting out of range.
        UnreadableVideo: no frame can be read.
    """
    _check_clip(channels, sampling, stride)
    decoded = _read(path, frames, channels, sampling, stride, None)
    box = augment.centre_crop(decoded.shape[1:3], (height, width))
    return augment.resize(decoded, box, (height, width))


@dataclass(frozen=True)
class _Recipe:
    """How a clip and its masks are made; checked when built, before any worker starts."""

    config: ClipSizes
    sampling: str
    stride: int
    mask: str
    mask_ratio: float
    decoder_mask_ratio: float | None

    def __post_init__(self):
        _check_clip(self.config.channels, self.sampling, self.stride)
        self.masks(np.random.default_rng(0))

    @property
    def size(self) -> tuple[int, int]:
        return self.config.height, self.config.width

    def read(self, path: str, generator: np.random.Generator | None, on_damage) -> np.ndarray:
        config = self.config
        return _read(
            path, config.frames, config.channels, self.sampling, self.stride, generator, on_damage
        )

    def masks(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        return masks.pretraining(
            self.config.grid,
            generator,
            kind=self.mask,
            ratio=self.mask_ratio,
            decoder_ratio=self.decoder_mask_ratio,
        )


class _Readable:
    """Tries files, and remembers those that cannot be read so as not to open them again."""

    def __init__(self, paths: tuple[str, ...], recipe: _Recipe, skipped: SkippedFiles):
        self.paths = paths
        self.recipe = recipe
        self.skipped = skipped
        self.broken: dict[str, str] = {}

    def try_to_read(self, path: str, generator: np.random.Generator | None) -> np.ndarray | None:
        """(T, H, W, C) uint8 at the size of the video, or None."""
        if path in self.broken:
            return None

        def on_damage(reason: str) -> None:
            self.skipped.record(path, f"used in part, as far as it decodes: {reason}")

        try:
            return self.recipe.read(path, generator, on_damage)
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


class _Batches(_Readable):
    """Random access to the endless stream of pretraining batches."""

    def __init__(self, paths, recipe, skipped, batch_size, repeats, seed, start_step):
        super().__init__(paths, recipe, skipped)
        self.batch_size = batch_size
        self.repeats = repeats
        self.seed = seed
        self.start_step = start_step

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        first = (self.start_step + index) * self.batch_size
        samples = range(first, first + self.batch_size)
        return _stack([clip for sample in samples for clip in self.clips(sample)])

    def clips(self, sample: int) -> list[dict[str, np.ndarray]]:
        for index in self.candidates(sample):
            # A new generator for each file: what a broken one drew must not change the next one's.
            generator = np.random.default_rng((self.seed, sample))
            frames = self.try_to_read(self.paths[index], generator)
            if frames is not None:
                return [self.augmented(frames, generator) for _ in range(self.repeats)]
        raise self.none_readable()

    def candidates(self, sample: int) -> Iterable[int]:
        """The file whose turn it is, then all files as replacements in an order of the sample's."""
        count = len(self.paths)
        epoch, place = divmod(sample, count)
        yield _permutation(count, self.seed, epoch, _ORDER)[place]
        yield from np.random.default_rng((self.seed, sample, _REPLACEMENT)).permutation(count)

    def augmented(self, frames, generator) -> dict[str, np.ndarray]:
        size = self.recipe.size
        box = augment.multi_scale_crop(frames.shape[1:3], size, generator)
        return {"video": augment.resize(frames, box, size), **self.recipe.masks(generator)}


class _CentreSamples(_Readable):
    """Random access to validation samples; {} for a file that cannot be read."""

    def __init__(self, paths, recipe, skipped, seed):
        super().__init__(paths, recipe, skipped)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        frames = self.try_to_read(self.paths[index], None)
        if frames is None:
            return {}
        size = self.recipe.size
        video = augment.resize(frames, augment.centre_crop(frames.shape[1:3], size), size)
        return {"video": video, **self.recipe.masks(np.random.default_rng((self.seed, index)))}

    def check_any_readable(self) -> None:
        if all(self.try_to_read(path, None) is None for path in self.paths):
            raise self.none_readable()


@functools.lru_cache(maxsize=4)
def _permutation(count: int, *seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)


def _read(
    path, frames, channels, sampling, stride, generator, on_damage=lambda reason: None
) -> np.ndarray:
    def choose(ticks: int) -> np.ndarray:
        if sampling == "dense":
            return positions.dense(ticks, frames, stride, generator)
        return positions.uniform(ticks, frames, generator)

    rgb = read_frames(path, choose, on_damage)
    return rgb if channels == 3 else augment.luma(rgb)


def _stack(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}


def _read_ahead(dataset: grain.MapDataset, workers: int) -> grain.IterDataset:
    _check_at_least(0, workers=workers)
    # Each element read ahead is held in memory: as many as there are threads, and no more.
    threads = 1 if workers else max(2, min(8, os.cpu_count() or 1))
    elements = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    )
    if not workers:
        return elements
    _mark_worker_flag_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    return elements.mp_prefetch(options, worker_init_fn=_end_with_main_process).map(_copy)


def _end_with_main_process(worker: int, workers: int) -> None:
    # Ctrl-C reaches every process of a terminal; the main one decides, and needs batches until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    # A worker waits for room in its queue for ever if the main process is killed; Grain lets it.
    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _copy(element: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    # From the workers' shared memory, which so is given back at once, to ordinary arrays.
    return {key: np.array(value) for key, value in element.items()}


def _mark_worker_flag_as_parsed() -> None:
    # Beside JAX, Grain 0.2.18 reads this flag when it starts workers, and absl refuses to tell the
    # value of a flag in a program that has not parsed its flags. Its default, no, is what we want.
    name = "grain_enable_multiprocess_worker_profiling"
    if name in flags.FLAGS:
        flags.FLAGS[name].present = True


def _paths(files: Sequence[VideoFile]) -> tuple[str, ...]:
    if not files:
        raise ValueError("`files` must name at least one video. Received none: see `list_videos`.")
    return tuple(file.path for file in files)


def _check_clip(channels: int, sampling: str, stride: int) -> None:
    if channels not in (1, 3):
        raise ValueError(
            f"`channels` must be 3 (RGB) or 1 (brightness) to read videos. Received: {channels}."
        )
    if sampling not in SAMPLINGS:
        raise ValueError(
            f"`sampling` must be one of {', '.join(SAMPLINGS)}. Received: sampling={sampling!r}."
        )
    _check_at_least(1, stride=stride)


def _check_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}.")
