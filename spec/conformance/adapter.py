"""The interface through which an implementation is checked, in NumPy with the specification's names.

An adapter only translates; it computes nothing itself. Weights are dicts with the names and layouts of
WEIGHT-1, WEIGHT-2 and FT-4. Batches are those of DATA-8, though a video may be float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spec.config import Config

Weights = Mapping[str, np.ndarray]
Batch = Mapping[str, np.ndarray]


class NotOffered(NotImplementedError):
    """Raised by an adapter without an optional method; checks that need it are skipped as gaps."""


class Model:
    """A pretraining model. The first four methods are required."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every trainable weight by its name in WEIGHT-1."""
        raise NotImplementedError

    def load(self, weights: Weights) -> None:
        """Set all of the weights."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> np.ndarray:
        """Return the predictions (B, M, P) in inference."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> float:
        """Return the loss in inference.

        `batch` has a `weight` (B, M) only if the decoder has its own mask.
        """
        raise NotImplementedError

    def target(self, batch: Batch) -> np.ndarray:
        """Return the target (B, M, P) of the predictions."""
        raise NotOffered("target")

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return the gradient of the loss by every weight, without changing the weights."""
        raise NotOffered("gradients")

    def train(
        self,
        batches: Sequence[Batch],
        rates: Sequence[float],
        *,
        weight_decay: float,
        beta_1: float,
        beta_2: float,
        epsilon: float,
    ) -> dict[str, np.ndarray]:
        """Take one AdamW step per batch and rate from the loaded weights. OPT-2, OPT-5.

        Returns the new weights. The old ones need not be restored.
        """
        raise NotOffered("train")


class Classifier:
    """The encoder with a head."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every trainable weight by its name in FT-4."""
        raise NotImplementedError

    def load(self, weights: Weights) -> None:
        """Set all of the weights."""
        raise NotImplementedError

    def classify(self, video: np.ndarray) -> np.ndarray:
        """Return the logits (B, K) of a video (B, T, H, W, C) in inference."""
        raise NotImplementedError


class Adapter:
    """One implementation under test.

    `gaps` maps each clause that is not implemented to the reason, with a link to the authors' statement.
    A case that needs such a clause is reported as a known gap, not as a deviation.
    """

    name: str
    gaps: Mapping[str, str] = {}

    def build(self, config: Config) -> Model:
        """Build a pretraining model.

        Raises:
            ValueError: CONFIG-1 forbids the sizes.
        """
        raise NotImplementedError

    def build_classifier(self, config: Config, classes: int, pooling: str) -> Classifier:
        """Build a classifier with pooling "mean" (FT-1) or "first" (FT-2)."""
        raise NotOffered("build_classifier")
