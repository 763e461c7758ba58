"""Training session: a run with its files, and with the workers and devices that train it."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from vmae_keras.data.files import VideoFile, list_videos
from vmae_keras.data.labelled import list_labelled
from vmae_keras.data.random_streams import DRAWS, Purpose, generator
from vmae_keras.data.splits import hold_out
from vmae_keras.distribution import Devices
from vmae_keras.runs.run import Run, RunError
from vmae_keras.runs.settings import AnySettings, digest
from vmae_keras.training.display import Display

Settings = TypeVar("Settings", bound=AnySettings)

VALIDATION_VIDEOS = 128  # kept in memory: 300 MB at 16 x 224 x 224


class Session(Generic[Settings]):
    """A run to train from its start, or from its last checkpoint, to its end.

    The batch of step k depends only on the settings and k. So the data pipeline has no state to save, and
    a resumed run sees the same batches as one that was never interrupted.

    Args:
        settings: Settings of the run, already written to its folder.
        run: Run to write to.
        display: Display of progress.
        files: Files of the run if it is new; None lists them, and checks that they are still the same.
        workers: Number of processes that decode videos; 0 decodes in threads of this process.
        devices: Devices to train on, from `vmae_keras.distribution.start`; None for one.

    Attributes:
        recipe: Recipe of the settings.
        training, held_out: Files to train on, and files for the validation loss.
        steps_per_epoch: Number of batches in a pass over the training files.
        skipped: Record of broken files.

    Raises:
        DistributionError: The batch cannot be divided over the devices.
        RunError: The list of videos is gone or has changed since the run began, or the run began with a
            version of the library that drew its hold-out and batches differently.
    """

    def __init__(
        self,
        settings: Settings,
        run: Run,
        display: Display,
        *,
        files: Sequence[VideoFile] | None = None,
        workers: int = 0,
        devices: Devices | None = None,
    ) -> None:
        self.settings, self.run, self.display = settings, run, display
        self.recipe, self.workers, self.devices = settings.recipe, workers, devices or Devices()
        self.devices.check(self.recipe.batch_size, pairs=self.recipe.mixes_clips)
        self.training, self.held_out = hold_out(
            listed_files(settings) if files is None else files,
            self.recipe.validation,
            VALIDATION_VIDEOS,
            generator(settings.seed, Purpose.HOLD_OUT),
            by_class=settings.labelled,
        )
        self.steps_per_epoch = -(-len(self.training) // self.recipe.batch_size)
        self.skipped = run.skipped_files()


def listed_files(settings: AnySettings) -> list[VideoFile]:
    """Return the files of a run that resumes. Errors are those of `Session`."""
    if settings.draws != DRAWS:
        raise RunError(
            "This run began with an earlier version of vmae-keras, which drew the hold-out, the order and "
            "the masks in another way, so it cannot continue as it was. Start another run from its "
            "weights with --start, or finish it with the version that began it."
        )
    try:
        files = (list_labelled if settings.labelled else list_videos)(settings.data)
    except ValueError as error:
        raise RunError(f"The run's videos are gone. {error}") from error
    if settings.videos != digest(files, settings.labelled):
        raise RunError(
            f"The list of videos in {settings.data} has changed since this run began (its files, their "
            f"order{' or labels' if settings.labelled else ''}), so it cannot continue as it was. Restore "
            "the list, or start another run with another --out."
        )
    return files
