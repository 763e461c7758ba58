"""Pictures and videos of a clip, its masked form, and its reconstruction by a model."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from vmae_keras import masks
from vmae_keras.data.pretraining import read_clip
from vmae_keras.data.random_streams import Purpose, generator
from vmae_keras.model import VideoMAE
from vmae_keras.pictures import clips, patch_statistics
from vmae_keras.runs.checkpoint_files import step_of
from vmae_keras.runs.run import Run, RunError

FRAMES_PER_SECOND = 8  # of the written video, slow enough to inspect


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """A clip, its visible part and its reconstruction: uint8 videos (T, H, W, C).

    Args:
        clip: The clip.
        masked: The clip with hidden tubelets in grey.
        rebuilt: The clip with hidden tubelets replaced by the model's predictions.
        labels: Descriptions of the three videos.
    """

    clip: np.ndarray
    masked: np.ndarray
    rebuilt: np.ndarray
    labels: tuple[str, str, str]

    def picture(self, caption: str = "") -> Image.Image:
        """Return a picture with a row of frames for each of the three videos."""
        return clips.rows_picture(self._rows(), caption=caption)

    def write(self, out: str | os.PathLike, caption: str = "") -> list[Path]:
        """Write `out`.png, the picture, and `out`.mp4, the videos below each other; return their paths."""
        out = Path(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        paths = [out.with_name(f"{out.name}.png"), out.with_name(f"{out.name}.mp4")]
        self.picture(caption).save(paths[0])
        clips.rows_video(paths[1], self._rows(), FRAMES_PER_SECOND, caption=caption)
        return paths

    def _rows(self) -> list[tuple[str, np.ndarray]]:
        videos = (self.clip, self.masked, self.rebuilt)
        rgb = [np.repeat(video, 3 // video.shape[3], axis=3) for video in videos]
        return list(zip(self.labels, rgb, strict=True))


def reconstruct(
    model: VideoMAE,
    clip: str | os.PathLike | np.ndarray,
    *,
    sampling: str = "dense",
    stride: int = 4,
    mask: str = "tube",
    mask_ratio: float = 0.9,
    seed: int = 0,
    statistics: str = "seamless",
) -> Reconstruction:
    """Mask a clip, and reconstruct all hidden tubelets with a model.

    Args:
        model: A pretrained model.
        clip: A video file, of which the centre clip is taken, or uint8 (T, H, W, C) of the model's size.
        sampling, stride: See `read_clip`; not used if `clip` is an array.
        mask, mask_ratio: Kind of mask and share of masked tokens, as in `masks.pretraining`.
        seed: Random seed of the mask.
        statistics: Brightness and contrast of hidden patches, for a model that predicts normalised ones:
            "seamless" fits them to the visible patches, "visible" interpolates between visible patches,
            "oracle" takes the true values, which flatters the model.

    Raises:
        ValueError: A setting is out of range, or the array does not fit the model.
        UnreadableVideo: The file cannot be decoded.

    Example:
        from vmae_keras import VideoMAE, reconstruct

        model = VideoMAE.from_preset("pretrained")
        found = reconstruct(model, "clip.mp4", mask_ratio=0.75)
        found.picture().save("rebuilt.png")  # in a notebook, show the picture itself
    """
    c = model.config
    if not isinstance(clip, np.ndarray):
        sizes: dict[str, Any] = {
            "frames": c.frames,
            "size": (c.height, c.width),
            "channels": c.channels,
        }
        clip = read_clip(clip, **sizes, stride=stride, sampling=sampling)
    draws = generator(seed, Purpose.RECONSTRUCTION_MASK)
    ids = masks.pretraining(c.grid, draws, kind=mask, ratio=mask_ratio)
    batch = {"video": clip[None], **{name: each[None] for name, each in ids.items()}}
    prediction = keras.ops.convert_to_numpy(model.predict(batch, verbose=0))[0]
    statistics = statistics if c.norm_pix else "pixels"
    rebuilt = patch_statistics.reconstruction(
        clip,
        ids["visible"],
        ids["decoded"],
        prediction,
        c.tubelet,
        statistics,
        (c.mean or (), c.std or ()) if c.mae_target else None,
    )
    masked = patch_statistics.masked_clip(clip, ids["visible"], c.tubelet)
    seen = f"what the model saw: {len(ids['visible'])} of {c.num_tokens} tubelets"
    return Reconstruction(
        clip, masked, rebuilt, ("clip", seen, patch_statistics.LABELS[statistics])
    )


def load_model(run: Run) -> tuple[VideoMAE, int]:
    """Return a run's model with its best weights, else its newest, and the step of these weights.

    Raises:
        RunError: There is no run, it has no checkpoint yet, or it holds a classifier.
        WeightsError: The checkpoint does not fit the run's settings.
    """
    settings = run.settings()
    if settings.is_classifier:
        raise RunError(
            f"{run.folder} holds a classifier, which reconstructs nothing. Give the folder of a run of "
            "`vmae pretrain`."
        )
    step = step_of(run.weights_file())
    return VideoMAE.from_preset(run.folder), step


def reconstruct_file(
    run: Run, clip: str | os.PathLike, out: Path, *, statistics: str, seed: int
) -> list[Path]:
    """Write `out`.png and `out`.mp4 of a video file's centre clip, and return their paths.

    All hidden tokens are reconstructed, whatever the decoder mask in training.

    Raises:
        RunError, WeightsError: See `load_model`.
        UnreadableVideo: The file cannot be decoded.
    """
    settings: Any = run.settings()  # of pretraining, or `load_model` raises
    recipe = settings.recipe
    model, step = load_model(run)
    found = reconstruct(
        model,
        clip,
        sampling=recipe.sampling,
        stride=recipe.stride,
        mask=recipe.mask,
        mask_ratio=recipe.mask_ratio,
        seed=seed,
        statistics=statistics,
    )
    return found.write(out, f"{Path(clip).name}; trained on {settings.backend} for {step} steps")
