"""Evaluation of a classifier on videos, each by several views."""

import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import keras
import numpy as np
from keras import ops

from vmae_keras import backend
from vmae_keras.classifier import VideoClassifier
from vmae_keras.data.batches import NoReadableVideo, paths_of
from vmae_keras.data.checks import check_at_least
from vmae_keras.data.files import VideoFile
from vmae_keras.data.labelled import LabelledSource, as_labelled
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.view_dataset import views_dataset
from vmae_keras.data.views import CLIPS, average_views
from vmae_keras.evaluation.padded_batches import pad_batches
from vmae_keras.evaluation.results import TOP, Result, ResultsTable
from vmae_keras.pictures import charts
from vmae_keras.process.files import write_json


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The results of a classifier on videos.

    Args:
        results: One result per readable video, in the order of the list.
        skipped: Path -> reason for each file that could not be read. The metrics exclude these files, but
            include files that break halfway, used as far as they decode.
        classes: K.
        labels: Names of the classes; None numbers them.
        settings: Settings that `evaluate` computed the results with.
    """

    results: list[Result]
    skipped: dict[str, str]
    classes: int
    labels: tuple[str, ...] | None
    settings: dict

    @property
    def videos(self) -> int:
        """Return the number of evaluated videos."""
        return len(self.results)

    @property
    def top_1(self) -> float:
        """Return the share of videos whose class was the most probable one."""
        return self._share(1)

    @property
    def top_5(self) -> float:
        """Return the share of videos whose class was among the five most probable ones."""
        return self._share(TOP)

    @property
    def mean_class(self) -> float:
        """Return the mean of the classes' own top-1 shares, over the classes that have videos."""
        totals = self.confusion.sum(1)
        return float((self.confusion.diagonal()[totals > 0] / totals[totals > 0]).mean())

    @property
    def confusion(self) -> np.ndarray:
        """Return (K, K) int64 counts of videos: rows are true classes, columns the most probable ones."""
        counts = np.zeros((self.classes, self.classes), np.int64)
        for result in self.results:
            counts[result.label, result.predicted[0]] += 1
        return counts

    def metrics(self) -> dict:
        """Return all metrics with the settings and the skipped files."""
        return {
            "videos": self.videos,
            "top_1": self.top_1,
            "top_5": self.top_5,
            "mean_class": self.mean_class,
            "settings": self.settings,
            "skipped": self.skipped,
        }

    def write(self, folder: str | os.PathLike) -> None:
        """Write results.csv with a row for each video, metrics.json and confusion.png."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        ResultsTable(folder, self.classes, self.labels).write(self.results)
        write_json(folder / "metrics.json", self.metrics())
        charts.confusion_picture(folder / "confusion.png", self.confusion, self.labels)

    def _share(self, places: int) -> float:
        return float(np.mean([each.label in each.predicted[:places] for each in self.results]))


def evaluate(
    model: VideoClassifier,
    videos: LabelledSource,
    *,
    labels: Sequence[str] | None = None,
    sampling: str = "dense",
    stride: int = 4,
    clips: int | None = None,
    crops: int = 3,
    batch_views: int = 8,
    workers: int = 0,
    folder: str | os.PathLike | None = None,
    skipped: SkippedFiles | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a model on videos, averaging the probabilities of each video's views.

    Args:
        model: A classifier.
        videos: Videos with labels: a list, a CSV or a folder with a folder for each class.
        labels: Names of the classes in the order of the model's outputs; None takes the model's. If it has
            none, the videos' labels are class numbers.
        sampling: "dense" for every `stride`-th frame, "uniform" for one frame per segment.
        stride: Distance between the frames of a dense clip, in frames.
        clips: Number of clips, spread over the video; None for the published 5, or 2 with uniform sampling.
        crops: Number of crops of each clip, spread along the frame's longer side.
        batch_views: Number of views per batch. A batch may span videos, and the last one is padded: all
            have the same size, so that the model is compiled once.
        workers: See `pretraining_dataset`.
        folder: Folder of results.csv, which gets each video's row as soon as it is done. Called again with
            the same folder, the evaluation resumes.
        skipped: Record of unreadable files. None warns of them.
        progress: Function of the number of files done and of all files, called after each video.

    Raises:
        FileNotFoundError: See `list_videos`.
        ValueError: A label is missing or unknown, or a setting is out of range. Raised before any work.
        RunError: The folder holds results of another model, other videos or other views.
        NoReadableVideo: None of the files can be read.
        ArithmeticError: The model's logits are not finite.

    Source: official `engine_for_finetuning.py`, `final_test` and `merge`; clause EVAL-4.

    Example:
        from vmae_keras import VideoClassifier, evaluate

        classifier = VideoClassifier.from_preset("fine-tuned")
        found = evaluate(classifier, "test.csv", clips=2, crops=1)
        print(found.top_1, found.confusion)
        found.write("evaluation")  # results.csv, metrics.json, confusion.png
    """
    check_at_least(1, batch_views=batch_views)
    files, skipped = as_labelled(videos), skipped or SkippedFiles()
    clips = CLIPS.get(sampling, 1) if clips is None else clips
    labels = model.labels if labels is None else tuple(labels)
    wanted = list(zip(paths_of(files), _numbers(files, labels, model.classes), strict=True))
    views: dict[str, Any] = {"sampling": sampling, "stride": stride, "clips": clips, "crops": crops}
    settings = {
        "model": model_fingerprint(model),
        "precision": model.dtype_policy.name,
        "videos": fingerprint(f"{path}\n{number}\n" for path, number in wanted),
        "labels": labels and list(labels),
        **views,
    }
    table = None if folder is None else ResultsTable(Path(folder), model.classes, labels)
    done = table.begin(settings) if table else {}
    left = [index for index, video in enumerate(wanted) if video not in done]
    if left:
        dataset = views_dataset(
            [files[index] for index in left],
            model.config,
            **views,
            skipped=skipped,
            workers=workers,
        )
        for place, logits in predicted_views(model, dataset, clips * crops, batch_views):
            video = wanted[left[place]]
            done[video] = result_of(*video, average_views(logits))
            if table:
                table.append(done[video])
            if progress:
                progress(len(files) - len(left) + place + 1, len(files))
    reasons = skipped.report()
    broken = {path: reasons[path] for path, number in wanted if (path, number) not in done}
    results = [done[video] for video in wanted if video in done]
    if not results:
        first = "; ".join(f"{path}: {reason}" for path, reason in list(broken.items())[:3])
        raise NoReadableVideo(
            f"None of the {len(files)} files can be read, so there is nothing to evaluate. "
            f"The first reasons: {first}.{skipped.hint}"
        )
    return Evaluation(results, broken, model.classes, labels, settings)


