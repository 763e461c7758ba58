"""The folder of one run: its settings, its log and where everything in it lies."""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vmae_keras import masks
from vmae_keras.config import VideoMAEConfig
from vmae_keras.cost import pretraining_multiply_accumulates, view_multiply_accumulates
from vmae_keras.data.files import VideoFile
from vmae_keras.data.names import as_path
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.views import CLIPS
from vmae_keras.random_streams import DRAWS, check_seed
from vmae_keras.recipes.distillation import DistillationRecipe
from vmae_keras.recipes.fine_tuning import FineTuningRecipe
from vmae_keras.recipes.recipe import Recipe
from vmae_keras.recipes.values import check_key, typed
from vmae_keras.weights.json_files import read_settings

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "clips_per_second",
)


class RunError(ValueError):
    """A run folder is missing, incomplete or already in use."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is needed to repeat or continue a run, kept in its `run.json`.

    Args:
        data: where the videos came from: a folder, glob, list or CSV.
        videos: `digest` of the list of files, to notice that it changed.
        config, recipe: the model and how it is trained.
        seed: of initial weights, data order, crops and masks.
        backend: "jax", "tensorflow" or "torch".
        draws: the version of how random numbers are drawn, `random_streams.DRAWS`; those of another
            version cannot continue.

    Raises:
        ValueError: the recipe's masks do not fit the model's grid, or videos have no such channels.
    """

    data: str
    videos: str
    config: VideoMAEConfig
    recipe: Recipe
    seed: int
    backend: str
    draws: int = DRAWS

    stage = "pretraining"
    labelled = False  # labels of the list are not read

    def __post_init__(self):
        if self.config.channels not in (1, 3):
            raise ValueError(
                "`channels` must be 3 (RGB) or 1 (brightness) to train on videos. "
                f"Received: channels={self.config.channels}."
            )
        check_seed(self.seed)
        masks.pretraining(
            self.config.grid,
            np.random.default_rng(0),
            kind=self.recipe.mask,
            ratio=self.recipe.mask_ratio,
            decoder_ratio=self.recipe.decoder_mask_ratio,
        )

    @property
    def cost(self) -> int:
        """Multiply-accumulates of one clip's forward; the masks' counts do not depend on the draw."""
        recipe, config = self.recipe, self.config
        ids = masks.pretraining(
            config.grid,
            np.random.default_rng(0),
            kind=recipe.mask,
            ratio=recipe.mask_ratio,
            decoder_ratio=recipe.decoder_mask_ratio,
        )
        return pretraining_multiply_accumulates(config, len(ids["visible"]), len(ids["decoded"]))


@dataclasses.dataclass(frozen=True)
class FineTuningSettings:
    """The same of a run that fine-tunes.

    Args:
        start: the preset whose encoder training starts from; None starts from random weights.
        labels: the names of the classes.
        head: "new", or "mapped" from the start's head by the names of the classes.

    And those of `Settings`.
    """

    data: str
    videos: str
    start: str | None
    labels: tuple[str, ...]
    config: VideoMAEConfig
    recipe: FineTuningRecipe
    seed: int
    backend: str
    head: str = "new"
    draws: int = DRAWS

    stage = "fine-tuning"
    labelled = True

    def __post_init__(self):
        check_seed(self.seed)
        if self.head not in ("new", "mapped"):
            raise ValueError(f"`head` must be 'new' or 'mapped'. Received: head={self.head!r}.")
        if self.head == "mapped" and not self.start:
            raise ValueError("A head is mapped from a start, and none is given. Give --start.")

    @property
    def classes(self) -> int:
        return len(self.labels)

    @property
    def cost(self) -> int:
        return view_multiply_accumulates(self.config, self.classes)


@dataclasses.dataclass(frozen=True)
class DistillationSettings:
    """The same of a run that distils.

    Args:
        teacher: the preset that the student learns from.
        start: the preset whose encoder the student starts from; None starts from random weights.
        classes, labels: the teacher's, or of its features their number and None.

    And those of `Settings`.
    """

    data: str
    videos: str
    teacher: str
    start: str | None
    classes: int
    labels: tuple[str, ...] | None
    config: VideoMAEConfig
    recipe: DistillationRecipe
    seed: int
    backend: str
    draws: int = DRAWS

    stage = "distillation"
    labelled = False
    head = "new"

    def __post_init__(self):
        check_seed(self.seed)

    @property
    def cost(self) -> int:
        return view_multiply_accumulates(self.config, self.classes)


STAGES = {
    "pretraining": (Settings, Recipe),
    "fine-tuning": (FineTuningSettings, FineTuningRecipe),
    "distillation": (DistillationSettings, DistillationRecipe),
}
AnySettings = Settings | FineTuningSettings | DistillationSettings


