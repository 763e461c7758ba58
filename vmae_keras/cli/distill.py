"""Command `vmae distill`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmae_keras.cli.shared.options import (
    MODELS,
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
from vmae_keras.cli.shared.training_runs import TrainingOptions, begin_or_resume

if TYPE_CHECKING:
    from vmae_keras.training.loop import Outcome
    from vmae_keras.training.session import Session


def main(
    data: Annotated[
        str | None,
        typer.Argument(help="A folder of videos, a glob, a list or a CSV. Labels are not used."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Teacher: a run of `vmae finetune`, a folder, a file or hf://owner/name. With "
            "--set match=features, also a pretrained encoder.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="PRESET", help="Preset whose encoder the student starts from."),
    ] = None,
    out: RunFolder = Path("distilled"),
    variant: Annotated[
        str | None,
        typer.Option(help=f"Student without --start: {MODELS}; default: demo."),
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
) -> None:
    """Train a small student to match a large teacher, on videos without labels.

    The student learns the teacher's probabilities for the same augmented and mixed clips. With
    --set match=features, it learns the teacher's pooled features and can be fine-tuned afterwards.
    """
    from vmae_keras.runs.settings import DistillationSettings
    from vmae_keras.training.new_run import prepare_distillation

    def train(session: "Session") -> "Outcome":
        from vmae_keras.training.distillation import distill

        return distill(session)

    options = TrainingOptions(
        data=data,
        out=out,
        changes=change,
        backend=backend,
        devices=devices,
        parallel=parallel,
        batch_per_device=batch_per_device,
        resume=resume,
        workers=workers,
        seed=seed,
    )
    own = {"teacher": teacher, "start": start, "variant": variant, "recipe": recipe}
    begin_or_resume(DistillationSettings, prepare_distillation, train, options, own)
