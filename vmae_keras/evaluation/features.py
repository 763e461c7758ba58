"""Extraction of features from sliding windows over long videos, for action localisation and retrieval."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vmae_keras import backend
from vmae_keras.data.batches import paths_of
from vmae_keras.data.checks import check_at_least
from vmae_keras.data.files import VideoSource, list_videos
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.video import UnreadableVideo
from vmae_keras.data.window_stream import Windows, WindowStream
from vmae_keras.encoder import VideoEncoder
from vmae_keras.evaluation import FEATURE_FORMATS
from vmae_keras.evaluation.classification import model_fingerprint
from vmae_keras.evaluation.feature_files import FeatureFile
from vmae_keras.evaluation.frozen_encoder import FrozenEncoder
from vmae_keras.evaluation.padded_batches import pad_batches
from vmae_keras.process.files import write_json
from vmae_keras.runs.run import RunError
from vmae_keras.runs.same_settings import different_settings, refuse_different

SETTINGS = "features.json"  # the file with the settings of a folder's features


@dataclasses.dataclass(frozen=True)
class Extraction:
    """The contents of a folder of features.

    Args:
        files: Path of a video -> file of its features, in the order of the list.
        skipped: Path -> reason for each video that could not be read, or only in part.
    """

    files: dict[str, Path]
    skipped: dict[str, str]


def extract_features(
    encoder: VideoEncoder | FrozenEncoder,
    videos: VideoSource,
    folder: str | os.PathLike = "features",
    *,
    stride: int = 4,
    sampling_stride: int = 1,
    pooling: str | None = "mean",
    crop: bool = True,
    format: str = "npy",
    batch_windows: int = 8,
    skipped: SkippedFiles | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> Extraction:
    """Write the features of every window of each video to one `FeatureFile` per video.

    The files have the names and the folder structure of the videos. A file exists only when it is complete,
    and its video is not read again: a killed extraction resumes with the unfinished video. Memory holds
    at most the frames of two batches of windows.

    Args:
        encoder: A pretrained encoder.
        videos: Videos of any length; see `list_videos`.
        folder: Folder for the files.
        stride: Number of frames between the starts of consecutive windows.
        sampling_stride: Distance between the sampled frames of a window, in frames.
        pooling: "mean" or "first" for features (windows, D); None for all tokens, (windows, N, D). A
            `FrozenEncoder` keeps its own.
        crop: True crops the centre of frames; False resizes whole frames to the model's size.
        format: "npy", float32 with the times of the windows in a .json beside it, or "safetensors".
        batch_windows: Number of windows per batch. All batches have the same size, so that the encoder is
            compiled once.
        skipped: Record of videos that cannot be read, or only in part. None warns of them.
        progress: Function of the number of videos done and of all videos, called after each batch. Videos
            done by an earlier call do not count.

    Raises:
        FileNotFoundError: See `list_videos`.
        ValueError: A setting is out of range, or there is no video. Raised before any work.
        RunError: The folder holds features of another model, other windows or other videos.
        ArithmeticError: Features are not finite.

    Source: official `extract_tad_feature.py`, which omits the normalisation by mean and std that training
    uses; here the encoder does it. Clauses FEATURE-1 to FEATURE-4.

    Example:
        import numpy as np
        from vmae_keras import VideoEncoder, extract_features

        encoder = VideoEncoder.from_preset("pretrained")
        found = extract_features(encoder, "long.mp4", stride=8)
        features = np.load(found.files["long.mp4"])  # (windows, D)
    """
    check_at_least(1, batch_windows=batch_windows)
    if format not in FEATURE_FORMATS:
        raise ValueError(
            f"`format` must be one of {', '.join(FEATURE_FORMATS)}. Received: format={format!r}."
        )
    encoder, skipped = FrozenEncoder.of(encoder, pooling), skipped or SkippedFiles()
    windows = Windows(encoder.config, stride, sampling_stride, crop)
    folder = Path(folder)
    outputs = {
        path: FeatureFile(folder / f"{name}.{format}", path)
        for path, name in feature_names(paths_of(list_videos(videos))).items()
    }
    _begin(
        folder,
        {
            "model": model_fingerprint(encoder),
            "precision": encoder.dtype_policy.name,
            "frames": encoder.config.frames,
            "pooling": encoder.pooling or "none",
            "stride": stride,
            "sampling_stride": sampling_stride,
            "crop": crop,
            "format": format,
        },
    )
    left = [path for path, output in outputs.items() if not _done(output)]
    for number, path in enumerate(left):
        try:
            for part in _extracted(encoder, windows, outputs[path], path, batch_windows, skipped):
                if progress:
                    progress(round(number + part, 2), len(left))
        except UnreadableVideo as error:
            skipped.record(path, error.reason)
    reasons = skipped.report()
    return Extraction(
        {path: output.path for path, output in outputs.items() if output.path.exists()},
        {path: reasons[path] for path in outputs if path in reasons},
    )


def feature_names(paths: Sequence[str]) -> dict[str, str]:
    """Map each video's path to the name of its features: its path below the common folder, without suffix.

    Videos whose name would clash with another one, or with the settings, keep their suffixes.
    """
    places = {path: Path(os.path.abspath(path)) for path in paths}
    root = os.path.commonpath([place.parent for place in places.values()])
    whole = {path: str(place.relative_to(root)) for path, place in places.items()}
    stems = {path: os.path.splitext(name)[0] for path, name in whole.items()}
    # Some file systems ignore case.
    taken = Counter([*map(str.casefold, [*whole.values(), *stems.values()]), Path(SETTINGS).stem])
    return {
        path: stem if taken[stem.casefold()] == 1 else whole[path] for path, stem in stems.items()
    }


def _begin(folder: Path, settings: dict) -> None:
    """Write the settings into the folder; raise RunError if it holds different ones."""
    path = folder / SETTINGS
    if path.exists():
        different = different_settings(path, settings)
        refuse_different(folder, "features of another extraction", different)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def _done(output: FeatureFile) -> bool:
    source = output.source()
    if source not in (None, output.video):
        raise RunError(
            f"{output.path} holds the features of another video. Received: {source}, not "
            f"{output.video}. Give another folder, or delete this file."
        )
    return source is not None


def _extracted(
    encoder: FrozenEncoder,
    windows: Windows,
    output: FeatureFile,
    path: str,
    batch_windows: int,
    skipped: SkippedFiles,
) -> Iterator[float]:
    """Write the features of one video, and yield the share that is done after each batch."""
    stream = WindowStream(path, windows)
    done = 0
    try:
        for batch, count in pad_batches(stream, batch_windows):
            features = backend.predict(encoder, batch)[:count]
            if not np.isfinite(features).all():
                raise ArithmeticError(
                    f"The features of {path} are not finite. Check the model's weights, or compute in "
                    "float32."
                )
            if not done:
                output.begin(features.shape[1:], ticks_per_second=stream.rate)
            output.append(features)
            done += count
            yield done / len(stream.times)
        output.finish(stream.times[:done])
    except BaseException:
        output.discard()
        raise
    if stream.damage:
        skipped.record(path, f"used in part, as far as it decodes: {stream.damage}")
        yield 1.0
