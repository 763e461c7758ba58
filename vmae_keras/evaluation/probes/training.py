"""Training of a probe's heads, side by side, on features on disk."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from vmae_keras import backend
from vmae_keras.data.random_streams import Purpose, generator
from vmae_keras.data.views import average_views
from vmae_keras.evaluation.probes.heads import Probes, SweptAdamW, summed_losses

BATCH = 32  # views


class Training:
    """A trainer of heads on the features of some videos that predicts the classes of others."""

    def __init__(
        self,
        kind: str,
        numbers: np.ndarray,
        classes: int,
        epochs: int,
        weight_decay: float,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.kind, self.numbers, self.classes = kind, numbers, classes
        self.epochs, self.weight_decay, self.seed = epochs, weight_decay, seed
        self.progress, self.steps_done, self.steps = progress, 0, 0

    def expect(self, *counts: int) -> None:
        """Set the number of views of each coming training, from which `progress` counts all steps."""
        self.steps = sum(map(self._steps, counts))

    def judge(
        self,
        features: np.ndarray,
        known: np.ndarray,
        rates: Sequence[float],
        queries: np.ndarray,
        where: np.ndarray,
    ) -> np.ndarray:
        """Train on the videos `known` of `features`; return probabilities of others, (rates, videos, K).

        Args:
            features: Features (videos, views, ...) to train on.
            known: Indices of the training videos.
            rates: Learning rates, one per head.
            queries: Features (videos, views, ...) to predict from.
            where: Indices of the videos to predict.
        """
        scale = _standardisation(features, known) if self.kind == "linear" else (0.0, 1.0)
        batches = _Views(features, known, scale)
        backend.set_seed(self.seed)
        model = Probes(len(rates), features.shape[-1], self.classes, self.kind == "attentive")
        steps = self._steps(len(batches))
        model.compile(SweptAdamW(rates, steps, self.weight_decay), summed_losses)
        model.fit(
            _Order(batches, self.numbers[known], steps, self.seed),
            epochs=1,
            shuffle=False,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=self._step)],
        )
        asked = _Views(queries, where, scale)
        rows = np.arange(-(-len(asked) // BATCH) * BATCH).reshape(-1, BATCH) % len(asked)
        logits = np.concatenate([backend.predict(model, asked[row]) for row in rows])
        logits = logits[: len(asked)].reshape(len(where), -1, *logits.shape[1:])
        return np.stack(
            [[average_views(video[:, rate]) for video in logits] for rate in range(len(rates))]
        )

    def _steps(self, views: int) -> int:
        return self.epochs * -(-views // BATCH)

    def _step(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.steps_done += 1
        if self.progress:
            self.progress(self.steps_done, self.steps)


class _Views:
    """A sequence of all views of some videos, as float32."""

    def __init__(self, features: np.ndarray, places: np.ndarray, scale: tuple) -> None:
        self.features, self.places, self.scale = features, places, scale

    def __len__(self) -> int:
        return len(self.places) * self.features.shape[1]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        video, view = np.divmod(rows, self.features.shape[1])
        mean, deviation = self.scale
        x = np.asarray(self.features[self.places[video], view], np.float32)
        return ((x - mean) / deviation).astype(np.float32)


class _Order(keras.utils.PyDataset):
    """Batches of views and classes, with every view once per epoch, in an order drawn from the seed."""

    def __init__(self, views: _Views, numbers: np.ndarray, steps: int, seed: int) -> None:
        super().__init__()
        self.views, self.numbers, self.steps, self.seed = views, numbers, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.views)
        epoch, place = divmod(step, -(-count // BATCH))
        order = generator(self.seed, Purpose.PROBE_ORDER, epoch).permutation(count)
        # The last batch of an epoch is padded with the epoch's first views, so that all have one size.
        rows = order[np.arange(place * BATCH, (place + 1) * BATCH) % count]
        return self.views[rows], self.numbers[rows // self.views.features.shape[1]]


def _standardisation(features: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each feature over the views of some videos."""
    x = np.asarray(features[places], np.float64).reshape(-1, features.shape[-1])
    deviation = x.std(axis=0)
    return x.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
