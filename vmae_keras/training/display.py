"""Progress display of training: a progress bar, or plain lines without a terminal."""

import time
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vmae_keras import backend
from vmae_keras.distribution import Devices
from vmae_keras.process.console import Console
from vmae_keras.runs.settings import AnySettings

if TYPE_CHECKING:
    import keras

LINE_SECONDS = 10.0  # without a terminal, print at most one line in this time


class Display:
    """Display of loss, learning rate, clips per second and time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            # All columns fit into 80 characters.
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = TaskID(0)
        self.lined_at = 0.0
        self.validation = ""

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def start(
        self,
        settings: AnySettings,
        model: "keras.Model",
        step: int,
        total_steps: int,
        steps_per_epoch: int,
        training: int,
        held_out: int,
        devices: Devices,
    ) -> None:
        """Print a summary of data, model, backend and schedule, and start the bar."""
        recipe, config = settings.recipe, settings.config
        clips = recipe.batch_size * recipe.repeats
        where = backend.device()
        if devices.count > 1:
            where = f"{devices.count} x {where} ({devices.parallel} parallel)"
        self.console.print(
            f"{training} videos to train on, {held_out} held out for validation\n"
            f"{type(model).__name__}: {model.count_params() / 1e6:.1f} M weights, "
            f"{config.frames} x {config.height} x {config.width} clips, "
            f"{config.num_tokens} tokens, {settings.cost / 1e9:.3g} GMAC forward\n"
            f"{settings.backend} on {where}, {recipe.precision}; "
            f"{recipe.epochs} epochs of {steps_per_epoch} steps of {clips} clips"
        )
        if step:
            self.console.print(f"Continuing after step {step} of {total_steps}.")
        self.steps_per_epoch, self.epochs, self.total_steps = (
            steps_per_epoch,
            recipe.epochs,
            total_steps,
        )
        self.began, self.began_step = time.monotonic(), step
        self.task = self.bar.add_task(
            settings.stage,
            total=total_steps,
            completed=step,
            epoch=self._epoch(step),
            state="compiling",
        )

    def update(self, step: int, row: dict[str, Any] | None) -> None:
        """Show the state after a step.

        Args:
            row: Row of the log at the end of a logging interval, else None.
        """
        self.bar.update(self.task, completed=step, epoch=self._epoch(step))
        if row is None:
            return
        if row.get("validation_loss") is not None:
            self.validation = f"val {row['validation_loss']:.4f}"
            if row.get("validation_accuracy") is not None:
                self.validation += f" top-1 {100 * row['validation_accuracy']:.1f} %"
        state = self._state(row)
        self.bar.update(self.task, state=state)
        now = time.monotonic()
        last = step == self.total_steps or row.get("loss") is None
        if self.bar.disable and (now - self.lined_at >= LINE_SECONDS or last):
            self.lined_at = now
            text = f"epoch {self._epoch(step)}  step {step}/{self.total_steps}  {state}"
            left = (now - self.began) / max(step - self.began_step, 1) * (self.total_steps - step)
            if step > self.began_step and step < self.total_steps:
                text += f"  left {int(left) // 60}:{int(left) % 60:02d}"
            self.console.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line of text."""
        self.console.print(text)

    def _epoch(self, step: int) -> str:
        return f"{min(step // self.steps_per_epoch + 1, self.epochs)}/{self.epochs}"

    def _state(self, row: dict[str, Any]) -> str:
        parts = []
        if row.get("loss") is not None:
            parts.append(f"loss {row['loss']:.4f}")
        if self.validation:
            parts.append(self.validation)
        if row.get("learning_rate") is not None:
            parts.append(f"rate {row['learning_rate']:.1e}")
            parts.append(f"{row['clips_per_second']:.0f} clips/s")
        return " ".join(parts)
