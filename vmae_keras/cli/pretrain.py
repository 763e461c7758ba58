"""Command `vmae pretrain`."""

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
from vmae_keras.cli.shared.terminal import say
from vmae_keras.cli.shared.training_runs import TrainingOptions, begin_or_resume

if TYPE_CHECKING:
    from vmae_keras.training.loop import Outcome
    from vmae_keras.training.session import Session


def main(
    data: Annotated[
        str | None,
        typer.Argument(help="A folder of videos, a glob, a `path label` list or a CSV."),
    ] = None,
    out: RunFolder = Path("run"),
    variant: Annotated[
        str | None,
        typer.Option(help=f"Model: {MODELS}; default: demo."),
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
    """Pretrain a VideoMAE on videos without labels.

    Without a variant and a recipe, it trains a small model (64 x 64 clips) within minutes. Change any of
    their values with --set, as in --set epochs=20 --set batch_size=8. Resume a killed or stopped run with
    --out RUN --resume.
    """
    from vmae_keras.runs.settings import PretrainingSettings
    from vmae_keras.training.new_run import prepare_pretraining

    def train(session: "Session") -> "Outcome":
        from vmae_keras.training.pretraining import pretrain

        return pretrain(session)

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
    own = {"variant": variant, "recipe": recipe}
    run, used = begin_or_resume(PretrainingSettings, prepare_pretraining, train, options, own)
    if used.first:
        say(f"See what it learnt: vmae reconstruct {run.folder} CLIP")
