"""Recipes of distillation. The authors of VideoMAE V2 published none, so the values are ours."""

import dataclasses

from vmae_keras.recipes.fine_tuning import FineTuningRecipe
from vmae_keras.recipes.page_files import Recipes

MATCHES = ("classes", "features")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationRecipe(FineTuningRecipe):
    """Hyper-parameters of a distillation run, apart from student, teacher and data.

    Args:
        match: Output of the teacher that the student matches: "classes" or pooled "features".
        temperature: Temperature of the softmax of student and teacher, with "classes".

    The other arguments and the errors are those of `FineTuningRecipe`. Labels are not used, so
    `label_smoothing` must be 0.

    Source: clauses DISTILL-*.
    """

    match: str = "classes"
    temperature: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choices(match=MATCHES)
        if self.temperature <= 0 or (self.match == "features" and self.temperature != 1.0):
            raise ValueError(
                "`temperature` must be above 0, and applies only to match='classes'. Received: "
                f"temperature={self.temperature}, match={self.match!r}."
            )
        if self.label_smoothing:
            raise ValueError(
                "A teacher's answers take the place of labels, so there are none to smooth. Received: "
                f"label_smoothing={self.label_smoothing}."
            )


RECIPES = Recipes("distillation", DistillationRecipe)
