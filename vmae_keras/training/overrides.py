"""The one way to change single values of a variant and a recipe: KEY=VALUE."""

import ast
import dataclasses
import difflib
import types
import typing
from typing import Any

from vmae_keras.config import VideoMAEConfig
from vmae_keras.training.fine_tuning_recipe import FineTuningRecipe
from vmae_keras.training.recipe import Recipe


def apply_overrides(
    config: VideoMAEConfig, recipe: Recipe, overrides: list[str]
) -> tuple[VideoMAEConfig, Recipe]:
    """Copies with the values of "key=value" texts; a key is a field of either.

    Values are Python literals (numbers, tuples, None, True); anything else is text.

    Raises:
        ValueError: unknown key, no "=", a value of the wrong type or out of range.
    """
    changes = _changes(overrides, VideoMAEConfig, Recipe)
    return config.replace(**changes[VideoMAEConfig]), dataclasses.replace(recipe, **changes[Recipe])


def config_changes(overrides: list[str]) -> dict[str, Any]:
    """Fields of a `VideoMAEConfig` out of "key=value" texts, for a model that is yet to be known.

    Raises:
        ValueError: as `apply_overrides`.
    """
    return _changes(overrides, VideoMAEConfig)[VideoMAEConfig]


def fine_tuning_changes(overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of a `FineTuningRecipe`, and of a `VideoMAEConfig`, out of "key=value" texts.

    What both have, as drop_path, is the recipe's.

    Raises:
        ValueError: as `apply_overrides`.
    """
    changes = _changes(overrides, FineTuningRecipe, VideoMAEConfig)
    return changes[FineTuningRecipe], changes[VideoMAEConfig]


def _changes(overrides, *owners):
    fields = {
        owner: {field.name: field.type for field in dataclasses.fields(owner)} for owner in owners
    }
    changes = {owner: {} for owner in owners}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"An override must be KEY=VALUE, as in epochs=20. Received: {text!r}.")
        owner = next((owner for owner, names in fields.items() if key in names), None)
        if owner is None:
            known = [name for names in fields.values() for name in names]
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
            raise ValueError(f"No setting is called {key!r}. {hint}")
        changes[owner][key] = _parse(key, value, fields[owner][key])
    return changes


def _parse(key, text, kind):
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    parts = typing.get_args(kind) if is_union else (kind,)
    allowed = tuple(typing.get_origin(part) or part for part in parts)
    if float in allowed and type(value) is int:
        value = float(value)
    if type(value) not in allowed:
        names = " or ".join(part.__name__.replace("NoneType", "None") for part in allowed)
        raise ValueError(f"`{key}` must be of type {names}. Received: {key}={text}.")
    return value
