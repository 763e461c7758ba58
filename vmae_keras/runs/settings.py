"""Settings of a run: everything needed to repeat or resume it."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

from vmae_keras.config import VideoMAEConfig
from vmae_keras.cost import pretraining_multiply_accumulates, view_multiply_accumulates
from vmae_keras.data.files import VideoFile
from vmae_keras.data.path_text import as_path
from vmae_keras.data.random_streams import DRAWS, check_seed
from vmae_keras.data.views import CLIPS
from vmae_keras.recipes.distillation import DistillationRecipe
from vmae_keras.recipes.fine_tuning import FineTuningRecipe
from vmae_keras.recipes.pretraining import PretrainingRecipe
from vmae_keras.recipes.values import check_key, typed
from vmae_keras.runs import HEADS


@dataclasses.dataclass(frozen=True)
class PretrainingSettings:
    """Settings of a pretraining run.

    Args:
        data: Source of the videos: a folder, glob, list or CSV.
        videos: `digest` of the list of files, to detect changes.
        config, recipe: Configuration of the model, and hyper-parameters of training.
        seed: Random seed for weights, data order, crops and masks.
        backend: "jax", "tensorflow" or "torch".
        draws: Version of the random draws, `random_streams.DRAWS`. A run of another version cannot
            resume.

    Raises:
        ValueError: The recipe's masks do not fit the model's grid, or the channels are not 1 or 3.
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
    labelled: ClassVar[bool] = False  # labels in the list are not used
    is_classifier: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.config.channels not in (1, 3):
            raise ValueError(
                "`channels` must be 3 (RGB) or 1 (brightness) to train on videos. "
                f"Received: channels={self.config.channels}."
            )
        check_seed(self.seed)
        self.recipe.count_tokens(self.config.grid)  # raises if the masks do not fit

    @property
    def cost(self) -> int:
        """Multiply-accumulates of the forward pass of one clip."""
        return pretraining_multiply_accumulates(
            self.config, *self.recipe.count_tokens(self.config.grid)
        )


@dataclasses.dataclass(frozen=True)
class FineTuningSettings:
    """Settings of a fine-tuning run.

    Args:
        start: Preset whose encoder training starts from; None for random weights.
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

    def __post_init__(self) -> None:
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
    """Settings of a distillation run.

    Args:
        teacher: Preset that the student learns from.
        start: Preset whose encoder the student starts from; None for random weights.
        classes, labels: Number and names of the teacher's classes; for features, their number and None.

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

    def __post_init__(self) -> None:
        check_seed(self.seed)

    @property
    def cost(self) -> int:
        """Multiply-accumulates of the forward pass of one view."""
        return view_multiply_accumulates(self.config, self.classes)


AnySettings = PretrainingSettings | FineTuningSettings | DistillationSettings
RECIPES_OF: dict[type[AnySettings], type] = {
    PretrainingSettings: PretrainingRecipe,
    FineTuningSettings: FineTuningRecipe,
    DistillationSettings: DistillationRecipe,
}
SETTINGS_OF = {settings.stage: settings for settings in RECIPES_OF}


def find_settings_class(values: dict[str, Any]) -> type[AnySettings]:
    """Return the class of the settings in the JSON of a run. Without a stage, it is pretraining.

    Raises:
        ValueError: The stage is unknown.
    """
    stage = values.get("stage", PretrainingSettings.stage)
    check_key(str(stage), SETTINGS_OF, "stage")
    return SETTINGS_OF[stage]


def parse_settings(values: dict[str, Any]) -> AnySettings:
    """Return the settings in the JSON of a run.

    Raises:
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError: The values are invalid.
    """
    settings_class = find_settings_class(values)
    values = {name: value for name, value in values.items() if name != "stage"}
    values.setdefault("draws", 1)
    for name in ("data", "start", "teacher"):
        if isinstance(values.get(name), str):
            values[name] = as_path(values[name])  # the run may have begun under another locale
    values["config"] = VideoMAEConfig(**values["config"])
    values["recipe"] = _from_json(RECIPES_OF[settings_class], values["recipe"])
    return _from_json(settings_class, values)


def settings_as_json(settings: AnySettings) -> dict[str, Any]:
    """Return the settings as JSON values for `parse_settings`."""
    return {"stage": settings.stage, **dataclasses.asdict(settings)}


def evaluation_views(settings: AnySettings | None) -> dict[str, Any]:
    """Return the views for evaluating a model: those of its run's recipe, else those of the papers."""
    if settings is None:
        return {"sampling": "dense", "stride": 4, "clips": CLIPS["dense"], "crops": 3}
    r = settings.recipe
    views: dict[str, Any] = {
        "sampling": r.sampling,
        "stride": r.stride,
        "clips": CLIPS[r.sampling],
        "crops": 3,
    }
    if settings.is_classifier and isinstance(r, FineTuningRecipe):
        views |= {"clips": r.test_clips, "crops": r.test_crops}
        if r.sampling == "uniform":  # recipes of earlier versions could have more, which fails
            views["clips"] = min(r.test_clips, CLIPS["uniform"])
    return views


def digest(files: Sequence[VideoFile], labelled: bool) -> str:
    """Return a short digest of the paths in a list in order, and of the labels if `labelled`."""
    rows = (f"{file.path}\n{file.label}" if labelled else file.path for file in files)
    # File names need not be UTF-8.
    return hashlib.sha256("\n".join(rows).encode(errors="surrogateescape")).hexdigest()[:16]


def _from_json(dataclass: type, values: dict[str, Any]) -> Any:
    """Construct a dataclass from JSON values, each checked against the type of its field."""
    types = {field.name: field.type for field in dataclasses.fields(dataclass)}
    for key in values:
        check_key(key, types)
    return dataclass(**{key: typed(key, value, types[key]) for key, value in values.items()})
