"""Training plan: stages in a TOML file, each starting from an earlier one, and validation of the plan."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vmae_keras.config import VideoMAEConfig
from vmae_keras.data.class_names import named_aliases, normalise_name
from vmae_keras.data.files import VideoFile, list_videos
from vmae_keras.data.fine_tuning import fine_tuning_clips
from vmae_keras.data.label_merging import Merged, merge_labelled
from vmae_keras.data.path_text import as_path
from vmae_keras.data.random_streams import check_seed
from vmae_keras.data.views import CLIPS
from vmae_keras.recipes import fine_tuning, pretraining
from vmae_keras.recipes.overrides import fine_tuning_changes, pretraining_changes
from vmae_keras.recipes.values import check_key, read_toml, typed
from vmae_keras.runs import HEADS
from vmae_keras.runs.settings import PretrainingSettings
from vmae_keras.weights.classes import match_classes

_EVERY = {"name": str, "kind": str, "data": str | list, "set": dict}
_TRAINING = {"variant": str | None, "recipe": str | None}
# Keys of a stage in the file, by the command that runs it.
KEYS = {
    "pretrain": _EVERY | _TRAINING,
    "finetune": _EVERY | _TRAINING | {"start": str | None, "head": str},
    "evaluate": _EVERY | {"start": str | None},
}
_PLAN = {"seed": int, "aliases": dict | str, "stage": list}
_VIEWS = {"test_clips": int, "test_crops": int}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a plan, as written in its file.

    Args:
        name: Name of the stage and of its folder.
        command: Command that runs the stage, one of `KEYS`; the key `kind` in the file.
        data: Data sets. Labelled ones are merged by the names of their classes.
        start: Stage or preset whose weights the stage starts from or evaluates.
        head: "new" or "mapped"; see `vmae_keras.training.new_run.prepare_fine_tuning`.
        variant, recipe: Names. A recipe may also be the path of a page.
        changes: "key=value" strings.
    """

    name: str
    command: str
    data: tuple[str, ...]
    start: str | None = None
    head: str = "new"
    variant: str | None = None
    recipe: str | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Plan read from a file. Paths in it are relative to the file's folder.

    Args:
        aliases: Other names of classes, or the name of a set of aliases in the package.
    """

    path: Path
    seed: int
    aliases: dict[str, str] | str
    stages: tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True)
class CheckedStage:
    """Validated stage, with all that is known before it begins.

    Args:
        files: Videos of the stage, with labels spelled as in the model.
        labels: Names of the model's classes; None in pretraining.
        config: Configuration of the model.
        recipe: Recipe of a stage that trains.
        views: Numbers of clips and crops in an evaluation, if set in the plan.
        merged: Result of merging the classes of labelled data sets.
    """

    stage: Stage
    files: list[VideoFile]
    config: VideoMAEConfig
    labels: tuple[str, ...] | None = None
    recipe: Any = None
    views: dict[str, int] | None = None
    merged: Merged | None = None


def read_plan(path: str | Path) -> Plan:
    """Read a plan from a TOML file with `seed`, `aliases` of classes, and `[[stage]]` tables in order.

    Raises:
        OSError, ValueError: The file cannot be read, has unknown keys, or stages that do not fit together.
    """
    path = Path(path).absolute()
    with _prefix_errors(str(path)):
        content = read_toml(path)
        for key, value in content.items():
            check_key(key, _PLAN, "key of a plan")
            typed(key, value, _PLAN[key])
        check_seed(seed := content.get("seed", 0))
        if not (tables := content.get("stage")):
            raise ValueError("It has no stage. Begin one with the line [[stage]].")
        aliases = content.get("aliases", {})
        if isinstance(aliases, str):
            named_aliases(aliases)
        else:
            for old, new in aliases.items():
                typed(f"aliases.{old}", new, str)
    stages: list[Stage] = []
    for number, table in enumerate(tables, 1):
        with _prefix_errors(f"{path}, stage {number}"):
            name = typed("stage", table, dict).get("name", number)
        with _prefix_errors(f"{path}, stage {name!r}"):
            stages.append(_stage(table, stages, path.parent))
    return Plan(path, seed, aliases, tuple(stages))


def _stage(table: dict[str, Any], before: list[Stage], folder: Path) -> Stage:
    check_key(str(table.get("kind", "")), KEYS, "kind of stage")
    types = KEYS[table["kind"]]
    for key in table:
        check_key(key, types, f"key of a stage that is to {table['kind']}")
    table = {key: typed(key, value, types[key]) for key, value in table.items()}
    name, data = table.get("name", ""), table.get("data", [])
    data = [data] if isinstance(data, str) else data
    taken = {stage.name.casefold() for stage in before}
    if not re.fullmatch(r"\w[\w.-]*", name) or name.casefold() in taken:
        raise ValueError(
            "`name` must be a folder's name (letters, digits, dots, hyphens) that no stage before has. "
            f"Received: {name!r}."
        )
    if not data or not all(isinstance(each, str) for each in data):
        raise ValueError(f"`data` must be a data set or a list of them. Received: {data!r}.")
    if table.get("head", "new") not in HEADS:
        raise ValueError(f"`head` must be 'new' or 'mapped'. Received: {table['head']!r}.")
    page = table.get("recipe")
    stage = Stage(
        name=name,
        command=table["kind"],
        data=tuple(str(folder / as_path(each)) for each in data),
        start=table.get("start") and as_path(table["start"]),
        head=table.get("head", "new"),
        variant=table.get("variant"),
        recipe=str(folder / as_path(page)) if page and page.endswith(".toml") else page,
        changes=tuple(f"{key}={value}" for key, value in table.get("set", {}).items()),
    )
    return stage if stage.command == "pretrain" else _started(stage, before, folder)


def _started(stage: Stage, before: list[Stage], folder: Path) -> Stage:
    """Return the stage with its start, by default the last earlier stage that trains."""
    trained = {each.name: each.command for each in before if each.command != "evaluate"}
    start = stage.start or next(reversed(trained), None)
    if stage.command == "evaluate":
        able = [name for name, command in trained.items() if command == "finetune"]
        if start not in able:
            raise ValueError(
                f"`start` must be a stage before it that fine-tunes, one of: {', '.join(able) or 'none'}. "
                f"Received: {start!r}."
            )
    elif start is not None and start not in trained:
        if "://" not in start and not (folder / start).exists():
            check_key(start, trained, "stage before it, and no preset,")
        start = start if "://" in start else str(folder / start)
    if start and stage.variant:
        raise ValueError(
            f"It starts from {start!r}, which says what the model is. Received: "
            f"variant={stage.variant!r}, too. Leave it out."
        )
    if stage.head == "mapped" and not start:
        raise ValueError("A head is mapped from a start, and there is none before it.")
    return replace(stage, start=start)


def check_plan(plan: Plan) -> list[CheckedStage]:
    """Validate videos, labels, recipes, sizes and classes of all stages before the first one begins.

    Raises:
        ValueError: Something does not fit. The message names the stage.
    """
    checked: dict[str, CheckedStage] = {}
    for stage in plan.stages:
        with _prefix_errors(f"{plan.path}, stage {stage.name!r}"):
            checked[stage.name] = _check[stage.command](plan, stage, checked)
    of_labels = [each.merged for each in checked.values() if each.merged]
    # Aliases of the package are for many data sets, so not all need to be used.
    for old in () if isinstance(plan.aliases, str) else plan.aliases:
        if all(old in merged.unused for merged in of_labels):
            labels = [label for m in of_labels for each in m.spellings.values() for label in each]
            with _prefix_errors(f"{plan.path}, aliases"):
                check_key(old, labels, "class of its data")
    return list(checked.values())


def _check_pretraining(plan: Plan, stage: Stage, checked: dict[str, CheckedStage]) -> CheckedStage:
    of_recipe, of_model = pretraining_changes(list(stage.changes))
    chosen = pretraining.RECIPES.choose(stage.recipe or "demo", of_recipe)
    config = VideoMAEConfig.variant(stage.variant or "demo", **of_model)
    listed = [str(Path(file.path).absolute()) for each in stage.data for file in list_videos(each)]
    files = [VideoFile(path) for path in dict.fromkeys(listed)]
    PretrainingSettings("", "", config, chosen, plan.seed, "")  # raises if the masks do not fit
    return CheckedStage(stage=stage, files=files, config=config, recipe=chosen)


def _check_fine_tuning(plan: Plan, stage: Stage, checked: dict[str, CheckedStage]) -> CheckedStage:
    of_recipe, of_model = fine_tuning_changes(list(stage.changes))
    chosen = fine_tuning.RECIPES.choose(stage.recipe or "demo", of_recipe)
    config, known, pooling = _of_start(stage, checked)
    config = config.replace(**of_model, drop_path=chosen.drop_path)
    merged = merge_labelled(stage.data, plan.aliases)
    fine_tuning_clips(config, len(merged.classes), **chosen.clip_options())
    if stage.head == "mapped":
        match_classes(known or (), merged.classes)
        chosen = fine_tuning.for_mapped_head(chosen, of_recipe, pooling or "mean")
    return CheckedStage(
        stage=stage,
        files=merged.files,
        config=config,
        labels=merged.classes,
        recipe=chosen,
        merged=merged,
    )


def _of_start(
    stage: Stage, checked: dict[str, CheckedStage]
) -> tuple[VideoMAEConfig, tuple[str, ...] | None, str | None]:
    """Return (configuration, labels, pooling) of the model that a stage starts from."""
    if stage.start is None:
        return VideoMAEConfig.variant(stage.variant or "demo"), None, None
    if start := checked.get(stage.start):
        return start.config, start.labels, getattr(start.recipe, "pooling", None)
    from vmae_keras.presets import preset_config, preset_head

    head = preset_head(stage.start) if stage.head == "mapped" else None
    return preset_config(stage.start), head and head.labels, head and head.pooling


def _check_evaluation(plan: Plan, stage: Stage, checked: dict[str, CheckedStage]) -> CheckedStage:
    views = {}
    for text in stage.changes:
        key, _, value = text.partition("=")
        check_key(key, _VIEWS, "setting of an evaluation")
        if not value.isdecimal() or not int(value):
            raise ValueError(f"`{key}` must be a whole number, at least 1. Received: {text}.")
        views[key.removeprefix("test_")] = int(value)
    model = checked[stage.start or ""]
    if model.recipe.sampling == "uniform" and views.get("clips", 1) > CLIPS["uniform"]:
        raise ValueError(
            f"{stage.start!r} samples uniformly, which has at most {CLIPS['uniform']} clips of a video. "
            f"Received: test_clips={views['clips']}. Use 1 or 2."
        )
    merged = merge_labelled(stage.data, plan.aliases)
    return CheckedStage(
        stage=stage,
        files=_spelled(merged, model.labels or ()),
        config=model.config,
        labels=model.labels,
        views=views,
        merged=merged,
    )


def _spelled(merged: Merged, labels: Sequence[str]) -> list[VideoFile]:
    """Return the merged files with their labels spelled as in the model."""
    known = {normalise_name(label): label for label in labels}
    unknown = [each for each in merged.classes if normalise_name(each) not in known]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of its classes are not in the model. Received: {', '.join(unknown[:5])}. "
            f"It knows {', '.join(list(labels)[:5])}{', ...' if len(labels) > 5 else ''}. Give aliases, or "
            "other data."
        )
    return [VideoFile(file.path, known[normalise_name(file.label or "")]) for file in merged.files]


_check = {
    "pretrain": _check_pretraining,
    "finetune": _check_fine_tuning,
    "evaluate": _check_evaluation,
}


@contextlib.contextmanager
def _prefix_errors(where: str) -> Iterator[None]:
    """Prefix errors with their location in the plan."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}: {error}") from error
