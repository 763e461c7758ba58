"""Pretraining from files to a run folder: data, model, `fit`."""

import dataclasses
import itertools

import numpy as np

from vmae_keras import backend
from vmae_keras.data.files import VideoFile, list_videos
from vmae_keras.data.pipeline import NoReadableVideo, pretraining_dataset, validation_dataset
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.model import VideoMAE
from vmae_keras.training import checkpoint
from vmae_keras.training.callbacks import Progress, stop_on_interrupt
from vmae_keras.training.optimizer import AdamW, WarmupCosine
from vmae_keras.training.recipe import Recipe
from vmae_keras.training.run import Run, RunError, Settings, digest

LOG_STEPS = 10  # a row of the log is the mean loss of this many steps, or of an epoch if shorter
VALIDATION_VIDEOS = 128  # they stay in memory: 300 MB at 16 x 224 x 224


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: at which step of how many, and path -> reason of the broken files."""

    step: int
    total_steps: int
    skipped: dict[str, str]

    @property
    def finished(self) -> bool:
        return self.step == self.total_steps


def split(files: list[VideoFile], recipe: Recipe, seed: int):
    """(training, held-out) files; the held-out ones drawn by the seed, none of fewer than ten."""
    held = min(int(len(files) * recipe.validation), VALIDATION_VIDEOS) if len(files) >= 10 else 0
    chosen = set(np.random.default_rng(seed).choice(len(files), held, replace=False).tolist())
    return (
        [file for index, file in enumerate(files) if index not in chosen],
        [file for index, file in enumerate(files) if index in chosen],
    )


def build(settings: Settings, total_steps: int, steps_per_epoch: int):
    """The compiled model and its learning-rate schedule, weights drawn by the run's seed."""
    recipe = settings.recipe
    backend.set_seed(settings.seed)
    model = VideoMAE(settings.config, remat=recipe.remat, dtype=recipe.precision)
    updates = max(total_steps // recipe.accumulate, 1)
    warmup = round(recipe.warmup_epochs * steps_per_epoch / recipe.accumulate)
    schedule = WarmupCosine(
        recipe.learning_rate, recipe.final_learning_rate, min(warmup, updates - 1), updates,
        recipe.accumulate,
    )  # fmt: skip
    optimizer = AdamW(
        schedule, recipe.weight_decay, beta_1=recipe.beta_1, beta_2=recipe.beta_2,
        global_clipnorm=recipe.clip_norm,
        gradient_accumulation_steps=recipe.accumulate if recipe.accumulate > 1 else None,
    )  # fmt: skip
    model.compile(optimizer)
    model.optimizer.build(model.trainable_variables)
    return model, lambda step: float(schedule(step))


def pretrain(settings: Settings, run: Run, display, *, workers: int = 0) -> Outcome:
    """Trains until the recipe's end or an interrupt; goes on where the run's last checkpoint is.

    The batch of step k is a function of the settings and k alone, so nothing of the data pipeline has
    to be saved, and a continued run sees the batches that an unbroken one would have seen.

    Args:
        settings: what to train, on what; `run` already holds them.
        display: what a person sees; a `vmae_keras.training.display.Display`.
        workers: processes that decode videos; 0 decodes in threads of this process.

    Raises:
        RunError: the list of videos is not the one that the run began with.
        NoReadableVideo: no file can be decoded.
        NonFiniteLoss: the loss became NaN or infinite; earlier checkpoints stay.
        CheckpointError: the last checkpoint does not fit the settings.
    """
    recipe = settings.recipe
    try:
        files = list_videos(settings.data)
    except ValueError as error:
        raise RunError(f"The run's videos are gone. {error}") from error
    if digest([file.path for file in files]) != settings.videos:
        raise RunError(
            f"The list of videos in {settings.data} has changed since this run began, so it cannot "
            "continue as it was. Restore the files, or start another run with another --out."
        )
    training, held_out = split(files, recipe, settings.seed)
    steps_per_epoch = -(-len(training) // recipe.batch_size)
    total_steps = recipe.epochs * steps_per_epoch
    model, schedule = build(settings, total_steps, steps_per_epoch)
    last = checkpoint.latest(run.checkpoints)
    start = checkpoint.restore(last, model) if last else 0
    run.rewind(start if last else -1)
    display.start(
        settings, model, start, total_steps, steps_per_epoch, len(training), len(held_out)
    )
    progress = Progress(
        run, display, start=start, steps_per_epoch=steps_per_epoch,
        clips_per_step=recipe.batch_size * recipe.repeats, schedule=schedule,
    )  # fmt: skip
    if start == 0:
        run.skipped.unlink(missing_ok=True)  # of an attempt that came to nothing
    skipped = SkippedFiles(run.skipped)
    common = {
        "sampling": recipe.sampling, "stride": recipe.stride,
        "mask": recipe.mask, "mask_ratio": recipe.mask_ratio, "seed": settings.seed,
        "decoder_mask_ratio": recipe.decoder_mask_ratio, "skipped": skipped,
    }  # fmt: skip
    validation = _load(held_out, settings.config, common)
    log_steps = min(LOG_STEPS, steps_per_epoch)
    with stop_on_interrupt(progress), progress.writer:
        if validation is not None and start == 0:
            _record_validation(model, validation, progress)
        for first, steps, intervals in _fits(start, total_steps, log_steps):
            if progress.stop_requested:
                break
            batches = pretraining_dataset(
                training, settings.config, batch_size=recipe.batch_size, repeats=recipe.repeats,
                start_step=first, workers=workers, **common,
            )  # fmt: skip
            model.fit(
                # Given the data set itself, `fit` would start its workers once more to look at it.
                ((batch,) for batch in batches),
                initial_epoch=first // log_steps,
                epochs=first // log_steps + intervals,
                steps_per_epoch=steps,
                validation_data=validation,
                validation_batch_size=recipe.batch_size * recipe.repeats,
                validation_freq=max(1, round(steps_per_epoch / log_steps)),
                callbacks=[progress],
                shuffle=False,
                verbose=0,
            )
        if progress.step > progress.saved_step:
            progress.save()
        if validation is not None and progress.step == total_steps != progress.validated:
            _record_validation(model, validation, progress)
    return Outcome(progress.step, total_steps, skipped.report())


def _load(held_out, config, common):
    """The held-out clips and their masks as one batch in memory, decoded once; None without any."""
    if not held_out:
        return None
    try:
        (batch,) = validation_dataset(held_out, config, batch_size=len(held_out), **common)
    except NoReadableVideo:  # training goes on without; the broken files are recorded
        return None
    return batch


def _record_validation(model, validation, progress):
    """A row with the validation loss alone: of the untrained model, or after the last step."""
    loss = model.evaluate(validation, batch_size=progress.clips_per_step, verbose=0)
    progress.record(
        {
            "step": progress.step,
            "epoch": progress.step / progress.steps_per_epoch,
            "validation_loss": float(loss),
        }
    )


def _fits(start, total, interval):
    """(first step, steps per interval, intervals) of each `fit`: the intervals of the log keep their
    places in the run when it goes on from the middle of one, or ends there."""
    ahead = min(-start % interval, total - start)
    whole, rest = divmod(total - start - ahead, interval)
    parts = ((ahead, 1), (interval, whole), (rest, 1))
    firsts = itertools.accumulate((steps * count for steps, count in parts), initial=start)
    return [
        (first, steps, count)
        for first, (steps, count) in zip(firsts, parts, strict=False)
        if steps and count
    ]
