"""Base class of the recipes of every stage."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any, Self

from vmae_keras.data import SAMPLINGS

FEW_UPDATES = 200
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """Hyper-parameters of every training run on videos.

    Args:
        epochs, warmup_epochs: Numbers of epochs. An epoch draws one clip of each video.
        batch_size: Global batch size in videos per step. The model sees `repeats` times as many clips.
        repeats: Samples drawn from each decoded video (V2's repeated augmentation). They do not scale the
            learning rate.
        accumulate: Batches per update of the weights. Multiplies the effective batch size.
        base_learning_rate, minimum_learning_rate: Learning rates per 256 videos, scaled with the effective
            batch size.
        weight_decay, beta_1, beta_2: Parameters of AdamW.
        clip_norm: Limit of the gradients' global norm; None for none.
        sampling: "dense" (a window of frames x stride) or "uniform" (one frame per segment).
        stride: Distance between sampled frames in dense sampling. Slightly larger in fine-tuning, so that
            the frames fill the window (clause AUG-11).
        validation: Share of the videos held out for the validation loss.
        average_decay: Decay of a moving average of the weights, which replaces them in validation and in
            the trained model; None for none.
        patience: Epochs without a better validation after which training ends, with the best weights as
            the result; None trains to the last epoch.
        precision: Keras dtype policy: float32, mixed_bfloat16 or mixed_float16.
        remat: Recompute activations in the backward pass.

    Raises:
        ValueError: A value is out of range.

    Source: clauses OPT-*, DATA-*; each page names its own source.
    """

    epochs: int
    warmup_epochs: float
    batch_size: int
    base_learning_rate: float
    minimum_learning_rate: float = 1e-5
    repeats: int = 1
    accumulate: int = 1
    weight_decay: float = 0.05
    beta_1: float = 0.9
    beta_2: float = 0.95
    clip_norm: float | None = None
    sampling: str = "dense"
    stride: int = 4
    validation: float = 0.1
    average_decay: float | None = None
    patience: int | None = None
    precision: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(n) for n in numbers if isinstance(n, float)):
                raise ValueError(f"`{name}` must be finite. Received: {name}={value}.")
        self._check_least(1, "epochs", "batch_size", "repeats", "accumulate", "stride")
        self._check_shares("validation", "beta_1", "beta_2")
        self._check_not_negative("warmup_epochs", "weight_decay", "minimum_learning_rate")
        for name in ("base_learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be above 0. Received: {value}.")
        if self.average_decay is not None and not 0.0 < self.average_decay < 1.0:
            raise ValueError(
                f"`average_decay` must be between 0 and 1. Received: {self.average_decay}."
            )
        if self.patience is not None and (self.patience < 1 or not self.validation):
            raise ValueError(
                "`patience` must be at least 1 epoch, and there must be a validation to wait for. "
                f"Received: patience={self.patience}, validation={self.validation}."
            )
        self._check_choices(sampling=SAMPLINGS, precision=PRECISIONS)

    def fitted(self, page: Mapping[str, Any], changes: Mapping[str, Any]) -> Self:
        """Return the recipe with its warm-up shortened to fit changed epochs, and warn about it.

        If `changes` leave fewer epochs than the warm-up needs, it keeps its share of the epochs.

        Args:
            page: Values before the changes.
            changes: Values that the user set.

        Raises:
            ValueError: The values of the page, or of the changes, do not fit together.
        """
        if self.warmup_epochs < self.epochs:
            return self
        epochs = page.get("epochs", 0)
        if "warmup_epochs" in changes or epochs <= self.warmup_epochs:
            self.check_warmup()
        warmup = self.warmup_epochs * self.epochs / epochs
        warnings.warn(
            f"epochs={self.epochs} leaves no room for the recipe's warm-up of {self.warmup_epochs:g} of "
            f"{epochs} epochs. It keeps its share: warmup_epochs={warmup:.2g} in this run.",
            stacklevel=2,
        )
        return dataclasses.replace(self, warmup_epochs=warmup)

    def check_warmup(self) -> None:
        """Raise ValueError if the learning rate would rise until the end and never fall."""
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                "`warmup_epochs` must be less than `epochs`, or training ends at its highest learning "
                f"rate. Received: warmup_epochs={self.warmup_epochs:g}, epochs={self.epochs}. Give a "
                f"shorter warm-up, such as warmup_epochs={self.epochs / 10:g}."
            )

    def updates(self, steps_per_epoch: int) -> int:
        """Return the number of updates of the weights in the whole run."""
        return max(self.epochs * steps_per_epoch // self.accumulate, 1)

    def few_updates(self, steps_per_epoch: int) -> str | None:
        """Return a note for the user if the run makes too few updates to learn; else None."""
        updates = self.updates(steps_per_epoch)
        if updates >= FEW_UPDATES:
            return None
        epochs = math.ceil(FEW_UPDATES * self.accumulate / steps_per_epoch)
        less = f"accumulate (now {self.accumulate}) or " if self.accumulate > 1 else ""
        return (
            f"Note: this run makes {updates} updates of the weights, and most need hundreds. Train for "
            f"more epochs (--set epochs={epochs} makes {FEW_UPDATES}), or lower {less}batch_size (now "
            f"{self.batch_size})."
        )

    def _check_least(self, least: int, *names: str) -> None:
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(
                    f"`{name}` must be at least {least}. Received: {getattr(self, name)}."
                )

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative. Received: {getattr(self, name)}.")

    def _check_shares(self, *names: str) -> None:
        for name in names:
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {getattr(self, name)}.")

    def _check_choices(self, **choices: tuple[str, ...]) -> None:
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(allowed)}. Received: {getattr(self, name)!r}."
                )

    @property
    def mixes_clips(self) -> bool:
        """Return whether the clips of a batch are mixed in pairs."""
        return False

    @property
    def learning_rate(self) -> float:
        """Peak learning rate: base x videos per update / 256. Clause OPT-3."""
        return self.base_learning_rate * self.batch_size * self.accumulate / 256

    @property
    def final_learning_rate(self) -> float:
        """Final learning rate: minimum x videos per update / 256."""
        return self.minimum_learning_rate * self.batch_size * self.accumulate / 256
