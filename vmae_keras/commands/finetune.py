"""vmae finetune"""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vmae_keras.backend import import_keras, select
from vmae_keras.commands.options import (
    BackendOption,
    Changes,
    LabelledVideos,
    Resume,
    RunFolder,
    Seed,
    Workers,
)
from vmae_keras.commands.runs import check_new, resumed, run_training
from vmae_keras.commands.terminal import errors_for_people, notes_for_people


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
    out: RunFolder = Path("fine-tuned"),
    variant: Annotated[
        str | None, typer.Option(help="Without --start: demo (default), v1-s, v1-b, ...")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="demo (default), v1-k400-b, v1-ssv2-b, v1-ucf101-b, v2-k400-b, ..."),
    ] = None,
    change: Changes = None,
    backend: BackendOption = None,
    resume: Resume = False,
    workers: Workers = 0,
    seed: Seed = None,
):
    """Fine-tune a classifier on labelled videos, from a pretrained encoder or from random weights.

    A share of the videos is held out and tells how it goes. A run that was killed or stopped goes on with
    --out RUN --resume.
    """
    from vmae_keras.training.run import FineTuningSettings, Run

    run = Run(out)
    with errors_for_people(ValueError, OSError), notes_for_people():
        if resume:
            fixed = {
                "--start": start, "--variant": variant, "--recipe": recipe, "--set": change,
                "--seed": seed,
            }  # fmt: skip
            settings = resumed(run, FineTuningSettings, data, backend, fixed)
        else:
            settings = _new_fine_tuning(
                run, data, start, variant, recipe or "demo", change or [], backend, seed or 0
            )
    import_keras()
    from vmae_keras.training.finetune import finetune as train

    run_training(train, run, settings, workers)


def _new_fine_tuning(run, data, start, variant, recipe_name, overrides, backend, seed):
    """Settings from the command line, written to a folder that held no run."""
    from vmae_keras.config import VideoMAEConfig
    from vmae_keras.training.fine_tuning_recipe import RECIPES
    from vmae_keras.training.overrides import fine_tuning_changes
    from vmae_keras.training.run import FineTuningSettings, digest

    check_new(run, data, recipe_name, RECIPES)
    if start and variant:
        raise ValueError(
            "--start says what the model is. Received: --variant too. Leave one of them out."
        )
    of_recipe, of_model = fine_tuning_changes(overrides)
    recipe = dataclasses.replace(RECIPES[recipe_name], **of_recipe)
    name = select(backend and backend.value)
    from vmae_keras.data.labelled import classes_of, fine_tuning_clips, list_labelled

    data = str(Path(data).absolute())
    files = list_labelled(data)
    labels = classes_of(files)
    if start:
        import_keras()
        from vmae_keras.presets import preset_config

        config = preset_config(start, **of_model)
    else:
        config = VideoMAEConfig.variant(variant or "demo", **of_model)
    config = config.replace(drop_path=recipe.drop_path)
    fine_tuning_clips(
        config, recipe, len(labels)
    )  # what it refuses is refused before anything is written
    if start and Path(start).exists():
        start = str(Path(start).absolute())
    videos = digest([file.path for file in files])
    settings = FineTuningSettings(data, videos, start, labels, config, recipe, seed, name)
    run.save(settings)
    return settings
