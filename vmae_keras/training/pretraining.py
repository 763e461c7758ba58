"""Pretraining: train a `VideoMAE`, from files to a run folder."""

from collections.abc import Sequence

from vmae_keras import backend
from vmae_keras.data.files import VideoFile
from vmae_keras.data.pipeline import pretraining_dataset, validation_dataset
from vmae_keras.data.stream import NoReadableVideo
from vmae_keras.distribution import Devices
from vmae_keras.model import VideoMAE
from vmae_keras.runs.run import Run
from vmae_keras.runs.settings import PretrainingSettings
from vmae_keras.training import loop


def build(settings: PretrainingSettings, steps_per_epoch: int):
    """Return the compiled model, with weights drawn by the run's seed, and its learning-rate schedule."""
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
    files: Sequence[VideoFile] | None = None,
    workers: int = 0,
    devices: Devices | None = None,
) -> loop.Outcome:
    """Train until the recipe's end or an interrupt, resuming from the run's last checkpoint.

    The batch of step k depends only on the settings and k. So the data pipeline has no state to save, and
    a resumed run sees the same batches as one that was never interrupted.

    Args:
        settings: Settings of the run, already written to its folder.
        run: Run to write to.
        display: A `vmae_keras.training.display.Display`.
        files: Files of the run if it is new; None lists them, and checks that they are still the same.
        workers: Number of processes that decode videos; 0 decodes in threads of this process.
        devices: Devices to train on, from `vmae_keras.distribution.start`; None for one.

    Raises:
        DistributionError: The batch cannot be divided over the devices.
        RunError: The list of videos has changed since the run began.
        NoReadableVideo: No file can be decoded.
        NonFiniteLoss: The loss became NaN or infinite. Earlier checkpoints remain.
        CheckpointError: The last checkpoint does not fit the settings.
    """
    recipe, devices = settings.recipe, devices or Devices()
    devices.check(recipe.batch_size)
    training, held_out, steps_per_epoch = loop.split_files(
        settings, files or loop.listed_files(settings)
    )
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
        data = loop.TrainingData(
            videos=(len(training), len(held_out)),
            steps_per_epoch=steps_per_epoch,
            batches=batches,
            validation=_load(held_out, settings.config, common),
            skipped=skipped,
        )
        return loop.train(model, schedule, settings, run, display, data, devices)


def _load(held_out, config, common):
    """Decode the held-out clips once and return them with their masks as one batch; None without any."""
    if not held_out:
        return None
    try:
        (batch,) = validation_dataset(held_out, config, batch_size=len(held_out), **common)
    except NoReadableVideo:  # train without validation; the broken files are recorded
        return None
    return (batch,)
