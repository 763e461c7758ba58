"""The answers that a checked implementation gives: in NumPy, by the specification's names and layouts.

An adapter translates and computes nothing itself. Weights travel as dicts keyed and laid out as WEIGHT-1,
WEIGHT-2 and FT-4 say, batches as DATA-8 says (a video may be float32 in [0, 1]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spec.config import Config

Weights = Mapping[str, np.ndarray]
Batch = Mapping[str, np.ndarray]


class NotOffered(NotImplementedError):
    """An adapter does not offer an optional method: what needs it stays unseen."""


class Model:
    """A pretraining model. The first four methods are required."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every trainable weight by its name in WEIGHT-1."""
        raise NotImplementedError

    def load(self, weights: Weights) -> None:
        """Sets all of the weights."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> np.ndarray:
        """-> (B, M, P): the predictions in inference."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> float:
        """In inference; `batch` has a `weight` (B, M) only where the decoder has a mask of its own."""
        raise NotImplementedError

    def target(self, batch: Batch) -> np.ndarray:
        """-> (B, M, P): what the loss compares the predictions with."""
        raise NotOffered("target")

    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return the gradients of the loss by every weight; the weights stay as loaded."""
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
        """-> the weights after one step of AdamW per batch and rate, from those loaded. OPT-2, OPT-5.

        They need not be put back.
        """
        raise NotOffered("train")


class Classifier:
    """The encoder with a head."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every trainable weight by its name in FT-4."""
        raise NotImplementedError

    def load(self, weights: Weights) -> None:
        """Sets all of the weights."""
        raise NotImplementedError

    def classify(self, video: np.ndarray) -> np.ndarray:
        """(B, T, H, W, C) -> (B, K): the logits in inference."""
        raise NotImplementedError


class Adapter:
    """One implementation under test.

    `gaps` tells which clauses it does not implement and why, with a link to where its authors say so: a
    case that needs one of them is reported as a known gap, not as a deviation.
    """

    name: str
    gaps: Mapping[str, str] = {}

    def build(self, config: Config) -> Model:
        """Raises ValueError for sizes that CONFIG-1 forbids."""
        raise NotImplementedError

    def build_classifier(self, config: Config, classes: int, pooling: str) -> Classifier:
        """`pooling` is "mean" (FT-1) or "first" (FT-2)."""
        raise NotOffered("build_classifier")
