"""vmae pretrain"""

from pathlib import Path
from typing import Annotated

import typer

from vmae_keras.backend import import_keras
from vmae_keras.cli.shared.folder import locked
from vmae_keras.cli.shared.job import batch_changes, start_devices
from vmae_keras.cli.shared.options import (
    BackendOption,
    BatchPerDevice,
    Changes,
    DevicesOption,
    ParallelOption,
    RecipeOption,
    Resume,
    RunFolder,
    Seed,
    Workers,
)
from vmae_keras.cli.shared.terminal import errors_for_people, say
from vmae_keras.cli.shared.training_runs import continuation, resumed, run_training


def pretrain(
    data: Annotated[
        str | None,
        typer.Argument(help="A folder of videos, a glob, a `path label` list or a CSV."),
    ] = None,
    out: RunFolder = Path("run"),
    variant: Annotated[
        str | None,
        typer.Option(
            help="demo (default), v1-s, v1-b, v1-l, v1-h, v2-s, v2-b, v2-l, v2-h or v2-g."
        ),
    ] = None,
    recipe: RecipeOption = None,
    change: Changes = None,
    backend: BackendOption = None,
    devices: DevicesOption = None,
    parallel: ParallelOption = None,
    batch_per_device: BatchPerDevice = None,
    resume: Resume = False,
    workers: Workers = 0,
    seed: Seed = None,
):
    """Pretrain a VideoMAE on videos without labels.

    Without a variant and a recipe it trains a small model (64 x 64 clips) within minutes. Any value of
    theirs changes with --set, as in --set epochs=20 --set batch_size=8. A run that was killed or
    stopped goes on with --out RUN --resume.
    """
    from vmae_keras.runs.run import Run, Settings
    from vmae_keras.training.new_run import prepare_pretraining

    again = continuation("pretrain", out)
    settings = None
    with errors_for_people(ValueError, OSError):  # all that the command line can get wrong
        if resume:
            fixed = {
                "--variant": variant,
                "--recipe": recipe,
                "--set": change,
                "--seed": seed,
                "--batch-per-device": batch_per_device,
            }
            settings = resumed(Run(out), Settings, data, backend, fixed)
        name = settings.backend if settings else backend and backend.value
        used = start_devices(name, devices, parallel, again)
    with locked(out, used.first):
        run = Run(out, used.process)
        if settings is None:
            with errors_for_people(ValueError, OSError):
                changes = [*(change or ()), *batch_changes(used, batch_per_device)]
                settings = prepare_pretraining(
                    run,
                    data,
                    variant=variant,
                    recipe_name=recipe,
                    changes=changes,
                    seed=seed or 0,
                    backend=backend and backend.value,
                )
        import_keras()
        from vmae_keras.training.pretraining import pretrain as train

        run_training(train, run, settings, workers, devices=used)
    if used.first:
        say(f"See what it learnt: vmae reconstruct {run.folder} CLIP")
