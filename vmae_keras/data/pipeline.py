"""Data pipeline for pretraining: batches of clips and masks, on Grain.

A batch is a dict of arrays: `video` (B, T, H, W, C) uint8, `visible` (B, V) int32, `decoded` (B, M)
int32 and, with a decoder mask, `weight` (B, M) float32.

All randomness is derived from the seed and the sample's number, not from where or when the sample is
made. So neither the number of workers nor an interruption changes the training data.
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
    """Clip sizes and mask grid, the part of a model configuration that the pipeline needs."""

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
    """Return endless batches of randomly cropped and masked clips, starting at batch `start_step`.

    Batch k depends only on the files, the settings, `seed` and k. The files are shuffled anew in each
    epoch. Batches cross epoch boundaries, so no video is left over.

    Args:
        files: Videos, from `list_videos`.
        config: Size of the clips and grid of the masks.
        batch_size: Global batch size in videos. A batch has `batch_size * repeats` clips.
        skipped: Record of unreadable files. Another file replaces each of them.
        sampling: "dense" for a window of `frames * stride` ticks, "uniform" for one tick per segment.
        stride: Ticks between the frames of a dense clip.
        repeats: Number of crops and masks made from each decoded clip (V2's repeated augmentation).
        mask: Kind of mask, as in `masks.pretraining`.
        mask_ratio: Share of masked tokens, as in `masks.pretraining`.
        decoder_mask_ratio: Ratio of the decoder mask, as in `masks.pretraining`.
        seed: Random seed, not negative.
        start_step: Number of batches to skip, to resume a run.
        part: Index of the part of each batch to return, for one process of several.
        parts: Number of equal parts of a batch.
        workers: Number of worker processes; with 0, threads of this process make the batches. Workers are
            spawned and import the program's main module, so a script needs the usual
            `if __name__ == "__main__"`.

    Raises:
        ValueError: A setting is out of range, or there is no file.
        NoReadableVideo: None of the files can be read. Raised while iterating.
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
    """Return one pass over the files in order, with centre clips, centre crops and fixed masks.

    The mask of a file depends on `seed` and the file's index in `files`. Unreadable files are recorded and
    dropped. So there are ceil(readable files / batch_size) batches, and the last one may be smaller.
    Iterate again for another pass. The arguments are the same as in `pretraining_dataset`.

    Raises:
        ValueError: A setting is out of range, or there is no file.
        NoReadableVideo: None of the files can be read.
    """
    check_at_least(1, batch_size=batch_size)
    check_seed(seed)
    clips = _MaskedClips(config, sampling, stride, mask, mask_ratio, decoder_mask_ratio)
    samples = _CentreSamples(paths_of(files), clips, skipped, seed)
    samples.check_any_readable()
    # Unreadable files come as {} and are dropped here, after the workers: workers take turns, so dropping
    # elements earlier would change the order.
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
    """Read the centre clip of a video, centre-cropped: (frames, height, width, channels) uint8.

    Raises:
        ValueError: A setting is out of range.
        UnreadableVideo: No frame can be read.
    """
    sizes = SimpleNamespace(frames=frames, height=height, width=width, channels=channels)
    decoded = Clips(sizes, sampling, stride).read(path, None, lambda reason: None)
    box = augment.centre_crop(decoded.shape[1:3], (height, width))
    return augment.resize(decoded, box, (height, width))


@dataclass(frozen=True)
class _MaskedClips(Clips):
    """Clip settings with the settings of the masks."""

    mask: str
    mask_ratio: float
    decoder_mask_ratio: float | None

    def __post_init__(self):
        super().__post_init__()
        masks.count_tokens(self.config.grid, **self._mask)  # raises if the masks do not fit

    def masks(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        return masks.pretraining(self.config.grid, generator, **self._mask)

    @property
    def _mask(self):
        return {
            "kind": self.mask,
            "ratio": self.mask_ratio,
            "decoder_ratio": self.decoder_mask_ratio,
        }


class _Batches(Batches):
    """Endless stream of pretraining batches."""

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
