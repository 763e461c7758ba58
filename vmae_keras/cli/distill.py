"""vmae distill"""

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
from vmae_keras.cli.shared.terminal import errors_for_people, notes_for_people
from vmae_keras.cli.shared.training_runs import continuation, resumed, run_training


def distill(
    data: Annotated[
        str | None,
        typer.Argument(help="A folder of videos, a glob, a list or a CSV; labels are not read."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Whom to learn from: a run of `vmae finetune`, a folder, a file or hf://owner/name; "
            "with --set match=features a pretrained encoder too.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="PRESET", help="Whose encoder the student starts from."),
    ] = None,
    out: RunFolder = Path("distilled"),
    variant: Annotated[
        str | None, typer.Option(help="Without --start: demo (default), v2-s, v2-b, ...")
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
    """Train a small student to say what a large teacher says, on videos without labels.

    The student sees the teacher's probabilities of the same augmented and mixed clips; with
    --set match=features its pooled features, for a student that is fine-tuned afterwards.
    """
    from vmae_keras.runs.run import DistillationSettings, Run
    from vmae_keras.training.new_run import prepare_distillation

    again = continuation("distill", out)
    settings = None
    with errors_for_people(ValueError, OSError), notes_for_people():
        if resume:
            fixed = {
                "--teacher": teacher,
                "--start": start,
                "--variant": variant,
                "--recipe": recipe,
                "--set": change,
                "--seed": seed,
                "--batch-per-device": batch_per_device,
            }
            settings = resumed(Run(out), DistillationSettings, data, backend, fixed)
        name = settings.backend if settings else backend and backend.value
        used = start_devices(name, devices, parallel, again)
    with locked(out, used.first):
        run = Run(out, used.process)
        if settings is None:
            with errors_for_people(ValueError, OSError), notes_for_people():
                changes = [*(change or ()), *batch_changes(used, batch_per_device)]
                settings = prepare_distillation(
                    run,
                    data,
                    teacher=teacher,
                    start=start,
                    variant=variant,
                    recipe_name=recipe,
                    changes=changes,
                    seed=seed or 0,
                    backend=backend and backend.value,
                )
        import_keras()
        from vmae_keras.training.distillation import distill as train

        run_training(train, run, settings, workers, devices=used)
