"""What a classifier takes one video for."""

from pathlib import Path

import numpy as np

from vmae_keras import backend
from vmae_keras.classifier import VideoClassifier
from vmae_keras.data.files import VideoFile
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.stream import NoReadableVideo
from vmae_keras.data.view_dataset import views_dataset
from vmae_keras.data.views import average_views


def predict(
    model: VideoClassifier,
    path: str | Path,
    *,
    sampling: str = "dense",
    stride: int = 4,
    clips: int = 5,
    crops: int = 3,
    skipped: SkippedFiles,
) -> np.ndarray:
    """(K,) probabilities of the classes, averaged over the views of a video file.

    Raises:
        NoReadableVideo: the file cannot be decoded.

    Source: clauses EVAL-1 to EVAL-4.
    """
    views = views_dataset(
        [VideoFile(str(path))], model.config, sampling=sampling, stride=stride, clips=clips,
        crops=crops, skipped=skipped,
    )  # fmt: skip
    for element in views:
        return average_views(backend.predict(model, element["views"]))
    reasons = skipped.report()
    raise NoReadableVideo(f"{path} cannot be read: {reasons.get(str(path), 'no reason known')}.")