def _numbers(files: Sequence[VideoFile], labels: Sequence[str] | None, classes: int) -> list[int]:
    """Return the files' labels as class numbers."""
    if labels is not None and (len(labels) != classes or len(set(labels)) != classes):
        raise ValueError(
            f"`labels` must name each of the model's {classes} classes, no two alike. "
            f"Received: {len(labels)} labels, {len(set(labels))} different ones."
        )
    known = {str(name): number for number, name in enumerate(labels or range(classes))}
    bad = [file for file in files if file.label not in known]
    if bad:
        first = "; ".join(f"{file.path}: {file.label}" for file in bad[:3])
        kind = "one of `labels`" if labels is not None else f"a number from 0 to {classes - 1}"
        raise ValueError(
            f"To evaluate, each file needs a label that is {kind}. Received: {len(bad)} of "
            f"{len(files)} files without, the first of them {first}. Correct the list"
            + (", or give `labels` as it writes them." if labels else ", or give `labels`.")
        )
    return [known[file.label or ""] for file in files]


def predicted_views(
    model: keras.Model, dataset: grain.IterDataset, views: int, batch_views: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each video's index in the data set and the model's outputs for its views, (views, ...)."""
    places: deque[int] = deque()
    with contextlib.closing(iter(dataset)) as elements:

        def every_view() -> Iterator[np.ndarray]:
            for element in elements:
                places.append(int(element["index"]))
                yield from element["views"]

        outputs = (
            output
            for batch, count in pad_batches(every_view(), batch_views)
            for output in backend.predict(model, batch)[:count]
        )
        while of_video := list(itertools.islice(outputs, views)):
            yield places.popleft(), np.stack(of_video)


def result_of(path: str, label: int, probabilities: np.ndarray) -> Result:
    """Return the result of a video, from its class and the probabilities (K,) of all classes.

    Raises:
        ArithmeticError: The probabilities are not finite.
    """
    if not np.isfinite(probabilities).all():
        raise ArithmeticError(
            f"The model's logits of {path} are not finite, so no accuracy would mean anything. "
            "Check its weights, or evaluate in float32."
        )
    best = np.argsort(-probabilities, kind="stable")[:TOP].tolist()
    return Result(path, label, tuple(best), tuple(probabilities[best].tolist()))


def model_fingerprint(model: keras.Model) -> str:
    """Return a fingerprint of all that a classifier's or encoder's outputs depend on."""
    weights = (ops.convert_to_numpy(weight.value).tobytes() for weight in model.weights)
    return fingerprint(itertools.chain([f"{model.config} {model.pooling}"], weights))


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """Return 16 hexadecimal digits of the hash of the concatenated parts."""
    content = hashlib.sha256()
    for part in parts:
        # File names need not be UTF-8.
        content.update(part if isinstance(part, bytes) else part.encode(errors="surrogateescape"))
    return content.hexdigest()[:16]
