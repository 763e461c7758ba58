"""Data pipeline for fine-tuning: labels, classes, and batches of augmented and mixed clips.

A batch is (videos, targets): float32 (B, T, H, W, 3) in [0, 1] and float32 (B, classes), whose rows sum
to 1.
"""

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import grain
import numpy as np

from vmae_keras.data import sampling
from vmae_keras.data.files import VideoFile, list_videos
from vmae_keras.data.finetune_augment import Augmentation
from vmae_keras.data.list_files import LABEL_COLUMNS, header_of
from vmae_keras.data.mixing import Mixing
from vmae_keras.data.names import as_label
from vmae_keras.data.rand_augment import RandAugment
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
)
from vmae_keras.data.view_dataset import centre_view

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_NOT_TEXT = re.compile("[\ud800-\udfff]")
_SEVERAL = re.compile(r"\[?\d+(\s*[,;|]\s*\d+)+\]?")


def list_labelled(source: str | os.PathLike) -> list[VideoFile]:
    """List the labelled videos of a list, a CSV, or a folder with one subfolder per class.

    A label is the name of a class, or its number, counted from 0.

    Raises:
        FileNotFoundError: See `list_videos`.
        ValueError: Videos have no label; the message names the first few. A label is a negative number,
            several numbers, or a number written in two ways (1, 01). See also `list_videos`.
    """
    files = list_videos(source)
    if os.path.isdir(source):
        files = [
            VideoFile(file.path, as_label(parts[0]) if len(parts) > 1 else None)
            for file in files
            for parts in [Path(file.path).relative_to(source).parts]
        ]
    without = [file.path for file in files if file.label is None]
    if without:
        is_csv = os.path.isfile(source) and os.fspath(source).lower().endswith(".csv")
        header = header_of(os.fspath(source)) if is_csv else None
        columns = f" Its columns are {', '.join(header)}." if header else ""
        raise ValueError(
            f"{len(without)} of {len(files)} videos have no label. Received: "
            f"{', '.join(without[:3])}.{columns} Give a list with `path label` in each row, a CSV with a "
            f"column of labels ({', '.join(LABEL_COLUMNS)}), or a folder with a folder for each class."
        )
    _check_labels(files, source)
    return files


def _check_labels(files: Sequence[VideoFile], source: str | os.PathLike) -> None:
    firsts: dict[str, VideoFile] = {}
    for file in files:
        firsts.setdefault(file.label, file)
    spellings: dict[Decimal, str] = {}
    for label, file in firsts.items():
        number = Decimal(label) if _NUMBER.fullmatch(label) else None
        if _NOT_TEXT.search(label):
            wrong = "not UTF-8; save the list as UTF-8"
        elif _SEVERAL.fullmatch(label):
            wrong = "several numbers, and a video has one class"
        elif number is not None and number < 0:
            wrong = "a negative number; -1 alone means that there is no label"
        elif number is not None and spellings.setdefault(number, label) != label:
            other = spellings[number]
            wrong = f"the same number as {other!r} of {_where(firsts[other])}; write it in one way"
        else:
            continue
        raise ValueError(
            f"In {source}, {_where(file)} has a label that is {wrong}. Received: {label!r}."
        )


def _where(file: VideoFile) -> str:
    return file.path if file.row is None else f"row {file.row}"


def classes_of(files: Sequence[VideoFile]) -> tuple[str, ...]:
    """Return the distinct labels, sorted as numbers if all are numbers, else as text."""
    found = {file.label for file in files}
    numbers = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=lambda label: (Decimal(label) if numbers else 0, label)))


def warn_of_one_class(labels: Sequence[str]) -> None:
    """Warn if there is only one class."""
    if len(labels) == 1:
        warnings.warn(
            f"All videos have one class, {labels[0]!r}, so there is nothing to tell apart. Look at the "
            "list's column of labels; of a folder, the folders in it are the classes.",
            UserWarning,
            stacklevel=2,
        )


