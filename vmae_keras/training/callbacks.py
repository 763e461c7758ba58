"""Keras callbacks of training: log, checkpoints, early stopping and interruption."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from vmae_keras import backend
from vmae_keras.distribution import Devices
from vmae_keras.process import interrupts
from vmae_keras.runs.run import Run
from vmae_keras.training import checkpoint
from vmae_keras.training.display import Display
from vmae_keras.training.tensorboard import TensorBoard

# Save at most this often: a kill loses this much work and a logging interval ...
SAVE_SECONDS = 60.0
# ... and less often if saving would take more than this share of the time.
SAVE_SHARE = 0.05


class _Best(NamedTuple):
    """Best validation so far: highest accuracy, then lowest loss."""

    accuracy: float
    minus_loss: float
    step: int


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite."""


class Progress(keras.callbacks.Callback):
    """Callback that logs, displays and saves after each logging interval (an "epoch" of `fit`).

    Args:
        run, display: Run to write to, and `vmae_keras.training.display.Display` that shows its state.
        start: Number of steps already done.
        steps_per_epoch, clips_per_step: Numbers of steps in an epoch of the data, and of clips in a step.
        schedule: Function step -> learning rate.
        patience: Epochs without a better validation before training ends; see `TrainingRecipe`.
        devices: Devices that train together. Their processes take the same decisions.

    Attributes:
        failure: Error in making a batch or writing a file. Training ends after the running step.
        stopped_by: Signal that ended training.

    Raises:
        NonFiniteLoss: A loss or weight is not finite at the end of an interval. It is not saved.
    """

    async_safe = True  # reads no tensors between intervals, so steps need not wait for it

    def __init__(
        self,
        run: Run,
        display: Display,
        *,
        start: int,
        steps_per_epoch: int,
        clips_per_step: int,
        schedule: Callable[[int], float],
        patience: int | None = None,
        devices: Devices | None = None,
    ) -> None:
        super().__init__()
        self.run, self.display, self.step, self.devices = run, display, start, devices or Devices()
        self.steps_per_epoch, self.clips_per_step = steps_per_epoch, clips_per_step
        self.schedule = schedule
        self.saved_at, self.save_took = time.monotonic(), 0.0
        # With several processes, the first may not have rewound the log yet.
        rows = [row for row in run.rows() if row["step"] <= start]
        done = [row["step"] for row in rows if row["validation_loss"] is not None]
        self.saved_step, self.validated = start, max(done, default=None)
        self.patience, self.best = patience, None
        for row in rows:
            self.best = self._better(row) or self.best
        self.saved_best = self.best
        self._keep_best()  # delete weights from later steps and from another run
        self.failure: Exception | None = None
        self._made = self._begun = 0  # batches and steps, guarded by:
        self._news = threading.Condition()
        self.stopped_by = interrupts.received()
        self.stop_requested, self.stop_noted = self.stopped_by is not None, False
        # Discard what an earlier attempt logged after this step.
        self.writer = TensorBoard(run.tensorboard, start + 1 if start else 0, run.writes)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.began, self.began_step = time.monotonic(), self.step
        self.ended: float | None = None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Exclude validation from the throughput, but wait for steps that JAX still has to finish.
        keras.ops.convert_to_numpy(self.model.metrics[0].result())
        self.ended = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Not at the batch's end: Keras calls that from another thread, where stopping loses JAX's state.
        if self.stop_requested and not self.stop_noted:
            several = self.devices.processes > 1  # all processes stop after the same step
            self.display.note(f"Stopping after {'these steps' if several else 'this step'} ...")
            self.stop_noted = True
        if self.stop_requested and self.devices.processes == 1:
            self.model.stop_training = True
        self._wait_for_batch()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.step += 1
        self.display.update(self.step, None)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.step == self.began_step:  # the batches had ended
            return
        logs = self.devices.mean(logs or {})
        self._check_finite("loss", logs["loss"])
        self._check_finite("validation loss", logs.get("val_loss", 0.0))
        steps, ended = self.step - self.began_step, self.ended or time.monotonic()
        row = {
            "step": self.step,
            "epoch": self.step / self.steps_per_epoch,
            "loss": float(logs["loss"]),
            "validation_loss": logs.get("val_loss") and float(logs["val_loss"]),
            "validation_accuracy": logs.get("val_accuracy") and float(logs["val_accuracy"]),
            "learning_rate": self.schedule(self.step - 1),
            "clips_per_second": steps * self.clips_per_step / (ended - self.began),
        }
        self.record(row)
        wait = max(SAVE_SECONDS, self.save_took / SAVE_SHARE)
        # The process that writes decides: the others do not know how long writing takes.
        due = self.devices.first and time.monotonic() - self.saved_at >= wait
        terminated = self.stopped_by == signal.SIGTERM
        stop, terminated, save = self.devices.any(self.stop_requested, terminated, due)
        if stop and self.stopped_by is None:
            self.stopped_by = signal.SIGTERM if terminated else signal.SIGINT
        if stop or self.exhausted:
            self.model.stop_training = True
        self.stop_requested |= stop
        if save:
            with self.writing():
                self.save()

    def record(self, row: dict[str, Any]) -> None:
        """Write a row to the log, to TensorBoard and to the display."""
        with self.writing():
            if better := self._better(row):
                # Save before logging: a resumed run expects the best weights of every logged row.
                checkpoint.save(
                    self.run.best, self.step, self.model, keep=None, writes=self.run.writes
                )
            self.run.append(row)
            if better:  # the previous best weights are needed until both are written
                self.best = better
                self._keep_best()
        if row.get("validation_loss") is not None:
            self.validated = row["step"]
        with self.writing():
            for name, value in row.items():
                if name != "step" and value is not None:
                    self.writer.add(name, value, int(row["step"]))
        with self.writing():
            self.display.update(self.step, row)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """End training after the running step if the block raises OSError.

        With several processes, raise at once: the others are in their next step and wait for this one.
        """
        try:
            yield
        except OSError as error:
            self.fail(error)
            if self.devices.processes > 1:
                raise

    def until_failure(self, batches: Iterable) -> Iterable:
        """Yield batches. If one cannot be made, end training after the steps before it."""
        self._made, self._begun = 0, 0
        try:
            for batch in batches:
                with self._news:
                    self._made += 1
                    self._news.notify()
                yield batch
        except Exception as error:
            with self._news:
                self.fail(error)
                self._news.notify()
            if self.devices.processes > 1:  # the others wait for this process's part of the batch
                raise

    def _wait_for_batch(self) -> None:
        """End the interval before a step that has no batch.

        TensorFlow fetches the batch inside of the step, after drawing drop-path. A step without a batch
        would change the random state, and a resumed run would draw differently.
        """
        if self.devices.count > 1 or not backend.fetches_inside_steps:
            return
        with self._news:
            self._news.wait_for(lambda: self.failure or self._made > self._begun)
            self._begun += 1
            if self._made < self._begun:
                raise StopIteration  # Keras treats it as the end of the batches

    def fail(self, error: Exception) -> None:
        """End training after the running step, because of an error."""
        self.failure = self.failure or error
        self.stop_requested = self.stop_noted = True
        if self.model is not None:
            self.model.stop_training = True

    def _better(self, row: dict[str, Any]) -> _Best | None:
        """Return a row's validation if there is a patience and it is the best so far; else None."""
        if self.patience is None or row["validation_loss"] is None or not row["step"]:
            return None
        found = _Best(
            row.get("validation_accuracy") or 0.0, -row["validation_loss"], int(row["step"])
        )
        return found if self.best is None or found[:2] > self.best[:2] else None

    @property
    def exhausted(self) -> bool:
        """True once a validation is at least `patience` epochs later than the best one. Clause FT-10."""
        if self.patience is None or self.best is None or self.validated is None:
            return False
        return self.validated - self.best.step >= self.patience * self.steps_per_epoch

    def save(self) -> Path:
        began = time.monotonic()
        path = checkpoint.save(
            self.run.checkpoints,
            self.step,
            self.model,
            writes=self.run.writes,
            check=self._check_weight,
        )
        self.saved_at, self.saved_step = time.monotonic(), self.step
        self.saved_best = self.best
        self._keep_best()
        self.save_took = self.saved_at - began
        return path

    def _keep_best(self) -> None:
        """Keep only the best weights, and the best at the last checkpoint, which a resumed run needs."""
        if self.run.writes:
            kept = {best.step for best in (self.best, self.saved_best) if best}
            checkpoint.keep(self.run.best, kept)

    def _check_weight(self, path: str, value: np.ndarray) -> None:
        """Raise if the last update made a weight non-finite, before any loss shows it."""
        self._check_finite(f"weight {path}", float(np.abs(value).max()))

    def _check_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteLoss(
                f"The {name} became {value} between steps {self.began_step + 1} and {self.step}. "
                f"Checkpoints in {self.run.checkpoints} are from before. In a new run (another --out), "
                "lower the learning rate (--set base_learning_rate=...), clip gradients "
                "(--set clip_norm=1.0), or use --set precision=float32."
            )


@contextlib.contextmanager
def stop_on_interrupt(progress: Progress) -> Iterator[None]:
    """Stop after the running step on the first Ctrl-C or SIGTERM, and at once on the second."""
    previous = {}
    first = None

    def stop(number: int, _: object) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first, progress.stop_requested, progress.stopped_by = now, True, number
        elif now - first > interrupts.PASSED_ON_SECONDS:
            for each, handler in previous.items():
                signal.signal(each, handler)
            signal.raise_signal(number)

    for number in interrupts.SIGNALS:
        previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
