"""Videos to the views that a classifier is judged by, on Grain; see `views` for which they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import grain
import numpy as np

from vmae_keras.data import views
from vmae_keras.data.augment import Size, luma
from vmae_keras.data.decode import UnreadableVideo, read_frames
from vmae_keras.data.files import VideoFile
from vmae_keras.data.finetune_augment import resize_linearly
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.stream import (
    Clips,
    ClipSizes,
    Readable,
    check_at_least,
    paths_of,
    read_ahead,
)


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
    """One pass over the files in order: all views of one video after those of another.

    Each video that can be read is decoded once and comes as a dict of `views`, (S * R, T, H, W, C)
    uint8, the R crops of the first clip before those of the second, and `index`, its place in
    `files`. Files that cannot be read are recorded and left out.

    Args:
        files: from `list_videos`.
        sizes: gives T, H, W and C, as a model configuration does.
        sampling: "dense", every `stride`-th frame, or "uniform", one of each segment.
        stride: ticks between the frames of a dense clip.
        clips: S, spread over the video; one or two with uniform sampling.
        crops: R, of H x W pixels, spread along the side of the frame that has room; None for whole
            frames, which must be of H x W pixels.
        skipped: where files that cannot be read are recorded.
        workers: processes that make views; with 0 threads of this process make them. A worker
            imports the main module of the program, as any spawned process, so a script needs the
            usual `if __name__ == "__main__"`.

    Raises:
        ValueError: a setting out of range, or no file.

    Source: official `kinetics.py` and `ssv2.py` in testing; clauses EVAL-1 to EVAL-3, EVAL-5.
    """
    samples = _Views(paths_of(files), _ViewClips(sizes, sampling, stride, clips, crops), skipped)
    # What cannot be read comes as {} and is dropped here, after the workers: they take turns, and
    # dropping it before would change the order.
    return read_ahead(samples, workers).filter(bool)


@dataclass(frozen=True)
class _ViewClips(Clips):
    """Which frames, and which crops of them; checked when built, before any worker starts."""

    clips: int
    crops: int | None

    def __post_init__(self):
        super().__post_init__()
        check_at_least(1, clips=self.clips, crops=1 if self.crops is None else self.crops)
        self.positions(1, None)

    def positions(self, ticks: int, generator: None) -> np.ndarray:
        """-> (S, T)"""
        if self.sampling == "dense":
            return views.dense_views(ticks, self.config.frames, self.stride, self.clips)
        return views.uniform_views(ticks, self.config.frames, self.clips)

    def read(self, path: str, generator: None, on_damage) -> np.ndarray:
        """-> (S * R, T, H, W, C) uint8"""
        places = None

        def choose(ticks: int) -> np.ndarray:
            # Clips overlap, and a short video repeats its last frame: each frame is held once.
            nonlocal places
            chosen, places = np.unique(self.positions(ticks, None), return_inverse=True)
            return chosen

        frames = read_frames(path, choose, on_damage)
        if self.crops is not None:
            frames = resize_plainly(frames, views.view_size(*frames.shape[1:3], self.size))
        elif frames.shape[1:3] != self.size:
            raise UnreadableVideo(
                path,
                "its frames have {} x {} pixels, and {} x {} are taken".format(
                    *frames.shape[1:3], *self.size
                ),
            )
        if self.config.channels == 1:
            frames = luma(frames)
        places = places.reshape(self.clips, self.config.frames)
        if self.crops is None:
            return frames[places]
        corners = views.view_crops(*frames.shape[1:3], self.size, self.crops)
        height, width = self.size
        return np.stack(
            [frames[clip, y : y + height, x : x + width] for clip in places for y, x in corners]
        )


def centre_view(frames: np.ndarray, size: Size) -> np.ndarray:
    """Resize frames and crop their centre, as a single view's: (F, H0, W0, 3) uint8 -> (F, *size, 3) uint8.

    Clauses EVAL-3, EVAL-5.
    """
    frames = resize_plainly(frames, views.view_size(*frames.shape[1:3], size))
    ((y, x),) = views.view_crops(*frames.shape[1:3], size, 1)
    return frames[:, y : y + size[0], x : x + size[1]]


def resize_plainly(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize frames without antialiasing, one at a time: (F, H0, W0, 3) uint8 -> (F, *size, 3) uint8.

    Clause EVAL-3.
    """
    height, width = frames.shape[1:3]
    if size == (height, width):
        return frames
    resized = np.empty((len(frames), *size, 3), np.uint8)
    for frame, out in zip(frames, resized, strict=True):  # in floats one at a time
        levels = resize_linearly(frame[None], (0, 0, width, height), size)[0] * 255
        np.rint(levels, out=out, casting="unsafe")
    return resized


class _Views(Readable):
    """Random access to the views of each file; {} for one that cannot be read."""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        made = self.try_to_read(self.paths[index], None)
        return {} if made is None else {"views": made, "index": np.int64(index)}
