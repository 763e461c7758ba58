"""How much a frozen encoder's features tell of the classes of videos, by a small model trained on them."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vmae_keras.data.files import VideoFile
from vmae_keras.data.labelled import class_numbers, classes_of
from vmae_keras.data.random_streams import Purpose, check_seed, generator
from vmae_keras.data.stream import NoReadableVideo
from vmae_keras.evaluation.classification import Evaluation, result_of
from vmae_keras.evaluation.probes.encoded import Encoding
from vmae_keras.evaluation.probes.nearest import neighbour_votes
from vmae_keras.evaluation.probes.training import BATCH, Training
from vmae_keras.pictures import charts

KINDS = ("linear", "attentive", "knn")
RATES = {"linear": (1e-3, 3e-3, 1e-2, 3e-2), "attentive": (1e-4, 3e-4, 1e-3, 3e-3)}
EPOCHS = {"linear": 100, "attentive": 30}
COUNTS = (1, 5, 10, 20, 50, 100, 200)  # of neighbours


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What was tried on the videos held out: rates or numbers of neighbours, and how each of them did."""

    what: str
    values: tuple[float, ...]
    top_1: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def best(self) -> int:
        """The place of the value with the best top-1, of several the one with the lowest loss."""
        return min(range(len(self.values)), key=lambda i: (-self.top_1[i], self.losses[i]))


@dataclasses.dataclass(frozen=True)
class ProbeEvaluation(Evaluation):
    """Of the test videos; and what was chosen on training videos held out. See `Evaluation`."""

    sweep: Sweep

    def metrics(self) -> dict:
        """All figures, and what they stand on."""
        sweep = {**dataclasses.asdict(self.sweep), "chosen": self.sweep.values[self.sweep.best]}
        return {**super().metrics(), "sweep": sweep}

    def write(self, folder: str | os.PathLike) -> None:
        """results.csv, metrics.json and confusion.png as `Evaluation` writes them, and sweep.png."""
        super().write(folder)
        s = self.sweep
        charts.sweep_picture(Path(folder) / "sweep.png", s.what, s.values, s.top_1, s.best)


def check_sets(train: Sequence[VideoFile], test: Sequence[VideoFile]) -> tuple[str, ...]:
    """The classes of the training videos.

    Raises:
        ValueError: a test video of another class, or one that is a training video too.
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
    """Train on the features of the set "train", choose on a share of it held out, and report on "test".

    Args:
        encoding: of the sets "train" and "test", labelled, and run: tokens for "attentive", else
            pooled features.
        kind: "linear", one dense layer on standardised features; "attentive", attention with a learned
            query and an MLP before it; "knn", votes of the nearest training videos.
        epochs, rates: by default EPOCHS and RATES. The heads of all rates are trained in one `fit`. That
            of the best is trained again, on all training videos. Neighbours take neither.
        weight_decay: as AdamW's, of kernels.
        held_out: share of each class's training videos.
        seed: of the held-out videos, the heads' first weights and the order of training.
        skipped: path -> reason of the videos that could not be read, to be reported.
        progress: called with how many steps of training are done, and of how many.

    Raises:
        ValueError: a setting out of range; labels as `check_sets` says; nothing that can be held out.
        NoReadableVideo: no features to train on, or to test.

    Source: clauses PROBE-1 to PROBE-4.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}. Received: kind={kind!r}.")
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

        def judge(known, tried, queries, where):
            bank, query = (_of_videos(*each) for each in ((features, known), (queries, where)))
            return neighbour_votes(bank, numbers[known], query, len(labels), tried)

    else:
        counts = rates
        trained = Training(kind, numbers, len(labels), epochs, weight_decay, seed, progress)
        trained.expect(len(kept) * features.shape[1], len(places) * features.shape[1])

        def judge(known, tried, queries, where):
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
    """Of each class the share, rounded, of its videos, drawn by the seed; at least one stays.

    Raises:
        ValueError: not one of them, as classes have too few videos.

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


def _swept(what, values, probabilities, numbers) -> Sweep:
    """(values, videos, K) probabilities of the held-out videos -> how each value did."""
    right = probabilities.argmax(-1) == numbers
    of_class = np.take_along_axis(probabilities, numbers[None, :, None], axis=-1)[..., 0]
    losses = -np.log(np.maximum(of_class, 1e-12)).mean(-1)
    return Sweep(what, tuple(values), tuple(right.mean(-1).tolist()), tuple(losses.tolist()))


def _of_videos(features, places) -> np.ndarray:
    """(videos, D): the mean of each video's views."""
    return features[places].mean(axis=1)
