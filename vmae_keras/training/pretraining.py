"""Pretraining from files to a run folder: data, model, `fit`."""

from vmae_keras import backend
from vmae_keras.data.files import list_videos
from vmae_keras.data.pipeline import pretraining_dataset, validation_dataset
from vmae_keras.data.stream import NoReadableVideo
from vmae_keras.distribution import Devices
from vmae_keras.model import VideoMAE
from vmae_keras.runs.run import Run
from vmae_keras.runs.settings import PretrainingSettings
from vmae_keras.training import loop


def build(settings: PretrainingSettings, steps_per_epoch: int):
    """The compiled model and its learning-rate schedule, weights drawn by the run's seed."""
    recipe = settings.recipe
    backend.set_seed(settings.seed)
    model = VideoMAE(settings.config, remat=recipe.remat, dtype=recipe.precision)
    optimizer, schedule = loop.optimizer(recipe, steps_per_epoch)
    model.compile(optimizer)
    model.optimizer.build(model.trainable_variables)
    return model, schedule


def pretrain(
    settings: PretrainingSettings,
    run: Run,
    display,
    *,
    workers: int = 0,
    devices: Devices | None = None,
) -> loop.Outcome:
    """Trains until the recipe's end or an interrupt; goes on where the run's last checkpoint is.

    The batch of step k is a function of the settings and k alone, so nothing of the data pipeline has
    to be saved, and a continued run sees the batches that an unbroken one would have seen.

    Args:
        settings: what to train, on what; `run` already holds them.
        display: what a person sees; a `vmae_keras.training.display.Display`.
        workers: processes that decode videos; 0 decodes in threads of this process.
        devices: to train on, from `vmae_keras.distribution.start`; None for one.

    Raises:
        DistributionError: the devices do not divide a batch.
        RunError: the list of videos is not the one that the run began with.
        NoReadableVideo: no file can be decoded.
        NonFiniteLoss: the loss became NaN or infinite; earlier checkpoints stay.
        CheckpointError: the last checkpoint does not fit the settings.
    """
    recipe, devices = settings.recipe, devices or Devices()
    devices.check(recipe.batch_size)
    training, held_out, steps_per_epoch = loop.files_of(settings, list_videos)
    skipped = run.skipped_files()
    common = {
        "sampling": recipe.sampling,
        "stride": recipe.stride,
        "mask": recipe.mask,
        "mask_ratio": recipe.mask_ratio,
        "seed": settings.seed,
        "decoder_mask_ratio": recipe.decoder_mask_ratio,
        "skipped": skipped,
    }

    def batches(first):
        dataset = pretraining_dataset(
            training,
            settings.config,
            batch_size=recipe.batch_size,
            repeats=recipe.repeats,
            start_step=first,
            workers=workers,
            part=devices.process,
            parts=devices.processes,
            **common,
        )
        return ((batch,) for batch in dataset)

    with devices.scope():
        model, schedule = build(settings, steps_per_epoch)
        return loop.train(
            model,
            schedule,
            settings,
            run,
            display,
            videos=(len(training), len(held_out)),
            steps_per_epoch=steps_per_epoch,
            batches=batches,
            validation=_load(held_out, settings.config, common),
            skipped=skipped,
            devices=devices,
        )


def _load(held_out, config, common):
    """The held-out clips and their masks as one batch in memory, decoded once; None without any."""
    if not held_out:
        return None
    try:
        (batch,) = validation_dataset(held_out, config, batch_size=len(held_out), **common)
    except NoReadableVideo:  # training goes on without; the broken files are recorded
        return None
    return (batch,)
