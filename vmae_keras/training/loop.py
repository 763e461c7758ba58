"""Training loop of all stages: `fit` in logging intervals, with stopping, saving and resuming."""

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import keras

from vmae_keras.data.batches import NoReadableVideo
from vmae_keras.process.failures import Unfinished, explain
from vmae_keras.runs import checkpoint_files
from vmae_keras.runs.run import RunError
from vmae_keras.training import checkpoint
from vmae_keras.training.averages import AveragedValidation
from vmae_keras.training.callbacks import Progress, stop_on_interrupt
from vmae_keras.training.session import Session

LOG_STEPS = 10  # a row of the log is the mean over this many steps, or over an epoch if shorter


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of a call to `train`.

    Args:
        step, total_steps: Last step done, and number of steps planned.
        best_step: Step of the best weights, if the recipe has a patience; else None.
        exhausted: Whether the patience ended training.
        skipped: Broken files, path -> reason.
        stopped_by: Signal that ended training, in any process.
    """

    step: int
    total_steps: int
    best_step: int | None
    exhausted: bool
    skipped: dict[str, str]
    stopped_by: int | None = None

    @property
    def finished(self) -> bool:
        return self.exhausted or self.step == self.total_steps


def train(
    session: Session,
    model: keras.Model,
    schedule: Callable[[int], float],
    batches: Callable[[int], Iterable[tuple]],
    validation: tuple | None,
) -> Outcome:
    """Train until the recipe's end or an interrupt, resuming from the run's last checkpoint.

    Args:
        session: The run, its files and its devices.
        model: Compiled model with a built optimizer. It was built in the devices' scope.
        schedule: Function step -> learning rate.
        batches: Function step -> this process's parts of the batches from that step on.
        validation: Arrays for `evaluate`, (x,) or (x, y); None without held-out videos.

    Raises:
        NonFiniteLoss: The loss became NaN or infinite. Earlier checkpoints remain.
        CheckpointError: The last checkpoint does not fit the settings.
        RunError: Processes that train together have different settings, videos or checkpoints.
        Unfinished: A batch could not be made, or a file not written. All that can be saved is saved.
    """
    settings, recipe, run = session.settings, session.recipe, session.run
    display, devices, steps_per_epoch = session.display, session.devices, session.steps_per_epoch
    if run.writes:
        checkpoint.clean(run.checkpoints, run.best)
    total_steps = recipe.epochs * steps_per_epoch
    last = checkpoint_files.latest(run.checkpoints)
    start = checkpoint.restore(last, model) if last else 0
    if not devices.same(f"{settings!r} {start} {devices.parallel} {devices.count}"):
        raise RunError(
            "The processes of this job do not train the same: their settings, devices, lists of videos or "
            f"last checkpoints differ. Received by process {devices.process}: {settings.data} (list "
            f"{settings.videos}), step {start}. Give all the same arguments, and let them see the same "
            "videos and the same run's folder, under the same paths."
        )
    devices.join(model)
    clips_per_step = recipe.batch_size * recipe.repeats
    validation_size = clips_per_step
    if validation is not None:
        validation, validation_size = devices.share(validation, clips_per_step)
    run.rewind(start if last else -1)
    videos = len(session.training), len(session.held_out)
    display.start(settings, model, start, total_steps, steps_per_epoch, *videos, devices)
    if start == 0 and (few := recipe.few_updates(steps_per_epoch)):
        display.note(few)
    progress = Progress(
        run,
        display,
        start=start,
        steps_per_epoch=steps_per_epoch,
        clips_per_step=clips_per_step,
        schedule=schedule,
        patience=recipe.patience,
        devices=devices,
    )
    log_steps = min(LOG_STEPS, steps_per_epoch)
    with stop_on_interrupt(progress):
        if validation is not None and start == 0:
            _record_validation(model, validation, validation_size, progress)
        for first, steps, intervals in _fits(start, total_steps, log_steps):
            if devices.any(progress.stop_requested)[0] or progress.exhausted:
                break
            _fit(
                model,
                batches(first),
                progress,
                initial_epoch=first // log_steps,
                epochs=first // log_steps + intervals,
                steps_per_epoch=steps,
                validation_data=validation,
                validation_batch_size=validation_size,
                validation_freq=max(1, round(steps_per_epoch / log_steps)),
            )
        if devices.any(progress.step > progress.saved_step)[0]:
            with progress.writing():
                progress.save()
        if validation is not None and progress.step == total_steps != progress.validated:
            _record_validation(model, validation, validation_size, progress)
    if progress.failure is not None:
        raise _unfinished(progress, progress.failure)
    devices.wait()  # a launcher may kill a process that is still writing as soon as another one ends
    best_step = progress.best and progress.best.step
    return Outcome(
        progress.step,
        total_steps,
        best_step,
        progress.exhausted,
        session.skipped.report(),
        progress.stopped_by,
    )


def _fit(
    model: keras.Model, batches: Iterable[tuple], progress: Progress, **arguments: Any
) -> None:
    """Train until the batches end, or one cannot be made."""
    with warnings.catch_warnings():
        # After a failure, `until_failure` ends the batches early.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        try:
            model.fit(
                # Pass an iterator: `fit` would start the workers of a data set twice to inspect it.
                progress.devices.batches(progress.until_failure(batches)),
                callbacks=[AveragedValidation(), progress],
                shuffle=False,
                verbose=0,
                **arguments,
            )
        except Exception as error:
            if progress.failure is None:
                raise
            if progress.devices.processes > 1:
                raise _unfinished(progress, progress.failure) from error
            # Otherwise Keras raised because there was no first batch; the caller reports the failure.


def _unfinished(progress: Progress, reason: Exception) -> Exception:
    """Return an error that says why training ended early, and up to which step it is saved."""
    saved = progress.saved_step
    if not isinstance(reason, OSError | NoReadableVideo | Unfinished):
        return reason  # a bug, to be shown with its traceback
    lost = progress.step - saved
    return Unfinished(
        f"{explain(reason, progress.run.folder).removesuffix('.')}. "
        + (f"Training is saved up to step {saved}" if saved else "No step is saved")
        + (f"; the last {lost} steps are lost." if lost else ".")
    )


def _record_validation(
    model: keras.Model, validation: tuple, batch_size: int, progress: Progress
) -> None:
    """Record a row that has only the validation, before the first step or after the last."""
    found = model.evaluate(
        *validation,
        batch_size=batch_size,
        verbose=0,
        return_dict=True,
        callbacks=[AveragedValidation()],
    )
    found = progress.devices.mean(found)
    progress.record(
        {
            "step": progress.step,
            "epoch": progress.step / progress.steps_per_epoch,
            "validation_loss": float(found["loss"]),
            "validation_accuracy": found.get("accuracy") and float(found["accuracy"]),
        }
    )


def _fits(start: int, total: int, interval: int) -> list[tuple[int, int, int]]:
    """Return (first step, steps per interval, number of intervals) of each call of `fit`.

    Logging intervals end at the same steps when a run resumes or ends in the middle of one.
    """
    ahead = min(-start % interval, total - start)
    whole, rest = divmod(total - start - ahead, interval)
    parts = ((ahead, 1), (interval, whole), (rest, 1))
    firsts = itertools.accumulate((steps * count for steps, count in parts), initial=start)
    return [
        (first, steps, count)
        for first, (steps, count) in zip(firsts, parts, strict=False)
        if steps and count
    ]
