"""Batches of augmented and mixed clips for fine-tuning, and the clips that it validates on.

A batch is (videos, targets): float32 (B, T, H, W, 3) in [0, 1] and float32 (B, classes), whose rows sum
to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grain
import numpy as np

from vmae_keras.config import VideoMAEConfig
from vmae_keras.data.augmentation import Augmentation
from vmae_keras.data.batches import Arrays, Batches, EachVideo, Videos, part_of, prefetch, stack
from vmae_keras.data.clips import ClipReader
from vmae_keras.data.crops import Size
from vmae_keras.data.files import VideoFile
from vmae_keras.data.labelled import LabelledSource, as_labelled, class_numbers, classes_of
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


def fine_tuning_clips(
    config: VideoMAEConfig,
    classes: int,
    *,
    sampling: str = "dense",
    stride: int = 4,
    auto_augment: str | None = "rand-m7-n4-mstd0.5-inc1",
    crop_area: Sequence[float] = (0.08, 1.0),
    crop_aspect: Sequence[float] = (0.75, 1.3333),
    flip_probability: float = 0.5,
    erasing_probability: float = 0.25,
    label_smoothing: float = 0.1,
    mixup: float = 0.8,
    cutmix: float = 1.0,
    mixup_probability: float = 1.0,
    cutmix_switch_probability: float = 0.5,
) -> FineTuningClips:
    """Build the clip settings for a model configuration. See `fine_tuning_dataset` for the arguments.

    Raises:
        ValueError: A setting is out of range, or the model's videos are not RGB.
    """
    if config.channels != 3:
        raise ValueError(f"Augmentation needs RGB videos. Received: channels={config.channels}.")
    return FineTuningClips(
        ClipReader(config, sampling, stride, spread=True),
        Augmentation(
            size=(config.height, config.width),
            rand_augment=RandAugment.parse(auto_augment) if auto_augment else None,
            crop_area=tuple(crop_area),
            crop_aspect=tuple(crop_aspect),
            flip_probability=flip_probability,
            erasing_probability=erasing_probability,
            mean=config.mean or (),
            std=config.std or (),
        ),
        Mixing(
            classes=classes,
            label_smoothing=label_smoothing,
            mixup=mixup,
            cutmix=cutmix,
            probability=mixup_probability,
            switch_probability=cutmix_switch_probability,
        ),
    )


def fine_tuning_dataset(
    videos: LabelledSource,
    config: VideoMAEConfig,
    *,
    batch_size: int,
    labels: Sequence[str] | None = None,
    repeats: int = 1,
    seed: int = 0,
    start_step: int = 0,
    part: int = 0,
    parts: int = 1,
    workers: int = 0,
    skipped: SkippedFiles | None = None,
    **augmentation: Any,
) -> grain.IterDataset:
    """Return endless batches of augmented and mixed clips with their targets, starting at `start_step`.

    A batch is (videos, targets), which `VideoClassifier.fit` takes with a categorical cross-entropy:
    float32 (B, T, H, W, 3) in [0, 1], and float32 (B, classes), whose rows sum to 1.

    Batch k depends only on the files, the settings, `seed` and k. If clips are mixed, the two clips of a
    pair are adjacent, and a part of a batch contains whole pairs. Clause SHARD-2.

    Args:
        videos: Videos with labels: a list, a CSV or a folder with a folder for each class.
        config: Configuration of the model.
        batch_size: Global batch size in videos. A batch has `batch_size * repeats` clips.
        labels: Names of the classes in the order of the model's outputs; None sorts the videos' labels.
        repeats: Number of clips made from each decoded video.
        seed, start_step, part, parts, workers, skipped: See `pretraining_dataset`.
        augmentation: Options by name, with the published defaults:
            `sampling` ("dense") and `stride` (4), as in `pretraining_dataset`;
            `auto_augment` ("rand-m7-n4-mstd0.5-inc1"), the RandAugment policy, or None;
            `crop_area` (0.08, 1.0) and `crop_aspect` (0.75, 1.3333), ranges of the random crop's share of
            the frame and of its aspect ratio, relative to that of the model's clips;
            `flip_probability` (0.5) and `erasing_probability` (0.25), per clip;
            `label_smoothing` (0.1), the share of a label that is spread over all classes;
            `mixup` (0.8) and `cutmix` (1.0), parameters of their beta distributions, 0 for none;
            `mixup_probability` (1.0), the share of batches that are mixed;
            `cutmix_switch_probability` (0.5), the share of mixed batches that use cutmix.

    Raises:
        FileNotFoundError: See `list_videos`.
        ValueError: A setting is out of range, there is no file, a label is none of `labels`, or clips are
            mixed and a part has an odd number of videos.
        NoReadableVideo: None of the files can be read. Raised while iterating.

    Example:
        import keras
        from vmae_keras import AdamW, VideoClassifier, fine_tuning_dataset

        classifier = VideoClassifier.from_preset("pretrained", labels=["jump", "run"])
        batches = fine_tuning_dataset(
            "train.csv", classifier.config, labels=classifier.labels, batch_size=2, mixup=0.0
        )
        classifier.compile(
            AdamW(1e-3, layer_decay=0.75), keras.losses.CategoricalCrossentropy(from_logits=True)
        )
        classifier.fit(batches, steps_per_epoch=2, shuffle=False)
    """
    files = as_labelled(videos)
    labels = classes_of(files) if labels is None else labels
    clips = fine_tuning_clips(config, len(labels), **augmentation)
    numbers = class_numbers(files, labels)
    mixed = clips.mixing.on and parts > 1
    batches = Batches(
        Videos(files, clips.read, skipped),
        partial(_augmented_sample, augmentation=clips.augmentation, numbers=numbers),
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


def _mix(batch: Arrays, step: int, *, mixing: Mixing, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mix the clips of a batch and their classes, and put the clips of a pair side by side."""
    videos = batch["video"]
    choice = mixing.draw(videos.shape[2:4], generator(seed, Purpose.MIXING, step))
    videos, targets = mixing.mix(videos, batch["number"], choice)
    if mixing.on:
        firsts, seconds = np.arange(len(videos)).reshape(2, -1)
        order = np.stack([firsts, seconds[::-1]], axis=1).reshape(-1)
        videos, targets = videos[order], targets[order]
    return videos, targets


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
