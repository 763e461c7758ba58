"""Probing: train a small classifier on a frozen encoder's features to measure their quality."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vmae_keras.data.batches import NoReadableVideo
from vmae_keras.data.files import VideoFile
from vmae_keras.data.labelled import class_numbers, classes_of
from vmae_keras.data.random_streams import Purpose, check_seed, generator
from vmae_keras.evaluation.classification import Evaluation, result_of
from vmae_keras.evaluation.probes import PROBES
from vmae_keras.evaluation.probes.encoded import Encoding
from vmae_keras.evaluation.probes.nearest import neighbour_votes
from vmae_keras.evaluation.probes.training import BATCH, Training
from vmae_keras.pictures import charts

RATES = {"linear": (1e-3, 3e-3, 1e-2, 3e-2), "attentive": (1e-4, 3e-4, 1e-3, 3e-3)}
EPOCHS = {"linear": 100, "attentive": 30}
COUNTS = (1, 5, 10, 20, 50, 100, 200)  # numbers of neighbours


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep over learning rates or numbers of neighbours, judged on held-out videos.

    Args:
        what: Name of the values.
        values: Values that were tried.
        top_1, losses: Top-1 and loss of each value.
    """

    what: str
    values: tuple[float, ...]
    top_1: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def best(self) -> int:
        """Return the index of the value with the best top-1; ties go to the lowest loss."""
        return min(range(len(self.values)), key=lambda i: (-self.top_1[i], self.losses[i]))


@dataclasses.dataclass(frozen=True)
class ProbeEvaluation(Evaluation):
    """An `Evaluation` of a probe on the test videos, with the sweep on held-out training videos."""

    sweep: Sweep

    def metrics(self) -> dict:
        """Return the metrics of `Evaluation`, with the sweep."""
        sweep = {**dataclasses.asdict(self.sweep), "chosen": self.sweep.values[self.sweep.best]}
        return {**super().metrics(), "sweep": sweep}

    def write(self, folder: str | os.PathLike) -> None:
        """Write the files of `Evaluation`, and sweep.png."""
        super().write(folder)
        s = self.sweep
        charts.sweep_picture(Path(folder) / "sweep.png", s.what, s.values, s.top_1, s.best)


def check_sets(train: Sequence[VideoFile], test: Sequence[VideoFile]) -> tuple[str, ...]:
    """Return the classes of the training videos.

    Raises:
        ValueError: A test video has another class, or is also a training video.
    """
    labels = classes_of(train)
    class_numbers(test, labels)
    both = {os.path.realpath(file.path) for file in train} & {
        os.path.realpath(file.path) for file in test
    }
    if both:
        raise ValueError(
            f"Videos must not be in training and test both. Received: {len(both)} that are, the first "
            f"{min(both)}. Take them out of one list."
        )
    return labels


