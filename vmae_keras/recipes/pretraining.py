"""Recipes of pretraining. Their values are in `pages/`."""

import dataclasses
from typing import Any

import numpy as np

from vmae_keras import masks
from vmae_keras.recipes.base import TrainingRecipe
from vmae_keras.recipes.page_files import Recipes


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingRecipe(TrainingRecipe):
    """Hyper-parameters of a pretraining run, apart from the model's architecture and the data.

    Args:
        mask, mask_ratio: Kind of the encoder's mask (tube, random, frame or agnostic) and its ratio.
        decoder_mask_ratio: Share of tokens that running cells hide from the decoder (V2); None for V1.

    The other arguments and the errors are those of `TrainingRecipe`.
    """

    mask: str = "tube"
    mask_ratio: float = 0.9
    decoder_mask_ratio: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mask_ratio", "decoder_mask_ratio"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < 1.0:
                raise ValueError(f"`{name}` must be between 0 and 1. Received: {value}.")
        self._check_choices(mask=tuple(masks.MASKS))

    def draw_masks(
        self, grid: tuple[int, int, int], generator: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Draw the masks of one clip with `masks.pretraining` and this recipe's ratios.

        Raises:
            ValueError: The mask does not fit the grid.
        """
        return masks.pretraining(grid, generator, **self._mask)

    def count_tokens(self, grid: tuple[int, int, int]) -> tuple[int, int]:
        """Return the numbers of visible and of decoded tokens of one clip; see `masks.count_tokens`."""
        return masks.count_tokens(grid, **self._mask)

    @property
    def _mask(self) -> dict[str, Any]:
        return {
            "kind": self.mask,
            "ratio": self.mask_ratio,
            "decoder_ratio": self.decoder_mask_ratio,
        }


RECIPES = Recipes("pretraining", PretrainingRecipe)
