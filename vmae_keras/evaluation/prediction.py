"""Prediction of the classes of videos without labels."""

from typing import TYPE_CHECKING

import numpy as np

from vmae_keras import backend
from vmae_keras.data.batches import NoReadableVideo
from vmae_keras.data.files import VideoSource, list_videos
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.view_dataset import views_dataset
from vmae_keras.data.views import CLIPS, average_views
from vmae_keras.export.artifact import Artifact

if TYPE_CHECKING:  # an artifact needs no Keras
    from vmae_keras.classifier import VideoClassifier


def predict(
    model: "VideoClassifier | Artifact",
    videos: VideoSource,
    *,
    sampling: str = "dense",
    stride: int = 4,
    clips: int | None = None,
    crops: int = 3,
    skipped: SkippedFiles | None = None,
) -> dict[str, np.ndarray]:
    """Return the probabilities of the classes, (K,) float64, by the path of each readable video.

    The probabilities are averaged over the views of a video. An artifact that resizes frames itself gets
    whole frames and takes their centre crop.

    Args:
        model: A classifier, or an exported one.
        videos: Videos; see `list_videos`.
        sampling, stride, clips, crops: See `evaluate`.
        skipped: Record of unreadable files. None warns of them.

    Raises:
        FileNotFoundError: See `list_videos`.
        ValueError: A setting is out of range.
        NoReadableVideo: No file can be decoded, or its frames do not have the artifact's size.

    Source: clauses EVAL-1 to EVAL-5.

    Example:
        from vmae_keras import VideoClassifier, predict

        classifier = VideoClassifier.from_preset("fine-tuned")
        for path, probabilities in predict(classifier, ["a.mp4", "b.mp4"]).items():
            print(path, classifier.labels[probabilities.argmax()])
    """
    files, skipped = list_videos(videos), skipped or SkippedFiles()
    sizes = model.contract if isinstance(model, Artifact) else model.config
    whole = isinstance(model, Artifact) and model.contract.resizes
    views = views_dataset(
        files,
        sizes,
        sampling=sampling,
        stride=stride,
        clips=CLIPS.get(sampling, 1) if clips is None else clips,
        crops=None if whole else crops,
        skipped=skipped,
    )
    found = {
        files[int(element["index"])].path: average_views(_logits(model, element["views"]))
        for element in views
    }
    if not found:
        path, reasons = files[0].path, skipped.report()
        others = f" Nor can the other {len(files) - 1}." if len(files) > 1 else ""
        raise NoReadableVideo(
            f"{path} cannot be read: {reasons.get(path, 'no reason known')}.{others}"
        )
    return found


def _logits(model: "VideoClassifier | Artifact", views: np.ndarray) -> np.ndarray:
    if not isinstance(model, Artifact):
        return backend.predict(model, views)
    step = model.contract.batch or 1
    parts = [
        model({"video": model.contract.pixels(views[first : first + step])})["logits"]
        for first in range(0, len(views), step)
    ]
    return np.concatenate(parts)
