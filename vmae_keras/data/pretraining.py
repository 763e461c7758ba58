"""Batches of clips and masks for pretraining.

A batch is a dict of arrays: `video` (B, T, H, W, C) uint8, `visible` (B, V) int32, `decoded` (B, M)
int32 and, with a decoder mask, `weight` (B, M) float32.
"""

import os
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

import grain
import numpy as np

from vmae_keras import masks
from vmae_keras.data import crops
from vmae_keras.data.batches import Arrays, Batches, EachVideo, Videos, part_of, prefetch, stack
from vmae_keras.data.checks import check_at_least
from vmae_keras.data.clips import ClipReader, ClipSizes
from vmae_keras.data.files import VideoSource, list_videos
from vmae_keras.data.random_streams import Purpose, check_seed, generator
from vmae_keras.data.skipped import SkippedFiles

DrawMasks = Callable[[np.random.Generator], Arrays]


class MaskedClipSizes(ClipSizes, Protocol):
    """Clip sizes and mask grid, the part of a model configuration that the pipeline needs."""

    @property
    def grid(self) -> tuple[int, int, int]: ...


def pretraining_dataset(
    videos: VideoSource,
    config: MaskedClipSizes,
    *,
    batch_size: int,
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
    skipped: SkippedFiles | None = None,
) -> grain.IterDataset:
    """Return endless batches of randomly cropped and masked clips, starting at batch `start_step`.

    A batch is a dict, which `VideoMAE.fit` takes: `video` (B, T, H, W, C) uint8, `visible` (B, V) int32,
    `decoded` (B, M) int32 and, with a decoder mask, `weight` (B, M) float32.

    Batch k depends only on the files, the settings, `seed` and k. The files are shuffled anew in each
    epoch. Batches cross epoch boundaries, so no video is left over.

    Args:
        videos: Videos; see `list_videos`.
        config: Size of the clips and grid of the masks: a `VideoMAEConfig`.
        batch_size: Global batch size in videos. A batch has `batch_size * repeats` clips.
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
        skipped: Record of unreadable files, each of which is replaced by another file. None warns of them.

    Raises:
        FileNotFoundError: See `list_videos`.
        ValueError: A setting is out of range, or there is no file.
        NoReadableVideo: None of the files can be read. Raised while iterating.

    Example:
        from vmae_keras import AdamW, VideoMAE, VideoMAEConfig, pretraining_dataset

        config = VideoMAEConfig.variant("tiny")
        batches = pretraining_dataset("clips", config, batch_size=2, mask_ratio=0.75)
        model = VideoMAE(config)
        model.compile(AdamW(1e-3))
        model.fit(batches, steps_per_epoch=2, shuffle=False)
    """
    read = ClipReader(config, sampling, stride)
    draw_masks = _mask_drawer(config, mask, mask_ratio, decoder_mask_ratio)
    batches = Batches(
        Videos(list_videos(videos), read, skipped),
        partial(_random_sample, size=(config.height, config.width), draw_masks=draw_masks),
        batch_size=batch_size,
        repeats=repeats,
        seed=seed,
        start_step=start_step,
        places=part_of(batch_size, part, parts),
    )
    return prefetch(batches, workers)


def validation_dataset(
    videos: VideoSource,
    config: MaskedClipSizes,
    *,
    batch_size: int,
    sampling: str = "dense",
    stride: int = 4,
    mask: str = "tube",
    mask_ratio: float = 0.9,
    decoder_mask_ratio: float | None = None,
    seed: int = 0,
    workers: int = 0,
    skipped: SkippedFiles | None = None,
) -> grain.IterDataset:
    """Return one pass over the files in order, with centre clips, centre crops and fixed masks.

    The mask of a file depends on `seed` and the file's index in `videos`. Unreadable files are recorded and
    dropped. So there are ceil(readable files / batch_size) batches, and the last one may be smaller.
    Iterate again for another pass. The arguments are the same as in `pretraining_dataset`.

    Raises:
        ValueError: A setting is out of range, or there is no file.
        NoReadableVideo: None of the files can be read.
    """
    check_at_least(1, batch_size=batch_size)
    check_seed(seed)
    read = ClipReader(config, sampling, stride)
    draw_masks = _mask_drawer(config, mask, mask_ratio, decoder_mask_ratio)
    samples = EachVideo(
        Videos(list_videos(videos), read, skipped),
        partial(
            _centre_sample, size=(config.height, config.width), draw_masks=draw_masks, seed=seed
        ),
    )
    samples.check_any_readable()
    return samples.dataset(workers).batch(batch_size, drop_remainder=False, batch_fn=stack)


def read_clip(
    path: str | os.PathLike,
    *,
    frames: int = 16,
    size: int | tuple[int, int] = 224,
    channels: int = 3,
    stride: int = 4,
    sampling: str = "dense",
) -> np.ndarray:
    """Read the centre clip of a video, centre-cropped: (frames, height, width, channels) uint8.

    Args:
        path: A video file.
        frames: Number of frames.
        size: Height and width in pixels, or one number for both.
        channels: 3 for RGB, 1 for brightness.
        stride: Distance between the frames in dense sampling, in frames of the video.
        sampling: "dense" for every `stride`-th frame, "uniform" for one frame per segment of the video.

    Raises:
        ValueError: A setting is out of range.
        UnreadableVideo: No frame can be read.

    Example:
        import numpy as np
        from vmae_keras import read_clip

        clips = [read_clip(path, frames=8, stride=2, size=64) for path in ("a.mp4", "b.mp4")]
        videos = np.stack(clips)  # (2, 8, 64, 64, 3), uint8
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    sizes = SimpleNamespace(frames=frames, height=height, width=width, channels=channels)
    read = ClipReader(sizes, sampling, stride)
    return _centre_crop(read(os.fspath(path), None, lambda reason: None), (height, width))


def _mask_drawer(
    config: MaskedClipSizes, mask: str, mask_ratio: float, decoder_mask_ratio: float | None
) -> DrawMasks:
    """Return the function that draws the masks of a clip. Raise ValueError if a setting is out of range."""
    settings: dict[str, Any] = {
        "kind": mask,
        "ratio": mask_ratio,
        "decoder_ratio": decoder_mask_ratio,
    }
    masks.count_tokens(config.grid, **settings)  # raises if the masks do not fit
    return partial(masks.pretraining, config.grid, **settings)


def _random_sample(
    index: int,
    frames: np.ndarray,
    generator: np.random.Generator,
    *,
    size: crops.Size,
    draw_masks: DrawMasks,
) -> Arrays:
    """Make a randomly cropped and masked clip."""
    box = crops.multi_scale_crop(frames.shape[1:3], size, generator)
    return {"video": crops.resize(frames, box, size), **draw_masks(generator)}


def _centre_sample(
    index: int, frames: np.ndarray, *, size: crops.Size, draw_masks: DrawMasks, seed: int
) -> Arrays:
    """Make a centre-cropped clip, whose masks depend on the seed and the file's index."""
    draws = generator(seed, Purpose.VALIDATION_MASK, index)
    return {"video": _centre_crop(frames, size), **draw_masks(draws)}


def _centre_crop(frames: np.ndarray, size: crops.Size) -> np.ndarray:
    return crops.resize(frames, crops.centre_crop(frames.shape[1:3], size), size)
