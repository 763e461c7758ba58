"""Creation of a run: validate names and KEY=VALUE changes, and write the settings to its folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmae_keras.backend import import_keras
from vmae_keras.config import VideoMAEConfig
from vmae_keras.data.files import VideoFile, list_videos
from vmae_keras.data.fine_tuning import fine_tuning_clips
from vmae_keras.data.labelled import classes_of, list_labelled, warn_of_one_class
from vmae_keras.recipes import distillation, fine_tuning, pretraining
from vmae_keras.recipes.distillation import DistillationRecipe
from vmae_keras.recipes.overrides import fine_tuning_changes, pretraining_changes
from vmae_keras.recipes.page_files import Recipe, Recipes
from vmae_keras.runs.run import Run, RunError
from vmae_keras.runs.settings import (
    DistillationSettings,
    FineTuningSettings,
    PretrainingSettings,
    digest,
)
from vmae_keras.weights.classes import match_classes


def prepare_pretraining(
    run: Run,
    data: str | None,
    *,
    variant: str | None = None,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    seed: int = 0,
    backend: str,
) -> tuple[PretrainingSettings, list[VideoFile]]:
    """Write the settings of a new pretraining run to its folder. Return them, and the files of the run.

    Args:
        data: A folder of videos, a glob, a list or a CSV.
        variant: Name in `VARIANTS`; None for "demo".
        recipe: Name in `RECIPES`, or path of a recipe page (.toml); None for "demo".
        changes: "key=value" strings.
        backend: Name of the backend, as `vmae_keras.backend.select` returns it.

    Raises:
        ValueError, OSError: An argument is invalid. Nothing is written.
    """
    of_recipe, of_model = pretraining_changes(list(changes))
    chosen, data = _recipe(run, data, recipe, pretraining.RECIPES, of_recipe)
    config = VideoMAEConfig.variant(variant or "demo", **of_model)
    files = list_videos(data)
    videos = digest(files, PretrainingSettings.labelled)
    settings = PretrainingSettings(data, videos, config, chosen, seed, backend)
    run.save(settings)
    return settings, files


def prepare_fine_tuning(
    run: Run,
    data: str | None,
    *,
    start: str | None = None,
    head: str = "new",
    variant: str | None = None,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    seed: int = 0,
    backend: str,
) -> tuple[FineTuningSettings, list[VideoFile]]:
    """Write and return the settings of a new fine-tuning run; see `prepare_pretraining`.

    Args:
        data: A list or CSV with labels, or a folder that holds a folder for each class.
        start: Preset to start from; None starts from random weights of `variant`.
        head: "new", or "mapped" for the start's head with its rows matched by the names of the classes.
    """
    of_recipe, of_model = fine_tuning_changes(list(changes))
    chosen, data = _recipe(run, data, recipe, fine_tuning.RECIPES, of_recipe)
    _check_start(start, variant)
    files = list_labelled(data)
    labels = classes_of(files)
    warn_of_one_class(labels)
    if start:
        import_keras()
        from vmae_keras.presets import preset_config, preset_head

        config = preset_config(start, **of_model)
        if head == "mapped":
            old = preset_head(start)
            match_classes(old.labels or (), labels)  # raises before anything is written
            chosen = fine_tuning.for_mapped_head(chosen, of_recipe, old.pooling)
    else:
        config = VideoMAEConfig.variant(variant or "demo", **of_model)
    config = config.replace(drop_path=chosen.drop_path)
    # Raises before anything is written.
    fine_tuning_clips(config, len(labels), **chosen.clip_options())
    videos = digest(files, FineTuningSettings.labelled)
    settings = FineTuningSettings(
        data, videos, start and _absolute(start), labels, config, chosen, seed, backend, head=head
    )
    run.save(settings)
    return settings, files


def prepare_distillation(
    run: Run,
    data: str | None,
    *,
    teacher: str | None = None,
    start: str | None = None,
    variant: str | None = None,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    seed: int = 0,
    backend: str,
) -> tuple[DistillationSettings, list[VideoFile]]:
    """Write and return the settings of a new distillation run; see `prepare_pretraining`.

    Args:
        data: A folder of videos, a glob, a list or a CSV. Labels are not used.
        teacher: Preset that the student learns from.
        start: Preset that the student starts from; None starts from random weights of `variant`.
    """
    of_recipe, of_model = fine_tuning_changes(list(changes), DistillationRecipe)
    chosen, data = _recipe(run, data, recipe, distillation.RECIPES, of_recipe)
    if teacher is None:
        raise ValueError("--teacher is missing: a run, a folder, a file or hf://owner/name.")
    _check_start(start, variant)
    files = list_videos(data)
    videos = digest(files, DistillationSettings.labelled)
    import_keras()
    from vmae_keras.presets import preset_config, preset_head

    if chosen.match == "classes":
        classes, labels, _ = preset_head(teacher)
    else:
        classes, labels = preset_config(teacher).dim, None
    if start:
        config = preset_config(start, **of_model)
    else:
        config = VideoMAEConfig.variant(variant or "demo", **of_model)
    config = config.replace(drop_path=chosen.drop_path)
    # Raises before anything is written.
    fine_tuning_clips(config, 1, **chosen.clip_options())
    settings = DistillationSettings(
        data,
        videos,
        _absolute(teacher),
        start and _absolute(start),
        classes,
        labels,
        config,
        chosen,
        seed,
        backend,
    )
    run.save(settings)
    return settings, files


def _check_start(start: str | None, variant: str | None) -> None:
    if start and variant:
        raise ValueError(
            "--start says what the model is. Received: --variant too. Leave one of them out."
        )


def _absolute(preset: str) -> str:
    """Make the path of a local preset absolute, so that the run can resume from any folder."""
    return str(Path(preset).absolute()) if Path(preset).exists() else preset


def _recipe(
    run: Run, data: str | None, name: str | None, recipes: Recipes[Recipe], changes: dict[str, Any]
) -> tuple[Recipe, str]:
    """Return the recipe, and the absolute path of the data."""
    if data is None:
        raise ValueError("DATA is missing: a folder of videos, a glob, a list or a CSV.")
    chosen = recipes.choose(name or "demo", changes)
    if run.has_checkpoint():
        raise RunError(
            f"{run.folder} already holds a run. Continue it with --resume, or choose another --out."
        )
    return chosen, str(Path(data).absolute())
