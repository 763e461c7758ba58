"""Start, resume and end of a run, shared by all commands that train."""

import dataclasses
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vmae_keras.backend import import_keras, installed, select, set_seed
from vmae_keras.cli.shared.folder import continued_by, locked
from vmae_keras.cli.shared.job import batch_changes, start_devices, wait_for_peer_failure
from vmae_keras.cli.shared.terminal import errors_for_people, notes_for_people, report_skipped

if TYPE_CHECKING:
    from vmae_keras.data.files import VideoFile
    from vmae_keras.distribution import Devices
    from vmae_keras.runs.run import Run
    from vmae_keras.runs.settings import AnySettings
    from vmae_keras.training.loop import Outcome


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of all commands that train; see `cli.shared.options`."""

    data: str | None
    out: Path
    changes: list[str] | None
    backend: str | None
    devices: int | None
    parallel: str | None
    batch_per_device: int | None
    resume: bool
    workers: int
    seed: int | None


def begin_or_resume(
    settings_class: "type[AnySettings]",
    prepare: Callable,
    train: Callable,
    options: TrainingOptions,
    own: dict[str, Any],
) -> "tuple[Run, Devices]":
    """Start a run, or resume it with --resume, and train to its end; return the run and its devices.

    Args:
        settings_class: Class of the run's settings.
        prepare: Function of `training.new_run` that creates the settings.
        train: Function that trains a `Session`. It imports lazily.
        options: Options that all commands share.
        own: Options of this command, named as the arguments of `prepare`; None if not given.
    """
    from vmae_keras.runs.run import Run, resume_command

    own = {name: value for name, value in own.items() if value is not None}
    again = resume_command(settings_class.command, options.out)
    settings = files = None  # a `Session` lists and checks the files of a run that resumes
    with errors_for_people(ValueError, OSError), notes_for_people():
        if options.resume:
            settings = resumed_settings(Run(options.out), settings_class, options, own)
        backend = select(settings.backend if settings else options.backend)
        devices = start_devices(backend, options.devices, options.parallel, again)
    with locked(options.out, devices.first):
        run = Run(options.out, devices.process)
        if settings is None:
            with errors_for_people(ValueError, OSError), notes_for_people():
                settings, files = prepare(
                    run,
                    options.data,
                    changes=[
                        *(options.changes or ()),
                        *batch_changes(devices, options.batch_per_device),
                    ],
                    seed=options.seed or 0,
                    backend=backend,
                    **own,
                )
        import_keras()
        run_training(train, run, settings, options.workers, files=files, devices=devices)
    return run, devices


def resumed_settings(
    run: "Run", settings_class: "type[AnySettings]", options: TrainingOptions, own: dict[str, Any]
) -> "AnySettings":
    """Return the settings of a run to resume. Only --backend can change. Clauses RESUME-2, RESUME-3."""
    from vmae_keras.runs.run import RunError, resume_command

    given = [f"--{name}" for name in own]
    fixed = {
        "--set": options.changes or None,
        "--seed": options.seed,
        "--batch-per-device": options.batch_per_device,
    }
    given += [flag for flag, value in fixed.items() if value is not None]
    if given:
        raise RunError(
            f"A run continues with its own settings. Received: {', '.join(given)}. Leave that out, or "
            "start another run with another --out and without --resume."
        )
    settings = run.settings()
    if not isinstance(settings, settings_class):
        raise RunError(
            f"{run.folder} holds another stage: {settings.stage}. Continue it with "
            f"{resume_command(settings.command, run.folder)}."
        )
    data = options.data
    if data is not None and str(Path(data).absolute()) != settings.data:
        raise RunError(
            f"DATA differs from that of the run in {run.folder}. Received: {data!r}, the run has "
            f"{settings.data!r}. Leave it out to continue the run, or start another with --out."
        )
    if options.backend is None and settings.backend not in installed():
        raise RunError(
            f"The run in {run.folder} was trained with {settings.backend}, which is not installed; "
            f"installed: {', '.join(installed()) or 'none'}. Install it, or name another one with "
            "--backend."
        )
    return dataclasses.replace(settings, backend=options.backend or settings.backend)


def run_training(
    train: Callable,
    run: "Run",
    settings: "AnySettings",
    workers: int,
    *,
    files: "Sequence[VideoFile] | None" = None,
    again: str | None = None,
    devices: "Devices | None" = None,
) -> "Outcome":
    """Train with a progress display and plot the loss curve. Exit the command if interrupted.

    Args:
        files: Files of a new run; None of one that resumes.
        again: Command line that resumes; None for the command of the run's stage.
    """
    from vmae_keras.data.batches import NoReadableVideo
    from vmae_keras.distribution import Devices, DistributionError
    from vmae_keras.process.console import Console
    from vmae_keras.process.failures import Unfinished
    from vmae_keras.runs.run import RunError, resume_command
    from vmae_keras.training.callbacks import NonFiniteLoss
    from vmae_keras.training.checkpoint import CheckpointError
    from vmae_keras.training.display import Display
    from vmae_keras.training.session import Session
    from vmae_keras.weights.hub import HubError
    from vmae_keras.weights.tensor_files import WeightsError

    devices = devices or Devices()
    again = again or resume_command(settings.command, run.folder)
    console = Console(quiet=not devices.first)
    # Only the first process: of a new run, the others may be here before its settings are written.
    if devices.first and (before := run.settings().backend) != settings.backend:
        console.print(_change_of_backend(before, settings), soft_wrap=True)
        run.update(settings)
    set_seed(settings.seed)  # done again by the stage; this call already does the slow imports
    with (
        continued_by(again, run.folder, devices.first),
        errors_for_people(
            RunError,
            DistributionError,
            NoReadableVideo,
            CheckpointError,
            NonFiniteLoss,
            WeightsError,
            HubError,
        ),
        Display(console) as display,
    ):
        try:
            session = Session(settings, run, display, files=files, workers=workers, devices=devices)
            outcome = train(session)
        except (ValueError, ArithmeticError, OSError, Unfinished):
            raise
        except Exception:
            wait_for_peer_failure(devices)
            raise
        devices.leave()
    report_skipped(console, outcome.skipped)
    if not outcome.finished:
        console.print(
            f"Stopped after step {outcome.step} of {outcome.total_steps}; all up to there is saved.\n"
            f"Continue with: {again}",
            soft_wrap=True,
        )
        raise typer.Exit(128 + (outcome.stopped_by or signal.SIGINT))
    if run.writes:
        _draw_losses(run)
    done = f"Done: {outcome.step} steps."
    if outcome.exhausted:
        done = f"Ended early after {outcome.step} of {outcome.total_steps} steps."
    if outcome.best_step is not None:
        done += f" The best weights are those of step {outcome.best_step}."
    console.print(f"{done} Loss curve: {run.loss_picture}", soft_wrap=True)
    return outcome


def _change_of_backend(before: str, settings: "AnySettings") -> str:
    """Return a note for the user if a run resumes under another backend. Clause RESUME-2."""
    note = f"Note: this run was trained with {before} so far, and resumes with {settings.backend}."
    if settings.config.drop_path or getattr(settings.recipe, "head_dropout", 0):
        return f"{note} Its drop-path and dropout are drawn differently than with {before}."
    return f"{note} Its results differ only by rounding."


def _draw_losses(run: "Run") -> None:
    from vmae_keras.pictures.clips import loss_picture

    rows = run.rows()
    names = {"training": "loss", "validation": "validation_loss"}
    curves = {
        curve: [(row["step"], row[name]) for row in rows if row[name] is not None]
        for curve, name in names.items()
    }
    loss_picture(run.loss_picture, {name: points for name, points in curves.items() if points})
