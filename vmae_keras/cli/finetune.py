"""vmae finetune"""

import enum
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
    LabelledVideos,
    ParallelOption,
    RecipeOption,
    Resume,
    RunFolder,
    Seed,
    Workers,
)
from vmae_keras.cli.shared.terminal import errors_for_people, notes_for_people
from vmae_keras.cli.shared.training_runs import continuation, resumed, run_training

Head = enum.Enum("Head", {name: name for name in ("new", "mapped")}, type=str)


def finetune(
    data: LabelledVideos = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Whose encoder to start from: a run, a folder, a file or hf://owner/name. Without it, "
            "training starts from random weights of --variant.",
        ),
    ] = None,
    head: Annotated[
        Head | None,
        typer.Option(
            help="With --start: a `new` head (default), or the start's own, `mapped` to these classes "
            "by their names."
        ),
    ] = None,
    out: RunFolder = Path("fine-tuned"),
    variant: Annotated[
        str | None, typer.Option(help="Without --start: demo (default), v1-s, v1-b, ...")
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
    """Fine-tune a classifier on labelled videos, from a pretrained encoder or from random weights.

    A share of the videos is held out and tells how it goes. A run that was killed or stopped goes on with
    --out RUN --resume.
    """
    from vmae_keras.runs.run import FineTuningSettings, Run
    from vmae_keras.training.new_run import prepare_fine_tuning

    again = continuation("finetune", out)
    settings = None
    with errors_for_people(ValueError, OSError), notes_for_people():
        if resume:
            fixed = {
                "--start": start,
                "--head": head,
                "--variant": variant,
                "--recipe": recipe,
                "--set": change,
                "--seed": seed,
                "--batch-per-device": batch_per_device,
            }
            settings = resumed(Run(out), FineTuningSettings, data, backend, fixed)
        name = settings.backend if settings else backend and backend.value
        used = start_devices(name, devices, parallel, again)
    with locked(out, used.first):
        run = Run(out, used.process)
        if settings is None:
            with errors_for_people(ValueError, OSError), notes_for_people():
                changes = [*(change or ()), *batch_changes(used, batch_per_device)]
                settings = prepare_fine_tuning(
                    run,
                    data,
                    start=start,
                    head=head.value if head else "new",
                    variant=variant,
                    recipe_name=recipe,
                    changes=changes,
                    seed=seed or 0,
                    backend=backend and backend.value,
                )
        import_keras()
        from vmae_keras.training.fine_tuning import finetune as train

        run_training(train, run, settings, workers, devices=used)
