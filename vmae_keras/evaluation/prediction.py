"""Prediction of the class of a single video."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vmae_keras import backend
from vmae_keras.data.batches import NoReadableVideo
from vmae_keras.data.files import VideoFile
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.view_dataset import views_dataset
from vmae_keras.data.views import CLIPS, average_views
from vmae_keras.export.artifact import Artifact

if TYPE_CHECKING:  # an artifact needs no Keras
    from vmae_keras.classifier import VideoClassifier


def predict(
    model: "VideoClassifier | Artifact",
    path: str | Path,
    *,
    sampling: str = "dense",
    stride: int = 4,
    clips: int | None = None,
    crops: int = 3,
    skipped: SkippedFiles,
) -> np.ndarray:
    """Return (K,) probabilities of the classes, averaged over the views of a video file.

    An artifact that resizes frames itself gets whole frames and takes their centre crop.

    Args:
        clips: Number of clips; None for the published models' number with this sampling. For the other
            arguments see `views_dataset`.

    Raises:
        NoReadableVideo: The file cannot be decoded, or its frames do not have the artifact's size.

    Source: clauses EVAL-1 to EVAL-5.
    """
    sizes = model.contract if isinstance(model, Artifact) else model.config
    whole = isinstance(model, Artifact) and model.contract.resizes
    views = views_dataset(
        [VideoFile(str(path))],
        sizes,
        sampling=sampling,
        stride=stride,
        clips=clips or CLIPS.get(sampling, 1),
        crops=None if whole else crops,
        skipped=skipped,
    )
    for element in views:
        return average_views(_logits(model, element["views"]))
    reasons = skipped.report()
    raise NoReadableVideo(f"{path} cannot be read: {reasons.get(str(path), 'no reason known')}.")


def _logits(model: "VideoClassifier | Artifact", views: np.ndarray) -> np.ndarray:
    if not isinstance(model, Artifact):
        return backend.predict(model, views)
    step = model.contract.batch or 1
    parts = [
        model({"video": model.contract.pixels(views[first : first + step])})["logits"]
        for first in range(0, len(views), step)
    ]
    return np.concatenate(parts)