def evaluation_views(settings: AnySettings | None) -> dict[str, str | int]:
    """How a model's videos are looked at: as its run's recipe says, else as the published ones were."""
    if settings is None:
        return {"sampling": "dense", "stride": 4, "clips": CLIPS["dense"], "crops": 3}
    r = settings.recipe
    views = {"sampling": r.sampling, "stride": r.stride, "clips": CLIPS[r.sampling], "crops": 3}
    if not isinstance(settings, Settings):
        views |= {"clips": r.test_clips, "crops": r.test_crops}
        if r.sampling == "uniform":  # earlier versions allowed more, and could not evaluate
            views["clips"] = min(r.test_clips, CLIPS["uniform"])
    return views


def _settings(values: dict) -> AnySettings:
    settings, recipe = STAGES[values.pop("stage", Settings.stage)]
    values.setdefault("draws", 1)
    for name in ("data", "start", "teacher"):
        if isinstance(values.get(name), str):
            values[name] = as_path(values[name])  # another locale may have begun the run
    made = {"config": VideoMAEConfig(**values["config"]), "recipe": _made(recipe, values["recipe"])}
    return _made(settings, {**values, **made})


def _made(kind, values):
    """Make a dataclass of values out of JSON, each of its field's type."""
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    for key in values:
        check_key(key, types)
    return kind(**{key: typed(key, value, types[key]) for key, value in values.items()})


class Run:
    """Paths and files of a run folder.

    run.json settings; log.csv the loss curve; checkpoints/; best/
    the best weights where a patience asks for them; tensorboard/; skipped.jsonl the broken
    files; loss.png.

    Args:
        process: of several that train together the first one writes. The others write nothing but the
            broken files that they met, each to a file of its own: skipped-1.jsonl, ...
    """

    def __init__(self, folder: str | Path, process: int = 0):
        self.folder, self.writes = Path(folder), process == 0
        self.checkpoints = self.folder / "checkpoints"
        self.best = self.folder / "best"
        self.tensorboard = self.folder / "tensorboard"
        self.skipped = self.folder / (f"skipped-{process}.jsonl" if process else "skipped.jsonl")
        self.log = self.folder / "log.csv"
        self.loss_picture = self.folder / "loss.png"
        self._settings = self.folder / "run.json"

    def exists(self) -> bool:
        return self._settings.is_file()

    def save(self, settings: AnySettings):
        """Write the settings of a new run; best weights that an earlier attempt left are removed."""
        if self.writes:
            shutil.rmtree(self.best, ignore_errors=True)
            self.update(settings)

    def update(self, settings: AnySettings):
        """Write the settings."""
        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        values = {"stage": settings.stage, **dataclasses.asdict(settings)}
        write_at_once(self._settings, json.dumps(values, indent=2) + "\n")

    def settings(self) -> AnySettings:
        """Raises RunError where there is no run, or its run.json cannot be read."""
        if not self.exists():
            raise RunError(
                f"{self.folder} holds no run (no run.json). Give the folder that `vmae pretrain --out` "
                "wrote."
            )
        try:
            return _settings(read_settings(self._settings))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise RunError(f"{self._settings} cannot be read: {error}") from error

    def skipped_files(self) -> SkippedFiles:
        """The record of broken files; a run that has no checkpoint yet begins a new one."""
        if not any(self.checkpoints.glob("*.safetensors")):
            self.skipped.unlink(missing_ok=True)  # of an attempt that came to nothing
        return SkippedFiles(self.skipped)

    def rows(self) -> list[dict]:
        """The loss curve so far, rows of `COLUMNS` with None where empty."""
        return [
            {name: float(row[name]) if row.get(name) else None for name in COLUMNS}
            for row in self._texts()
        ]

    def rewind(self, step: int):
        """Forgets what was logged after a step: the run will log it again."""
        if not self.writes:
            return
        kept = [row for row in self._texts() if float(row["step"]) <= step]
        lines = [COLUMNS, *(tuple(row.get(name) or "" for name in COLUMNS) for row in kept)]
        write_at_once(self.log, "".join(",".join(line) + "\n" for line in lines))

    def _texts(self):
        if not self.log.is_file():
            return []
        with open(self.log, newline="", encoding="utf-8") as file:
            # A line that a killed process left half-written lacks its last columns.
            return [row for row in csv.DictReader(file) if None not in row.values()]

    def append(self, row: dict):
        if not self.writes:
            return
        values = ("" if row.get(name) is None else repr(row[name]) for name in COLUMNS)
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(",".join(values) + "\n")


def digest(files: Sequence[VideoFile], labelled: bool) -> str:
    """Return a short name for the paths of a list in their order; `labelled`, for their labels too."""
    rows = (f"{file.path}\n{file.label}" if labelled else file.path for file in files)
    # File names need not be UTF-8.
    return hashlib.sha256("\n".join(rows).encode(errors="surrogateescape")).hexdigest()[:16]


def write_at_once(path: Path, text: str):
    """Replace a file such that no reader, and no crash, ever sees a part of it."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, "utf-8", "backslashreplace")  # names need not be UTF-8
        os.replace(partial, path)
    except OSError:  # a full disk
        partial.unlink(missing_ok=True)
        raise
