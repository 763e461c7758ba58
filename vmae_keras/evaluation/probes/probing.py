"""Probing: train a small classifier on a frozen encoder's features to measure their quality."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vmae_keras.data.batches import NoReadableVideo
from vmae_keras.data.files import VideoFile
from vmae_keras.data.labelled import (
    LabelledSource,
    as_labelled,
    class_numbers,
    classes_of,
    warn_of_one_class,
)
from vmae_keras.data.random_streams import Purpose, check_seed, generator
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.splits import distinct
from vmae_keras.data.views import CLIPS
from vmae_keras.encoder import VideoEncoder
from vmae_keras.evaluation.classification import result_of
from vmae_keras.evaluation.frozen_encoder import FrozenEncoder
from vmae_keras.evaluation.probes import PROBES
from vmae_keras.evaluation.probes.encoded import Encoding, encoding_folder
from vmae_keras.evaluation.probes.nearest import neighbour_votes
from vmae_keras.evaluation.probes.sweep import ProbeEvaluation, Sweep
from vmae_keras.evaluation.probes.training import BATCH, Training

RATES: dict[str, tuple[float, ...]] = {
    "linear": (1e-3, 3e-3, 1e-2, 3e-2),
    "attentive": (1e-4, 3e-4, 1e-3, 3e-3),
}
EPOCHS = {"linear": 100, "attentive": 30}
COUNTS = (1, 5, 10, 20, 50, 100, 200)  # numbers of neighbours


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
    encoder: VideoEncoder | FrozenEncoder,
    train: LabelledSource,
    test: LabelledSource,
    *,
    kind: str = "attentive",
    sampling: str = "dense",
    stride: int = 4,
    clips: int | None = None,
    crops: int = 1,
    epochs: int | None = None,
    rates: Sequence[float] | None = None,
    weight_decay: float = 0.05,
    held_out: float = 0.2,
    seed: int = 0,
    workers: int = 0,
    folder: str | os.PathLike | None = None,
    skipped: SkippedFiles | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ProbeEvaluation:
    """Encode labelled videos, train a probe on the features, and evaluate it on the test videos.

    The learning rate (for "knn", the number of neighbours) is chosen on a held-out share of `train`.

    Args:
        encoder: A pretrained encoder, without pooling; a `FrozenEncoder` keeps its own.
        train, test: Videos with labels: a list, a CSV or a folder with a folder for each class.
        kind: "linear", one dense layer on standardised features; "attentive", attention with a learned
            query, an MLP and a dense layer; "knn", votes of the nearest training videos.
        sampling, stride, clips, crops: See `evaluate`.
        epochs, rates: Number of epochs and learning rates to try. None takes 100 epochs for "linear" and 30
            for "attentive", and four rates. Not allowed for "knn".
        weight_decay: AdamW's weight decay of kernels.
        held_out: Share of each class's training videos that is held out.
        seed: Random seed for held-out videos, initial weights and training order.
        workers: See `pretraining_dataset`.
        folder: Folder that keeps the features, so that the next call with it encodes only other videos.
            None deletes them.
        skipped: Record of unreadable files. None warns of them.
        progress: Function of the number of training steps done and of all steps.

    Raises:
        FileNotFoundError: See `list_videos`.
        ValueError: A setting is out of range, a test video has another class or is also a training video,
            or no video can be held out.
        RunError: The folder holds features of another model, other videos or other views, or the disk has
            too little space.
        NoReadableVideo: There are no features to train on, or to test.
        ArithmeticError: Features are not finite.

    Source: clauses PROBE-1 to PROBE-4.

    Example:
        from vmae_keras import VideoEncoder, probe

        encoder = VideoEncoder.from_preset("pretrained")
        found = probe(encoder, "train.csv", "test.csv", kind="knn", clips=2, held_out=0.5)
        print(found.top_1, found.sweep.values[found.sweep.best])
    """
    trained: dict[str, Any] = {
        "kind": kind,
        "epochs": epochs,
        "rates": rates,
        "weight_decay": weight_decay,
        "held_out": held_out,
        "seed": seed,
    }
    _chosen(**trained)  # raises before any work
    sets = {"train": distinct(as_labelled(train)), "test": as_labelled(test)}
    warn_of_one_class(check_sets(**sets))
    encoder = FrozenEncoder.of(encoder, None if kind == "attentive" else "mean")
    skipped = skipped or SkippedFiles()
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        encoding = Encoding(
            encoder,
            sets,
            encoding_folder(folder, encoder.pooling),
            sampling=sampling,
            stride=stride,
            clips=CLIPS.get(sampling, 1) if clips is None else clips,
            crops=crops,
        )
        encoding.run(skipped, workers)
        return probe_features(encoding, **trained, skipped=skipped.report(), progress=progress)


def probe_features(
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
        skipped: Path -> reason for each video that could not be read, to be reported.

    The other arguments and the errors are those of `probe`. The heads of all rates are trained in one
    `fit`, then the best rate is trained again on all training videos.
    """
    epochs, rates = _chosen(kind, epochs, rates, weight_decay, held_out, seed)
    if (kind == "attentive") != (encoding.encoder.pooling is None):
        raise ValueError(
            "An attentive probe needs tokens, the others pooled features. Received: "
            f"kind={kind!r}, pooling={encoding.encoder.pooling!r}. Make the encoder with the other."
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

    counts: Sequence[Any]
    if kind == "knn":
        counts = [k for k in COUNTS if k <= len(kept)]

        def judge(
            known: np.ndarray, tried: Sequence[Any], queries: np.ndarray, where: np.ndarray
        ) -> np.ndarray:
            bank, query = (_of_videos(*each) for each in ((features, known), (queries, where)))
            return neighbour_votes(bank, numbers[known], query, len(labels), tried)

    else:
        counts = rates
        trained = Training(
            kind, numbers, len(labels), epochs or EPOCHS[kind], weight_decay, seed, progress
        )
        trained.expect(len(kept) * features.shape[1], len(places) * features.shape[1])

        def judge(
            known: np.ndarray, tried: Sequence[Any], queries: np.ndarray, where: np.ndarray
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


def _chosen(
    kind: str,
    epochs: int | None,
    rates: Sequence[float] | None,
    weight_decay: float,
    held_out: float,
    seed: int,
) -> tuple[int | None, tuple[float, ...]]:
    """Return the epochs and rates, by default those of the kind; raise ValueError for a wrong option."""
    if kind not in PROBES:
        raise ValueError(f"`kind` must be one of {', '.join(PROBES)}. Received: kind={kind!r}.")
    if kind == "knn" and (epochs or rates):
        raise ValueError("Neighbours are not trained. Received: epochs or rates. Leave them out.")
    check_seed(seed)
    epochs, rates = epochs or EPOCHS.get(kind), tuple(rates or RATES.get(kind, ()))
    if any(rate <= 0 for rate in rates) or weight_decay < 0 or not 0 < held_out < 1:
        raise ValueError(
            "Rates must be above 0, `weight_decay` at least 0, and `held_out` between 0 and 1. Received: "
            f"rates={rates}, weight_decay={weight_decay}, held_out={held_out}."
        )
    return epochs, rates


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
