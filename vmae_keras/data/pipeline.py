"""Videos to batches of clips and masks, on Grain.

A batch is a dict of arrays: `video` (B, T, H, W, C) uint8, `visible` (B, V) int32, `decoded` (B, M)
int32 and, with a decoder mask, `weight` (B, M) float32.

Everything random is drawn from the seed and a sample's number, nothing from where or when the
sample is made: neither the number of workers nor an interruption changes what training sees.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Protocol

import grain
import numpy as np

from vmae_keras import masks
from vmae_keras.data import augment
from vmae_keras.data.files import VideoFile
from vmae_keras.data.random_streams import Purpose, check_seed, generator
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.stream import (
    Batches,
    Clips,
    ClipSizes,
    Readable,
    check_at_least,
    paths_of,
    read_ahead,
    stack,
)


class MaskedClipSizes(ClipSizes, Protocol):
    """What a model configuration says about its clips and masks."""

    grid: tuple[int, int, int]


def pretraining_dataset(
    files: Sequence[VideoFile],
    config: MaskedClipSizes,
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
    part: int = 0,
    parts: int = 1,
    workers: int = 0,
) -> grain.IterDataset:
    """Endless batches of randomly cropped and masked clips, from batch `start_step` on.

    Batch k is a function of the files, the settings, `seed` and k alone. The files are passed
    through epoch after epoch, each in an order of its own; batches run across the ends of epochs,
    so that no video is left over.

    Args:
        files: from `list_videos`.
        config: gives the size of the clips and the grid of the masks.
        batch_size: videos in a whole batch. It holds `batch_size * repeats` clips.
        skipped: where files that cannot be read are recorded. Another file takes their place.
        sampling: "dense", a window of `frames * stride` ticks, or "uniform", one of each segment.
        stride: ticks between the frames of a dense clip.
        repeats: crops and masks made of each clip that is decoded (V2's repeated augmentation).
        mask, mask_ratio, decoder_mask_ratio: as in `masks.pretraining`.
        seed: not negative.
        start_step: batches to leave out, to continue an interrupted run.
        part, parts: of each batch only this one of so many equal parts, for one process of many.
        workers: processes that make batches; with 0 threads of this process make them. A worker
            imports the main module of the program, as any spawned process, so a script needs the
            usual `if __name__ == "__main__"`.

    Raises:
        ValueError: a setting out of range, or no file.
        NoReadableVideo: while iterating, if not one of the files can be read.
    """
    check_at_least(1, batch_size=batch_size, repeats=repeats)
    check_at_least(0, start_step=start_step)
    check_seed(seed)
    clips = _MaskedClips(config, sampling, stride, mask, mask_ratio, decoder_mask_ratio)
    batches = _Batches(
        paths_of(files), clips, skipped, batch_size, repeats, seed, start_step, part, parts
    )
    return read_ahead(batches, workers)


def validation_dataset(
    files: Sequence[VideoFile],
    config: MaskedClipSizes,
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
    check_at_least(1, batch_size=batch_size)
    check_seed(seed)
    clips = _MaskedClips(config, sampling, stride, mask, mask_ratio, decoder_mask_ratio)
    samples = _CentreSamples(paths_of(files), clips, skipped, seed)
    samples.check_any_readable()
    # What cannot be read comes as {} and is dropped here, after the workers: they take turns, and
    # dropping it before would change the order.
    dataset = read_ahead(samples, workers).filter(bool)
    return dataset.batch(batch_size, drop_remainder=False, batch_fn=stack)


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
    sizes = SimpleNamespace(frames=frames, height=height, width=width, channels=channels)
    decoded = Clips(sizes, sampling, stride).read(path, None, lambda reason: None)
    box = augment.centre_crop(decoded.shape[1:3], (height, width))
    return augment.resize(decoded, box, (height, width))


@dataclass(frozen=True)
class _MaskedClips(Clips):
    """And how their masks are made."""

    mask: str
    mask_ratio: float
    decoder_mask_ratio: float | None

    def __post_init__(self):
        super().__post_init__()
        self.masks(np.random.default_rng(0))

    def masks(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        return masks.pretraining(
            self.config.grid,
            generator,
            kind=self.mask,
            ratio=self.mask_ratio,
            decoder_ratio=self.decoder_mask_ratio,
        )


class _Batches(Batches):
    """The endless stream of pretraining batches."""

    def sample(self, index, frames, generator) -> dict[str, np.ndarray]:
        size = self.clips.size
        box = augment.multi_scale_crop(frames.shape[1:3], size, generator)
        return {"video": augment.resize(frames, box, size), **self.clips.masks(generator)}


class _CentreSamples(Readable):
    """Random access to validation samples; {} for a file that cannot be read."""

    def __init__(self, paths, clips, skipped, seed):
        super().__init__(paths, clips, skipped)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        frames = self.try_to_read(self.paths[index], None)
        if frames is None:
            return {}
        size = self.clips.size
        video = augment.resize(frames, augment.centre_crop(frames.shape[1:3], size), size)
        draws = generator(self.seed, Purpose.VALIDATION_MASK, index)
        return {"video": video, **self.clips.masks(draws)}

    def check_any_readable(self) -> None:
        if all(self.try_to_read(path, None) is None for path in self.paths):
            raise self.none_readable()
