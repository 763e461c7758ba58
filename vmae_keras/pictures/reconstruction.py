"""From a run and a clip to a picture and a video: the clip, what the model saw, what it made of it."""

import dataclasses
import os
from pathlib import Path

import keras
import numpy as np

from vmae_keras.data.pipeline import read_clip
from vmae_keras.data.random_streams import Purpose, generator
from vmae_keras.model import VideoMAE
from vmae_keras.pictures import clips, patch_statistics
from vmae_keras.runs.checkpoint_files import step_of
from vmae_keras.runs.run import Run, RunError

FRAMES_PER_SECOND = 8  # of the video that is written: slow enough to look at


def load_model(run: Run) -> tuple[VideoMAE, int]:
    """A run's model with the weights to be used, and the step they are from.

    Raises:
        RunError: no run, or no checkpoint yet.
        WeightsError: the checkpoint does not fit the run's settings.
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
    """uint8 (T, H, W, C) -> uint8 (T, H, W, C), hidden tubelets as the model predicts them.

    Args:
        visible, decoded: int32 ids of the tokens to see and to rebuild.
        statistics: where hidden patches take brightness and contrast from, a key of
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
    """Writes `out`.png and `out`.mp4 of a video file's centre clip; returns the paths.

    All hidden tokens are rebuilt, whatever the decoder's mask in training.

    Raises:
        RunError, CheckpointError: see `load_model`.
        UnreadableVideo: the file cannot be decoded.
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
