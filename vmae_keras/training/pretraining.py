"""Pretraining: train a `VideoMAE`, from files to a run folder.

The loss is `VideoMAE.compute_loss` in `model.py`; its target is in `target.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vmae_keras import backend
from vmae_keras.config import VideoMAEConfig
from vmae_keras.data.batches import NoReadableVideo
from vmae_keras.data.files import VideoFile
from vmae_keras.data.pretraining import pretraining_dataset, validation_dataset
from vmae_keras.model import VideoMAE
from vmae_keras.runs.settings import PretrainingSettings
from vmae_keras.training import loop
from vmae_keras.training.optimizer import build_optimizer
from vmae_keras.training.session import Session


def build(
    settings: PretrainingSettings, steps_per_epoch: int
) -> tuple[VideoMAE, Callable[[int], float]]:
    """Return the compiled model, with weights drawn by the run's seed, and its learning-rate schedule."""
    recipe = settings.recipe
    backend.set_seed(settings.seed)
    model = VideoMAE(settings.config, remat=recipe.remat, dtype=recipe.precision)
    optimizer, schedule = build_optimizer(recipe, steps_per_epoch)
    model.compile(optimizer)
    model.optimizer.build(model.trainable_variables)
    return model, schedule


def pretrain(session: Session[PretrainingSettings]) -> loop.Outcome:
    """Train until the recipe's end or an interrupt, resuming from the run's last checkpoint.

    Raises:
        NoReadableVideo: No file can be decoded.
        NonFiniteLoss: The loss became NaN or infinite. Earlier checkpoints remain.
        CheckpointError: The last checkpoint does not fit the settings.
    """
    settings, devices = session.settings, session.devices
    recipe = settings.recipe
    common: dict[str, Any] = {
        "sampling": recipe.sampling,
        "stride": recipe.stride,
        "mask": recipe.mask,
        "mask_ratio": recipe.mask_ratio,
        "seed": settings.seed,
        "decoder_mask_ratio": recipe.decoder_mask_ratio,
        "skipped": session.skipped,
    }

    def batches(first: int) -> Iterator[tuple]:
        dataset = pretraining_dataset(
            session.training,
            settings.config,
            batch_size=recipe.batch_size,
            repeats=recipe.repeats,
            start_step=first,
            workers=session.workers,
            part=devices.process,
            parts=devices.processes,
            **common,
        )
        return ((batch,) for batch in dataset)

    with devices.scope():
        model, schedule = build(settings, session.steps_per_epoch)
        validation = _load(session.held_out, settings.config, common)
        return loop.train(session, model, schedule, batches, validation)


def _load(
    held_out: Sequence[VideoFile], config: VideoMAEConfig, common: dict[str, Any]
) -> tuple | None:
    """Decode the held-out clips once and return them with their masks as one batch; None without any."""
    if not held_out:
        return None
    try:
        (batch,) = validation_dataset(held_out, config, batch_size=len(held_out), **common)
    except NoReadableVideo:  # train without validation; the broken files are recorded
        return None
    return (batch,)
