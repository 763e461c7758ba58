"""The settings of a run: everything that is needed to repeat or resume it."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from vmae_keras.config import VideoMAEConfig
from vmae_keras.cost import pretraining_multiply_accumulates, view_multiply_accumulates
from vmae_keras.data.files import VideoFile
from vmae_keras.data.names import as_path
from vmae_keras.data.random_streams import DRAWS, check_seed
from vmae_keras.data.views import CLIPS
from vmae_keras.recipes.distillation import DistillationRecipe
from vmae_keras.recipes.fine_tuning import FineTuningRecipe
from vmae_keras.recipes.recipe import PretrainingRecipe
from vmae_keras.recipes.values import check_key, typed

HEADS = ("new", "mapped")


@dataclasses.dataclass(frozen=True)
class PretrainingSettings:
    """The settings of a run that pretrains.

    Args:
        data: Source of the videos: a folder, glob, list or CSV.
        videos: `digest` of the list of files, to notice that it changed.
        config, recipe: The model and how it is trained.
        seed: Random seed for weights, data order, crops and masks.
        backend: "jax", "tensorflow" or "torch".
        draws: Version of the random draws, `random_streams.DRAWS`. A run of another version cannot
            resume.

    Raises:
        ValueError: The recipe's masks do not fit the model's grid, or videos have no such channels.
    """

    data: str
    videos: str
    config: VideoMAEConfig
    recipe: PretrainingRecipe
    seed: int
    backend: str
    draws: int = DRAWS

    stage: ClassVar[str] = "pretraining"
    command: ClassVar[str] = "pretrain"
    labelled: ClassVar[bool] = False  # labels of the list are not read
    is_classifier: ClassVar[bool] = False

    def __post_init__(self):
        if self.config.channels not in (1, 3):
            raise ValueError(
                "`channels` must be 3 (RGB) or 1 (brightness) to train on videos. "
                f"Received: channels={self.config.channels}."
            )
        check_seed(self.seed)
        self.recipe.draw_masks(self.config.grid, np.random.default_rng(0))

    @property
    def cost(self) -> int:
        """Multiply-accumulates of the forward pass of one clip."""
        # The number of ids does not depend on the draw.
        ids = self.recipe.draw_masks(self.config.grid, np.random.default_rng(0))
        return pretraining_multiply_accumulates(
            self.config, len(ids["visible"]), len(ids["decoded"])
        )


@dataclasses.dataclass(frozen=True)
class FineTuningSettings:
    """The settings of a run that fine-tunes.

    Args:
        start: The preset whose encoder training starts from; None for random weights.
        labels: Names of the classes.
        head: "new", or "mapped" from the start's head by the names of the classes.

    The other arguments are those of `PretrainingSettings`.
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

    stage: ClassVar[str] = "fine-tuning"
    command: ClassVar[str] = "finetune"
    labelled: ClassVar[bool] = True
    is_classifier: ClassVar[bool] = True

    def __post_init__(self):
        check_seed(self.seed)
        if self.head not in HEADS:
            raise ValueError(f"`head` must be 'new' or 'mapped'. Received: head={self.head!r}.")
        if self.head == "mapped" and not self.start:
            raise ValueError("A head is mapped from a start, and none is given. Give --start.")

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def cost(self) -> int:
        """Multiply-accumulates of the forward pass of one view."""
        return view_multiply_accumulates(self.config, self.classes)


@dataclasses.dataclass(frozen=True)
class DistillationSettings:
    """The settings of a run that distils.

    Args:
        teacher: The preset that the student learns from.
        start: The preset whose encoder the student starts from; None for random weights.
        classes, labels: Those of the teacher; for features their number and None.

    The other arguments are those of `PretrainingSettings`.
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

    stage: ClassVar[str] = "distillation"
    command: ClassVar[str] = "distill"
    labelled: ClassVar[bool] = False
    is_classifier: ClassVar[bool] = True
    head: ClassVar[str] = "new"

    def __post_init__(self):
        check_seed(self.seed)

    @property
    def cost(self) -> int:
        """Multiply-accumulates of the forward pass of one view."""
        return view_multiply_accumulates(self.config, self.classes)


AnySettings = PretrainingSettings | FineTuningSettings | DistillationSettings
RECIPES_OF = {
    PretrainingSettings: PretrainingRecipe,
    FineTuningSettings: FineTuningRecipe,
    DistillationSettings: DistillationRecipe,
}
STAGES = {settings.stage: settings for settings in RECIPES_OF}


def stage_of(values: dict[str, Any]) -> type[AnySettings]:
    """Return the kind of settings that the JSON of a run holds; at first only pretraining was known.

    Raises:
        ValueError: No stage has that name.
    """
    stage = values.get("stage", PretrainingSettings.stage)
    check_key(str(stage), STAGES, "stage")
    return STAGES[stage]


def parse_settings(values: dict[str, Any]) -> AnySettings:
    """Return the settings in the JSON of a run.

    Raises:
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError: The values describe no run.
    """
    kind = stage_of(values)
    values = {name: value for name, value in values.items() if name != "stage"}
    values.setdefault("draws", 1)
    for name in ("data", "start", "teacher"):
        if isinstance(values.get(name), str):
            values[name] = as_path(values[name])  # another locale may have begun the run
    values["config"] = VideoMAEConfig(**values["config"])
    values["recipe"] = _from_json(RECIPES_OF[kind], values["recipe"])
    return _from_json(kind, values)


def settings_as_json(settings: AnySettings) -> dict[str, Any]:
    """Return what `parse_settings` reads."""
    return {"stage": settings.stage, **dataclasses.asdict(settings)}


def evaluation_views(settings: AnySettings | None) -> dict[str, str | int]:
    """Return the views that evaluate a model: those of its run's recipe, else those of the papers."""
    if settings is None:
        return {"sampling": "dense", "stride": 4, "clips": CLIPS["dense"], "crops": 3}
    r = settings.recipe
    views = {"sampling": r.sampling, "stride": r.stride, "clips": CLIPS[r.sampling], "crops": 3}
    if settings.is_classifier:
        views |= {"clips": r.test_clips, "crops": r.test_crops}
        if r.sampling == "uniform":  # earlier versions allowed more, and could not evaluate
            views["clips"] = min(r.test_clips, CLIPS["uniform"])
    return views


def digest(files: Sequence[VideoFile], labelled: bool) -> str:
    """Return a short digest of the paths of a list in their order, and of the labels if `labelled`."""
    rows = (f"{file.path}\n{file.label}" if labelled else file.path for file in files)
    # File names need not be UTF-8.
    return hashlib.sha256("\n".join(rows).encode(errors="surrogateescape")).hexdigest()[:16]


def _from_json(kind, values):
    """Make a dataclass of JSON values, each checked against the type of its field."""
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    for key in values:
        check_key(key, types)
    return kind(**{key: typed(key, value, types[key]) for key, value in values.items()})