def class_numbers(files: Sequence[VideoFile], labels: Sequence[str]) -> list[int]:
    """Return the index of each file's label in `labels`.

    Raises:
        ValueError: Labels of files are not in `labels`; the message names the first few.
    """
    places = {label: place for place, label in enumerate(labels)}
    unknown = sorted({file.label for file in files} - places.keys())
    if unknown:
        raise ValueError(
            f"{len(unknown)} labels are no class of the model. Received: {', '.join(unknown[:5])}. "
            f"It knows {', '.join(list(labels)[:5])}{', ...' if len(labels) > 5 else ''}."
        )
    return [places[file.label] for file in files]


@dataclass(frozen=True)
class FineTuningClips(Clips):
    """Clip settings with augmentation and mixing; see `FineTuningRecipe`."""

    augmentation: Augmentation
    mixing: Mixing

    def positions(self, ticks: int, generator: np.random.Generator | None) -> np.ndarray:
        """Return positions as in `Clips`, but spread a dense clip over its window. Clause AUG-11."""
        if self.sampling == "dense":
            return sampling.spread(ticks, self.config.frames, self.stride, generator)
        return super().positions(ticks, generator)


def fine_tuning_clips(config: ClipSizes, recipe, classes: int) -> FineTuningClips:
    """Build the clip settings of a recipe for a model configuration.

    Raises:
        ValueError: A setting is out of range, or the model's videos are not RGB.
    """
    if config.channels != 3:
        raise ValueError(f"Augmentation needs RGB videos. Received: channels={config.channels}.")
    return FineTuningClips(
        config,
        recipe.sampling,
        recipe.stride,
        Augmentation(
            (config.height, config.width),
            RandAugment.parse(recipe.auto_augment) if recipe.auto_augment else None,
            tuple(recipe.crop_area),
            tuple(recipe.crop_aspect),
            recipe.flip_probability,
            recipe.erasing_probability,
            config.mean,
            config.std,
        ),
        Mixing(
            classes,
            recipe.label_smoothing,
            recipe.mixup,
            recipe.cutmix,
            recipe.mixup_probability,
            recipe.cutmix_switch_probability,
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
    check_at_least(1, batch_size=batch_size, repeats=repeats)
    check_at_least(0, start_step=start_step)
    check_seed(seed)
    batches = _LabelledBatches(
        paths_of(files), clips, skipped, batch_size, repeats, seed, start_step, part, parts
    )
    batches.numbers = list(numbers)
    batches.check_pairs()
    return read_ahead(batches, workers)


class _LabelledBatches(Batches):
    def sample(self, index, frames, generator):
        clip = self.clips.augmentation(frames, generator)
        return {"video": clip, "number": np.int64(self.numbers[index])}

    def check_pairs(self):
        size = self.batch_size // self.parts
        if self.clips.mixing.on and self.parts > 1 and size % 2:
            raise ValueError(
                "Clips are mixed in pairs, so each process needs an even number of videos. Received: "
                f"{size} (batch_size={self.batch_size} for {self.parts} processes). Change the batch "
                "size, or set `mixup` and `cutmix` to 0."
            )

    def places(self):
        """Return this part's samples of a batch: each with its partner, last with first. Clause SHARD-2."""
        if not self.clips.mixing.on or self.parts == 1:
            return super().places()
        half = self.batch_size // self.parts // 2
        firsts = range(self.part * half, (self.part + 1) * half)
        return [*firsts, *(self.batch_size - 1 - place for place in reversed(firsts))]

    def __getitem__(self, index):
        batch, mixing = super().__getitem__(index), self.clips.mixing
        draws = generator(self.seed, Purpose.MIXING, self.start_step + index)
        choices = mixing.draw(self.batch_size * self.repeats, self.clips.size, draws)
        mine = [
            choices[place * self.repeats + repeat]
            for place in self.places()
            for repeat in range(self.repeats)
        ]
        videos, targets = mixing.mix(batch["video"], batch["number"], mine)
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
    reader = Readable(paths_of(files), clips, skipped)
    videos, targets = [], []
    for file, number in zip(files, numbers, strict=True):
        frames = reader.try_to_read(file.path, None)
        if frames is not None:
            videos.append(centre_view(frames, clips.size))
            targets.append(np.eye(clips.mixing.classes, dtype="float32")[number])
    return (np.stack(videos), np.stack(targets)) if videos else None
