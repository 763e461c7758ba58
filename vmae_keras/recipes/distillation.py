"""Recipes of distillation, as tried by us; the authors of VideoMAE V2 published none of theirs."""

import dataclasses

from vmae_keras.recipes.fine_tuning import FineTuningRecipe
from vmae_keras.recipes.pages import Recipes

MATCHES = ("classes", "features")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationRecipe(FineTuningRecipe):
    """Everything about a distillation that is not student, teacher or data.

    Args:
        match: what the student learns of the teacher: its "classes" or its pooled "features".
        temperature: that softens both's probabilities; for classes.

    And those of `FineTuningRecipe`, with its errors. Labels are not read, so there is nothing to smooth.

    Source: clauses DISTILL-*.
    """

    match: str = "classes"
    temperature: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self._check_choices(match=MATCHES)
        if self.temperature <= 0 or (self.match == "features" and self.temperature != 1.0):
            raise ValueError(
                "`temperature` must be above 0, and softens classes alone. Received: "
                f"temperature={self.temperature}, match={self.match!r}."
            )
        if self.label_smoothing:
            raise ValueError(
                "A teacher's answers take the place of labels, so there are none to smooth. Received: "
                f"label_smoothing={self.label_smoothing}."
            )


RECIPES = Recipes("distillation", DistillationRecipe)
