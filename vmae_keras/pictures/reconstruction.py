"""Pictures and videos of a clip, its masked form, and its reconstruction by a run's model."""

import dataclasses
import os
from pathlib import Path

import keras
import numpy as np

from vmae_keras.data.pretraining import read_clip
from vmae_keras.data.random_streams import Purpose, generator
from vmae_keras.model import VideoMAE
from vmae_keras.pictures import clips, patch_statistics
from vmae_keras.runs.checkpoint_files import step_of
from vmae_keras.runs.run import Run, RunError

FRAMES_PER_SECOND = 8  # of the written video, slow enough to inspect


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


def reconstruct(
    model: VideoMAE, clip: np.ndarray, visible: np.ndarray, decoded: np.ndarray, statistics: str
) -> np.ndarray:
    """uint8 (T, H, W, C) -> uint8 (T, H, W, C): replace hidden tubelets by the model's predictions.

    Args:
        visible, decoded: int32 ids of the tokens to see and to reconstruct.
        statistics: Source of the brightness and contrast of hidden patches, a key of
            `patch_statistics.LABELS`; "pixels" for a model that predicts pixels.
    """
    batch = {"video": clip[None], "visible": visible[None], "decoded": decoded[None]}
    prediction = keras.ops.convert_to_numpy(model.predict(batch, verbose=0))[0]
    c = model.config
    standard = (c.mean, c.std) if c.mae_target else None
    return patch_statistics.reconstruction(
        clip, visible, decoded, prediction, c.tubelet, statistics, standard
    )


def reconstruct_file(
    run: Run, clip: str | os.PathLike, out: Path, *, statistics: str, seed: int
) -> list[Path]:
    """Write `out`.png and `out`.mp4 of a video file's centre clip, and return their paths.

    All hidden tokens are reconstructed, whatever the decoder mask in training.

    Raises:
        RunError, WeightsError: See `load_model`.
        UnreadableVideo: The file cannot be decoded.
    """
    settings = run.settings()
    config, recipe = settings.config, settings.recipe
    video = read_clip(
        clip,
        frames=config.frames,
        height=config.height,
        width=config.width,
        channels=config.channels,
        stride=recipe.stride,
        sampling=recipe.sampling,
    )
    model, step = load_model(run)
    shows_all_hidden = dataclasses.replace(recipe, decoder_mask_ratio=None)
    ids = shows_all_hidden.draw_masks(config.grid, generator(seed, Purpose.RECONSTRUCTION_MASK))
    statistics = statistics if config.norm_pix else "pixels"
    rebuilt = reconstruct(model, video, ids["visible"], ids["decoded"], statistics)
    rows = [
        ("clip", video),
        (
            f"what the model saw: {len(ids['visible'])} of {config.num_tokens} tubelets",
            patch_statistics.masked_clip(video, ids["visible"], config.tubelet),
        ),
        (patch_statistics.LABELS[statistics], rebuilt),
    ]
    rows = [(label, np.repeat(part, 3 // config.channels, axis=3)) for label, part in rows]
    caption = f"{Path(clip).name}; trained on {settings.backend} for {step} steps"
    out.parent.mkdir(parents=True, exist_ok=True)
    paths = [out.with_name(f"{out.name}.png"), out.with_name(f"{out.name}.mp4")]
    clips.rows_picture(rows, caption=caption).save(paths[0])
    clips.rows_video(paths[1], rows, FRAMES_PER_SECOND, caption=caption)
    return paths
