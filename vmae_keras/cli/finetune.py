"""Command `vmae finetune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmae_keras.cli.shared.options import (
    MODELS,
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
from vmae_keras.cli.shared.training_runs import TrainingOptions, begin_or_resume
from vmae_keras.runs import Head

if TYPE_CHECKING:
    from vmae_keras.training.loop import Outcome
    from vmae_keras.training.session import Session


def main(
    data: LabelledVideos = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Pretrained encoder to start from: a run, a folder, a file or hf://owner/name. Without "
            "it, training starts from random weights of --variant.",
        ),
    ] = None,
    head: Annotated[
        Head | None,
        typer.Option(
            help="With --start: a `new` head (default), or the start's head `mapped` to the classes of "
            "DATA by name."
        ),
    ] = None,
    out: RunFolder = Path("fine-tuned"),
    variant: Annotated[
        str | None, typer.Option(help=f"Model without --start: {MODELS}; default: demo.")
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
    """Fine-tune a classifier on labelled videos, from a pretrained encoder or from random weights.

    A share of the videos is held out for validation. Resume a killed or stopped run with --out RUN
    --resume.
    """
    from vmae_keras.runs.settings import FineTuningSettings
    from vmae_keras.training.new_run import prepare_fine_tuning

    def train(session: "Session") -> "Outcome":
        from vmae_keras.training.fine_tuning import finetune

        return finetune(session)

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
    own = {
        "start": start,
        "head": head,
        "variant": variant,
        "recipe": recipe,
    }
    begin_or_resume(FineTuningSettings, prepare_fine_tuning, train, options, own)
