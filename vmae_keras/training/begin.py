"""A new run: from names and KEY=VALUE changes to settings that are checked and written to its folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vmae_keras.backend import import_keras, select
from vmae_keras.config import VideoMAEConfig
from vmae_keras.data.files import list_videos
from vmae_keras.data.labelled import classes_of, fine_tuning_clips, list_labelled
from vmae_keras.training import fine_tuning_recipe, recipe
from vmae_keras.training.overrides import apply_overrides, fine_tuning_changes
from vmae_keras.training.run import FineTuningSettings, Run, RunError, Settings, digest
from vmae_keras.weights.classes import match_classes


def pretraining(
    run: Run,
    data: str | None,
    *,
    variant: str | None = None,
    recipe_name: str | None = None,
    changes: Sequence[str] = (),
    seed: int = 0,
    backend: str | None = None,
) -> Settings:
    """The settings of a new run that pretrains, written to its folder.

    Args:
        data: a folder of videos, a glob, a list or a CSV.
        variant, recipe_name: names of `VARIANTS` and `RECIPES`; None for "demo".
        changes: "key=value" texts.
        backend: see `vmae_keras.backend.select`.

    Raises:
        ValueError, OSError: whatever does not fit; then nothing is written.
    """
    chosen = _recipe(run, data, recipe_name, recipe.RECIPES)
    config, chosen = apply_overrides(
        VideoMAEConfig.variant(variant or "demo"), chosen, list(changes)
    )
    name = select(backend)
    data = str(Path(data).absolute())
    videos = digest([file.path for file in list_videos(data)])
    settings = Settings(data, videos, config, chosen, seed, name)
    run.save(settings)
    return settings


def fine_tuning(
    run: Run,
    data: str | None,
    *,
    start: str | None = None,
    head: str = "new",
    variant: str | None = None,
    recipe_name: str | None = None,
    changes: Sequence[str] = (),
    seed: int = 0,
    backend: str | None = None,
) -> FineTuningSettings:
    """The same of a run that fine-tunes.

    Args:
        data: a list or CSV with labels, or a folder that holds a folder for each class.
        start: the preset to start from; None starts from random weights of `variant`.
        head: "new", or "mapped": the start's own head, its rows picked by the names of the classes.
    """
    chosen = _recipe(run, data, recipe_name, fine_tuning_recipe.RECIPES)
    if start and variant:
        raise ValueError(
            "--start says what the model is. Received: --variant too. Leave one of them out."
        )
    of_recipe, of_model = fine_tuning_changes(list(changes))
    chosen = dataclasses.replace(chosen, **of_recipe)
    name = select(backend)
    data = str(Path(data).absolute())
    files = list_labelled(data)
    labels = classes_of(files)
    if start:
        import_keras()
        from vmae_keras.presets import preset_config, preset_labels

        config = preset_config(start, **of_model)
        if head == "mapped":
            match_classes(preset_labels(start), labels)  # refused before anything is written
    else:
        config = VideoMAEConfig.variant(variant or "demo", **of_model)
    config = config.replace(drop_path=chosen.drop_path)
    fine_tuning_clips(config, chosen, len(labels))  # what it refuses, too
    if start and Path(start).exists():
        start = str(Path(start).absolute())
    videos = digest([file.path for file in files])
    settings = FineTuningSettings(
        data, videos, start, labels, config, chosen, seed, name, head=head
    )
    run.save(settings)
    return settings


def _recipe(run, data, name, recipes):
    if data is None:
        raise ValueError("DATA is missing: a folder of videos, a glob, a list or a CSV.")
    if (name := name or "demo") not in recipes:
        raise ValueError(f"`--recipe` must be one of {', '.join(recipes)}. Received: {name!r}.")
    if any(run.checkpoints.glob("*.safetensors")):
        raise RunError(
            f"{run.folder} already holds a run. Continue it with --resume, or choose another --out."
        )
    return recipes[name]
