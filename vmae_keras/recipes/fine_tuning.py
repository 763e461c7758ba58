"""Recipes of fine-tuning. Their values are in `pages/`."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, Self

from vmae_keras.data.views import CLIPS
from vmae_keras.recipes.base import TrainingRecipe
from vmae_keras.recipes.page_files import Recipes
from vmae_keras.variants import POOLINGS

_CLIP_OPTIONS = (
    "sampling",
    "stride",
    "auto_augment",
    "crop_area",
    "crop_aspect",
    "flip_probability",
    "erasing_probability",
    "label_smoothing",
    "mixup",
    "cutmix",
    "mixup_probability",
    "cutmix_switch_probability",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningRecipe(TrainingRecipe):
    """Hyper-parameters of a fine-tuning run, apart from the encoder's architecture and the data.

    Args:
        layer_decay: Factor of the learning rate for each layer below the head.
        drop_path, head_dropout, pooling, init_scale: Options of the model; see `VideoClassifier`.
        freeze_encoder: Train only `fc_norm` and the head.
        lora_rank: Train only LoRA matrices of this rank for each kernel of the encoder's blocks, `fc_norm`
            and the head; None trains all weights.
        label_smoothing: Share of a label that is spread over all classes.
        mixup, cutmix: Parameters of their beta distributions; 0 for none.
        mixup_probability: Share of batches that are mixed.
        cutmix_switch_probability: Share of mixed batches that use cutmix.
        auto_augment: RandAugment specification such as "rand-m7-n4-mstd0.5-inc1"; None for none.
        crop_area, crop_aspect: Ranges of the random crop's share of the frame and of its aspect ratio,
            the latter relative to that of the model's clips.
        flip_probability, erasing_probability: Shares of clips that are flipped or erased.
        test_clips, test_crops: Numbers of views of a video whose probabilities are averaged.

    The other arguments and the errors are those of `TrainingRecipe`.

    Source: clauses FT-*, AUG-*, MIX-*, EVAL-*; each page names its own source.
    """

    warmup_epochs: float = 5
    minimum_learning_rate: float = 1e-6
    repeats: int = 2
    beta_2: float = 0.999
    layer_decay: float = 0.75
    drop_path: float = 0.1
    head_dropout: float = 0.0
    pooling: str = "mean"
    init_scale: float = 0.001
    freeze_encoder: bool = False
    lora_rank: int | None = None
    label_smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    mixup_probability: float = 1.0
    cutmix_switch_probability: float = 0.5
    auto_augment: str | None = "rand-m7-n4-mstd0.5-inc1"
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (0.75, 1.3333)
    flip_probability: float = 0.5
    erasing_probability: float = 0.25
    test_clips: int = 5
    test_crops: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least(1, "test_clips", "test_crops")
        self._check_shares("drop_path", "head_dropout", "label_smoothing")
        self._check_choices(pooling=POOLINGS)
        self._check_not_negative("mixup", "cutmix", "init_scale")
        for name in (field.name for field in dataclasses.fields(self)):
            if name.endswith("_probability") and not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"`{name}` must be in [0, 1]. Received: {getattr(self, name)}.")
        if self.mixes_clips and self.batch_size * self.repeats % 2:
            raise ValueError(
                "Clips are mixed in pairs, so a batch must hold an even number of them. Received: "
                f"batch_size={self.batch_size}, repeats={self.repeats}. Change one of them, or set mixup "
                "and cutmix to 0."
            )
        if self.lora_rank is not None and (self.lora_rank < 1 or self.freeze_encoder):
            raise ValueError(
                "`lora_rank` must be at least 1, and needs an encoder that is not frozen. Received: "
                f"lora_rank={self.lora_rank}, freeze_encoder={self.freeze_encoder}."
            )
        if not 0.0 < self.layer_decay <= 1.0:
            raise ValueError(
                f"`layer_decay` must be above 0 and at most 1. Received: {self.layer_decay}."
            )

    @property
    def mixes_clips(self) -> bool:
        """Return whether the clips of a batch are mixed in pairs."""
        return bool(self.mixup or self.cutmix)

    def clip_options(self) -> dict[str, Any]:
        """Return the options of `data.fine_tuning.fine_tuning_clips`."""
        return {name: getattr(self, name) for name in _CLIP_OPTIONS}

    def fitted(self, page: Mapping[str, Any], changes: Mapping[str, Any]) -> Self:
        """Fit as `TrainingRecipe.fitted` does, and limit `test_clips` to what the sampling allows."""
        fitted = super().fitted(page, changes)
        most = CLIPS[self.sampling]
        if self.sampling != "uniform" or self.test_clips <= most:
            return fitted
        if "test_clips" in changes:
            raise ValueError(
                f"Uniform sampling has at most {most} clips of a video. Received: "
                f"test_clips={self.test_clips}. Use 1 or 2."
            )
        warnings.warn(
            f"Uniform sampling has at most {most} clips of a video, so test_clips is {most}, not "
            f"{self.test_clips}.",
            stacklevel=2,
        )
        return dataclasses.replace(fitted, test_clips=most)


def for_mapped_head(
    recipe: FineTuningRecipe, changes: Mapping[str, Any], pooling: str
) -> FineTuningRecipe:
    """Return the recipe with the pooling of the mapped head, and warn if it had another one.

    Args:
        changes: Values that the user set.
        pooling: Pooling of the start, which the mapped head was trained with.

    Raises:
        ValueError: The user set another pooling.
    """
    if changes.get("pooling", pooling) != pooling:
        raise ValueError(
            f"A mapped head keeps its pooling. Received: pooling={changes['pooling']!r}, the start's is "
            f"{pooling!r}. Leave `pooling` out, or take a new head (--head new)."
        )
    if recipe.pooling != pooling:
        warnings.warn(
            f"The mapped head keeps the pooling of its start, so pooling is {pooling!r}, not the recipe's "
            f"{recipe.pooling!r}.",
            stacklevel=2,
        )
    return dataclasses.replace(recipe, pooling=pooling)


RECIPES = Recipes("fine-tuning", FineTuningRecipe)
