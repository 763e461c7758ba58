"""The real clips and the noise on which an artifact is compared with its model."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vmae_keras import masks
from vmae_keras.config import VideoMAEConfig
from vmae_keras.data.augmentation import resize_linearly
from vmae_keras.data.batches import NoReadableVideo
from vmae_keras.data.crops import luma
from vmae_keras.data.files import VideoFile, list_videos
from vmae_keras.data.pretraining import read_clip
from vmae_keras.data.synthetic import moving_shapes
from vmae_keras.data.video import UnreadableVideo
from vmae_keras.export.contract import Contract
from vmae_keras.export.serving import HALF
from vmae_keras.runs.settings import AnySettings, PretrainingSettings

DRAWN = "drawn shapes"


@dataclass(frozen=True)
class Sample:
    """Clips of one kind, as inputs of the artifact and of the model.

    Args:
        name: Description of the clips.
        inputs: Arrays for the artifact, by name.
        model_inputs: Arrays for the model, with clips already resized.
    """

    name: str
    inputs: dict[str, np.ndarray]
    model_inputs: dict[str, np.ndarray] | np.ndarray

    def __len__(self) -> int:
        return len(self.inputs["video"])

    def chosen(self, indices: Any) -> "Sample":
        def select(arrays: Any) -> Any:
            if isinstance(arrays, dict):
                return {name: array[indices] for name, array in arrays.items()}
            return arrays[indices]

        return Sample(self.name, select(self.inputs), select(self.model_inputs))


def sample(name: str, levels: np.ndarray, ids: dict[str, np.ndarray], contract: Contract) -> Sample:
    """Return the sample of clips, resized and cropped for the model. Clauses EXPORT-1, EXPORT-2.

    Args:
        name: Description of the clips.
        levels: uint8 (n, T, H0, W0, C).
        ids: Token ids of n clips or more; empty unless the model is a pretraining model.
        contract: Contract of the artifact.
    """
    own = {key: rows[: len(levels)] for key, rows in ids.items()}
    video = seen = contract.pixels(levels)
    if contract.resizes:
        resized, (y, x) = contract.crop
        box = (0, 0, contract.width, contract.height)
        seen = np.stack([resize_linearly(clip, box, resized) for clip in levels])
        seen = seen[:, :, y : y + contract.size[0], x : x + contract.size[1]]
        if contract.dtype == "uint8":
            seen = np.floor(seen * 255 + HALF).astype("uint8")
    return Sample(name, {"video": video, **own}, {"video": seen, **own} if own else seen)


def token_ids(
    config: VideoMAEConfig, settings: AnySettings | None, count: int
) -> dict[str, np.ndarray]:
    """Draw `visible` and `decoded` for a number of clips.

    Clips are masked as in the run if `settings` are given, otherwise as for the published models.
    """
    if isinstance(settings, PretrainingSettings):
        draw = settings.recipe.draw_masks
    else:
        mask: dict[str, Any] = {"kind": "random", "ratio": 0.75} if config.mae_target else {}
        draw = partial(masks.pretraining, **mask)
    generator = np.random.default_rng(0)
    clips = [draw(config.grid, generator) for _ in range(count)]
    return {name: np.stack([clip[name] for clip in clips]) for name in ("visible", "decoded")}


def real_clips(
    videos: str | Path | None,
    settings: AnySettings | None,
    contract: Contract,
    count: int,
    say: Callable[[str], None],
) -> tuple[str, np.ndarray]:
    """Return a description and uint8 (count or fewer, T, H0, W0, C) of clips.

    The clips come from `videos` if given, else from the run's own videos. If there are none, shapes are
    drawn.

    Raises:
        OSError, ValueError: The given videos cannot be read.
    """
    of_clip = {
        name: getattr(contract, name) for name in ("frames", "channels", "sampling", "stride")
    }
    size = contract.height, contract.width
    chosen = videos or (settings and settings.data)
    generator = np.random.default_rng(0)
    files: list[VideoFile] = []
    clips: list[np.ndarray] = []
    try:
        files = list_videos(chosen) if chosen else []
    except (OSError, ValueError):
        if videos:
            raise
        say(f"the run's videos no longer exist: {chosen}")
    for index in generator.permutation(len(files)):
        if len(clips) < count:
            with contextlib.suppress(UnreadableVideo):
                clips.append(read_clip(files[index].path, size=size, **of_clip))
    if clips:
        return f"videos of {chosen}", np.stack(clips)
    if videos:
        raise NoReadableVideo(f"None of the {len(files)} files of {videos} can be read.")
    clips = [moving_shapes(generator, contract.frames, size) for _ in range(count)]
    return DRAWN, np.stack(clips if contract.channels == 3 else [luma(clip) for clip in clips])
