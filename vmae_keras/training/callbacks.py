"""What happens beside the training steps: the log, checkpoints, and reasons to stop."""

import contextlib
import math
import signal
import time

import keras
from tensorboardX import SummaryWriter

from vmae_keras.training import checkpoint
from vmae_keras.training.run import Run

SAVE_SECONDS = 60.0  # at most this much work is lost to a kill, ...
SAVE_SHARE = 0.05  # ... unless saving would take more than this share of the time


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite."""


class Progress(keras.callbacks.Callback):
    """Logs, shows and saves at the end of each logging interval (an "epoch" of `fit`).

    Args:
        run: where to write.
        display: called with (step, row or None) after each step; shows the state of the run.
        start: steps already done.
        steps_per_epoch: to convert steps to epochs.
        clips_per_step: for the throughput.
        schedule: step -> learning rate.

    Raises:
        NonFiniteLoss: at the end of an interval; nothing of the interval is saved.
    """

    async_safe = True  # reads no numbers between intervals, so that steps need not wait

    def __init__(self, run: Run, display, *, start, steps_per_epoch, clips_per_step, schedule):
        super().__init__()
        self.run, self.display, self.step = run, display, start
        self.steps_per_epoch, self.clips_per_step = steps_per_epoch, clips_per_step
        self.schedule = schedule
        self.saved_at, self.save_took = time.monotonic(), 0.0
        self.saved_step, self.validated = start, None  # the steps of the last save and validation
        self.stop_requested = False

    def on_train_begin(self, logs=None):
        self.writer = SummaryWriter(str(self.run.tensorboard), purge_step=self.step or None)

    def on_train_end(self, logs=None):
        self.writer.close()

    def on_epoch_begin(self, epoch, logs=None):
        self.began, self.began_step, self.ended = time.monotonic(), self.step, None

    def on_test_begin(self, logs=None):
        # The validation's time does not count, but the steps that JAX has yet to finish do.
        keras.ops.convert_to_numpy(self.model.metrics[0].result())
        self.ended = time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        # Not at the batch's end: Keras calls that from another thread, and loses JAX's state then.
        if self.stop_requested:
            self.model.stop_training = True

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self.display(self.step, None)

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise NonFiniteLoss(
                f"The loss became {logs['loss']} between steps {self.began_step + 1} and {self.step}. "
                f"Checkpoints in {self.run.checkpoints} are from before. Lower the learning rate "
                "(--set base_learning_rate=...), clip gradients (--set clip_norm=1.0), or use "
                "--set precision=float32."
            )
        steps, ended = self.step - self.began_step, self.ended or time.monotonic()
        row = {
            "step": self.step,
            "epoch": self.step / self.steps_per_epoch,
            "loss": float(logs["loss"]),
            "validation_loss": logs.get("val_loss") and float(logs["val_loss"]),
            "learning_rate": self.schedule(self.step - 1),
            "clips_per_second": steps * self.clips_per_step / (ended - self.began),
        }
        self.record(row)
        wait = max(SAVE_SECONDS, self.save_took / SAVE_SHARE)
        if time.monotonic() - self.saved_at >= wait:
            self.save()

    def record(self, row):
        """Writes a row to the log, to TensorBoard and to the display."""
        self.run.append(row)
        if row.get("validation_loss") is not None:
            self.validated = row["step"]
        for name, value in row.items():
            if name != "step" and value is not None:
                self.writer.add_scalar(name, value, int(row["step"]))
        self.display(self.step, row)

    def save(self):
        began = time.monotonic()
        path = checkpoint.save(self.run.checkpoints, self.step, self.model)
        self.saved_at, self.saved_step = time.monotonic(), self.step
        self.save_took = self.saved_at - began
        return path


@contextlib.contextmanager
def stop_on_interrupt(progress: Progress, notify):
    """The first Ctrl-C (or SIGTERM) lets the running step end; a second one interrupts at once."""
    previous = {}

    def stop(number, _):
        progress.stop_requested = True
        notify()
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
