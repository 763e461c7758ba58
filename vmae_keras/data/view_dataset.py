"""Data pipeline for evaluation: the views of each video, on Grain. See `views` for their definition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from vmae_keras.data import views
from vmae_keras.data.augmentation import resize_linearly
from vmae_keras.data.batches import Arrays, EachVideo, Videos
from vmae_keras.data.checks import check_at_least
from vmae_keras.data.clips import ClipSizes, check_clip
from vmae_keras.data.crops import Size, luma
from vmae_keras.data.files import VideoFile
from vmae_keras.data.frames import read_frames
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.video import OnDamage, UnreadableVideo


def views_dataset(
    files: Sequence[VideoFile],
    sizes: ClipSizes,
    *,
    sampling: str,
    stride: int,
    clips: int,
    crops: int | None,
    skipped: SkippedFiles,
    workers: int = 0,
) -> grain.IterDataset:
    """Return one pass over the files in order, with all views of a video in one element.

    Each readable video is decoded once and becomes a dict of `views`, (S * R, T, H, W, C) uint8, the R
    crops of the first clip first, and `index`, the video's index in `files`. Unreadable files are recorded
    and dropped.

    Args:
        files: Videos, from `list_videos`.
        sizes: T, H, W and C, for example a model configuration.
        sampling: "dense" for every `stride`-th frame, "uniform" for one frame per segment.
        stride: Ticks between the frames of a dense clip.
        clips: Number of clips S, spread over the video; 1 or 2 with uniform sampling.
        crops: Number of crops R of H x W pixels, spread along the side of the frame that is longer than
            the crop's; None for whole frames, which must have H x W pixels.
        skipped: Record of unreadable files.
        workers: Number of worker processes; with 0, threads of this process make the views. Workers are
            spawned and import the program's main module, so a script needs the usual
            `if __name__ == "__main__"`.

    Raises:
        ValueError: A setting is out of range, or there is no file.

    Source: official `kinetics.py` and `ssv2.py` in testing; clauses EVAL-1 to EVAL-3, EVAL-5.
    """
    read = ViewReader(sizes, sampling, stride, clips, crops)
    return EachVideo(Videos(files, read, skipped), _indexed).dataset(workers)


def _indexed(index: int, views: np.ndarray) -> Arrays:
    return {"views": views, "index": np.int64(index)}


@dataclass(frozen=True)
class ViewReader:
    """Function that reads all views of a video. Its settings are checked when it is created.

    The arguments and errors are those of `views_dataset`.
    """

    sizes: ClipSizes
    sampling: str
    stride: int
    clips: int
    crops: int | None

    def __post_init__(self) -> None:
        check_clip(self.sizes.channels, self.sampling, self.stride)
        check_at_least(1, clips=self.clips, crops=1 if self.crops is None else self.crops)
        self.positions(1)

    def positions(self, ticks: int) -> np.ndarray:
        """Return the ticks of all clips: (S, T)."""
        if self.sampling == "dense":
            return views.dense_views(ticks, self.sizes.frames, self.stride, self.clips)
        return views.uniform_views(ticks, self.sizes.frames, self.clips)

    def __call__(
        self, path: str, generator: np.random.Generator | None, on_damage: OnDamage
    ) -> np.ndarray:
        """Read all views of a video: (S * R, T, H, W, C) uint8."""
        size = self.sizes.height, self.sizes.width
        places: Any = None

        def choose(ticks: int) -> np.ndarray:
            # Clips overlap and a short video repeats its last frame, so read each frame only once.
            nonlocal places
            chosen, places = np.unique(self.positions(ticks), return_inverse=True)
            return chosen

        frames = read_frames(path, choose, on_damage)
        if self.crops is not None:
            rows, columns = frames.shape[1:3]
            new_size = views.view_size(rows, columns, size)
            frames = resize_without_antialiasing(frames, new_size)
        elif frames.shape[1:3] != size:
            raise UnreadableVideo(
                path,
                "its frames have {} x {} pixels, and {} x {} are taken".format(
                    *frames.shape[1:3], *size
                ),
            )
        if self.sizes.channels == 1:
            frames = luma(frames)
        places = places.reshape(self.clips, self.sizes.frames)
        if self.crops is None:
            return frames[places]
        rows, columns = frames.shape[1:3]
        corners = views.view_crops(rows, columns, size, self.crops)
        height, width = size
        return np.stack(
            [frames[clip, y : y + height, x : x + width] for clip in places for y, x in corners]
        )


def centre_view(frames: np.ndarray, size: Size) -> np.ndarray:
    """Resize and centre-crop frames as for a single view: (F, H0, W0, 3) uint8 -> (F, *size, 3) uint8.

    Clauses EVAL-3, EVAL-5.
    """
    rows, columns = views.view_size(frames.shape[1], frames.shape[2], size)
    ((y, x),) = views.view_crops(rows, columns, size, 1)
    frames = resize_without_antialiasing(frames, (rows, columns))
    return frames[:, y : y + size[0], x : x + size[1]]


def resize_without_antialiasing(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize frames without antialiasing: (F, H0, W0, 3) uint8 -> (F, *size, 3) uint8.

    Clause EVAL-3.
    """
    height, width = frames.shape[1:3]
    if size == (height, width):
        return frames
    resized = np.empty((len(frames), *size, 3), np.uint8)
    for frame, out in zip(
        frames, resized, strict=True
    ):  # one at a time, as floats need more memory
        levels = resize_linearly(frame[None], (0, 0, width, height), size)[0] * 255
        np.rint(levels, out=out, casting="unsafe")
    return resized
