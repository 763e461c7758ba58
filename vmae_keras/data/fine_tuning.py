"""Batches of augmented and mixed clips for fine-tuning, and the clips that it validates on.

A batch is a dict of arrays: `video` float32 (B, T, H, W, 3) in [0, 1] and `target` float32 (B, classes),
whose rows sum to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grain
import numpy as np

from vmae_keras.data.augment import Size
from vmae_keras.data.batches import Arrays, Batches, EachVideo, Videos, part_of, prefetch, stack
from vmae_keras.data.clips import ClipReader, ClipSizes
from vmae_keras.data.files import VideoFile
from vmae_keras.data.finetune_augment import Augmentation
from vmae_keras.data.mixing import Mixing
from vmae_keras.data.rand_augment import RandAugment
from vmae_keras.data.random_streams import Purpose, generator
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.view_dataset import centre_view


@dataclass(frozen=True)
class FineTuningClips:
    """Settings of reading, augmenting and mixing clips, from `fine_tuning_clips`."""

    read: ClipReader
    augmentation: Augmentation
    mixing: Mixing

    @property
    def size(self) -> Size:
        return self.read.sizes.height, self.read.sizes.width


def fine_tuning_clips(config: ClipSizes, recipe: Any, classes: int) -> FineTuningClips:
    """Build the clip settings of a `FineTuningRecipe` for a model configuration.

    Raises:
        ValueError: A setting is out of range, or the model's videos are not RGB.
    """
    if config.channels != 3:
        raise ValueError(f"Augmentation needs RGB videos. Received: channels={config.channels}.")
    return FineTuningClips(
        ClipReader(config, recipe.sampling, recipe.stride, spread=True),
        Augmentation(
            size=(config.height, config.width),
            rand_augment=RandAugment.parse(recipe.auto_augment) if recipe.auto_augment else None,
            crop_area=tuple(recipe.crop_area),
            crop_aspect=tuple(recipe.crop_aspect),
            flip_probability=recipe.flip_probability,
            erasing_probability=recipe.erasing_probability,
            mean=config.mean,
            std=config.std,
        ),
        Mixing(
            classes=classes,
            label_smoothing=recipe.label_smoothing,
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
            probability=recipe.mixup_probability,
            switch_probability=recipe.cutmix_switch_probability,
        ),
    )


def fine_tuning_dataset(
    files: Sequence[VideoFile],
    numbers: Sequence[int],
    clips: FineTuningClips,
    *,
    batch_size: int,
    skipped: SkippedFiles,
    repeats: int = 1,
    seed: int = 0,
    start_step: int = 0,
    part: int = 0,
    parts: int = 1,
    workers: int = 0,
) -> grain.IterDataset:
    """Return endless batches of augmented and mixed clips with their targets, starting at `start_step`.

    Batch k depends only on the files, the settings, `seed` and k. If clips are mixed, the two clips of a
    pair are adjacent, and a part of a batch contains whole pairs. Clause SHARD-2.

    Args:
        files: See `pretraining_dataset`, also for the arguments not listed here.
        numbers: Class number of each file.
        clips: Clip settings from `fine_tuning_clips`.

    Raises:
        ValueError: A setting is out of range, there is no file, or clips are mixed and a part has an odd
            number of videos.
        NoReadableVideo: None of the files can be read. Raised while iterating.
    """
    mixed = clips.mixing.on and parts > 1
    batches = Batches(
        Videos(files, clips.read, skipped),
        partial(_augmented_sample, augmentation=clips.augmentation, numbers=list(numbers)),
        batch_size=batch_size,
        repeats=repeats,
        seed=seed,
        start_step=start_step,
        places=(_paired_part_of if mixed else part_of)(batch_size, part, parts),
        finish=partial(_mix, mixing=clips.mixing, seed=seed),
    )
    return prefetch(batches, workers)


def _paired_part_of(batch_size: int, part: int, parts: int) -> list[int]:
    """Return the indices of a part's samples within a mixed batch, with their partners. Clause SHARD-2."""
    size = len(part_of(batch_size, part, parts))
    if size % 2:
        raise ValueError(
            "Clips are mixed in pairs, so each process needs an even number of videos. Received: "
            f"{size} (batch_size={batch_size} for {parts} processes). Change the batch size, or set "
            "`mixup` and `cutmix` to 0."
        )
    firsts = range(part * size // 2, (part + 1) * size // 2)
    return [*firsts, *(batch_size - 1 - place for place in reversed(firsts))]


def _augmented_sample(
    index: int,
    frames: np.ndarray,
    generator: np.random.Generator,
    *,
    augmentation: Augmentation,
    numbers: Sequence[int],
) -> Arrays:
    return {"video": augmentation(frames, generator), "number": np.int64(numbers[index])}


def _mix(batch: Arrays, step: int, *, mixing: Mixing, seed: int) -> Arrays:
    """Mix the clips of a batch and their classes, and put the clips of a pair side by side."""
    videos = batch["video"]
    choice = mixing.draw(videos.shape[2:4], generator(seed, Purpose.MIXING, step))
    videos, targets = mixing.mix(videos, batch["number"], choice)
    if mixing.on:
        order = np.arange(len(videos)).reshape(2, -1)
        order = np.stack([order[0], order[1, ::-1]], axis=1).reshape(-1)
        videos, targets = videos[order], targets[order]
    return {"video": videos, "target": targets}


def centre_clips(
    files: Sequence[VideoFile],
    numbers: Sequence[int],
    clips: FineTuningClips,
    skipped: SkippedFiles,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the centre clips of readable files, uint8 (n, T, H, W, 3), and their targets, or None.

    Validation during training uses a single view of each video; `vmae_keras.evaluation` uses several.
    Returns None if no file can be read.

    Source: official VideoMAE V2 `datasets.py` in validation; clause EVAL-6.
    """
    if not files:
        return None
    one_hot = np.eye(clips.mixing.classes, dtype="float32")[list(numbers)]
    samples = EachVideo(
        Videos(files, clips.read, skipped),
        lambda index, frames: {"video": centre_view(frames, clips.size), "target": one_hot[index]},
    )
    readable = [sample for index in range(len(files)) if (sample := samples[index])]
    if not readable:
        return None
    batch = stack(readable)
    return batch["video"], batch["target"]