def probe(
    encoding: Encoding,
    *,
    kind: str,
    epochs: int | None = None,
    rates: Sequence[float] | None = None,
    weight_decay: float = 0.05,
    held_out: float = 0.2,
    seed: int = 0,
    skipped: dict[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ProbeEvaluation:
    """Train on the set "train", choose a value on a held-out share of it, and evaluate on "test".

    Args:
        encoding: Completed encoding of the labelled sets "train" and "test": tokens for "attentive",
            otherwise pooled features.
        kind: "linear", one dense layer on standardised features; "attentive", attention with a learned
            query, an MLP and a dense layer; "knn", votes of the nearest training videos.
        epochs, rates: Number of epochs and learning rates; EPOCHS and RATES by default. The heads of all
            rates are trained in one `fit`, then the best rate is trained again on all training videos.
            Not allowed for "knn".
        weight_decay: AdamW's weight decay of kernels.
        held_out: Share of each class's training videos that is held out.
        seed: Random seed for held-out videos, initial weights and training order.
        skipped: Path -> reason for each video that could not be read, to be reported.
        progress: Function of the number of training steps done and of all steps.

    Raises:
        ValueError: A setting is out of range, `check_sets` refuses the labels, or no video can be held out.
        NoReadableVideo: There are no features to train on, or to test.

    Source: clauses PROBE-1 to PROBE-4.
    """
    if kind not in PROBES:
        raise ValueError(f"`kind` must be one of {', '.join(PROBES)}. Received: kind={kind!r}.")
    if (kind == "attentive") != (encoding.encoder.pooling is None):
        raise ValueError(
            "An attentive probe needs tokens, the others pooled features. Received: "
            f"kind={kind!r}, pooling={encoding.encoder.pooling!r}. Make the encoder with the other."
        )
    if kind == "knn" and (epochs or rates):
        raise ValueError("Neighbours are not trained. Received: epochs or rates. Leave them out.")
    epochs, rates = epochs or EPOCHS.get(kind), tuple(rates or RATES.get(kind, ()))
    check_seed(seed)
    if any(rate <= 0 for rate in rates) or weight_decay < 0 or not 0 < held_out < 1:
        raise ValueError(
            "Rates must be above 0, `weight_decay` at least 0, and `held_out` between 0 and 1. Received: "
            f"rates={rates}, weight_decay={weight_decay}, held_out={held_out}."
        )
    train, test = encoding.sets["train"], encoding.sets["test"]
    labels = check_sets(train, test)
    numbers = np.array(class_numbers(train, labels))
    features, places = encoding.read("train")
    asked, asked_places = encoding.read("test")
    if not len(places) or not len(asked_places):
        raise NoReadableVideo("No video of training, or of the test, could be read.")
    held = held_out_places(places, numbers, held_out, seed)
    kept = np.setdiff1d(places, held)

    if kind == "knn":
        counts = [k for k in COUNTS if k <= len(kept)]

        def judge(
            known: np.ndarray, tried: Sequence[float], queries: np.ndarray, where: np.ndarray
        ) -> np.ndarray:
            bank, query = (_of_videos(*each) for each in ((features, known), (queries, where)))
            return neighbour_votes(bank, numbers[known], query, len(labels), tried)

    else:
        counts = rates
        trained = Training(kind, numbers, len(labels), epochs, weight_decay, seed, progress)
        trained.expect(len(kept) * features.shape[1], len(places) * features.shape[1])

        def judge(
            known: np.ndarray, tried: Sequence[float], queries: np.ndarray, where: np.ndarray
        ) -> np.ndarray:
            return trained.judge(features, known, tried, queries, where)

    sweep = _swept(
        "learning rate" if rates else "neighbours",
        counts,
        judge(kept, counts, features, held),
        numbers[held],
    )
    (probabilities,) = judge(places, [counts[sweep.best]], asked, asked_places)
    asked_numbers = class_numbers(test, labels)
    results = [
        result_of(test[place].path, asked_numbers[place], row)
        for place, row in zip(asked_places, probabilities, strict=True)
    ]
    settings = {
        "kind": kind,
        **encoding.settings,
        "training_videos": len(places),
        "held_out": held_out,
        "seed": seed,
        "labels": list(labels),
    }
    if rates:
        settings |= {"epochs": epochs, "batch": BATCH, "weight_decay": weight_decay}
    return ProbeEvaluation(results, skipped or {}, len(labels), labels, settings, sweep)


def held_out_places(places: np.ndarray, numbers: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw the indices of held-out videos: a rounded share of each class, leaving at least one video.

    Raises:
        ValueError: No video can be held out, because the classes have too few videos.

    Source: clause PROBE-4.
    """
    draws = generator(seed, Purpose.PROBE_HOLD_OUT)
    drawn = []
    for number in np.unique(numbers[places]):
        own = draws.permutation(places[numbers[places] == number])
        drawn.append(own[: min(int(len(own) * share + 0.5), len(own) - 1)])
    held = np.sort(np.concatenate(drawn))
    if not len(held):
        raise ValueError(
            "No training video can be held out to choose by. Received: "
            f"{len(places)} videos of {len(drawn)} classes, share {share}. Give more videos of each class."
        )
    return held


def _swept(
    what: str, values: Sequence[float], probabilities: np.ndarray, numbers: np.ndarray
) -> Sweep:
    """Return the sweep from the held-out videos' probabilities, (values, videos, K)."""
    right = probabilities.argmax(-1) == numbers
    of_class = np.take_along_axis(probabilities, numbers[None, :, None], axis=-1)[..., 0]
    losses = -np.log(np.maximum(of_class, 1e-12)).mean(-1)
    return Sweep(what, tuple(values), tuple(right.mean(-1).tolist()), tuple(losses.tolist()))


def _of_videos(features: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the mean of each video's views, (videos, D)."""
    return features[places].mean(axis=1)
