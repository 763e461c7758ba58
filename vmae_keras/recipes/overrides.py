"""Parsing of KEY=VALUE overrides of a variant and a recipe."""

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

from vmae_keras.config import VideoMAEConfig
from vmae_keras.recipes.fine_tuning import FineTuningRecipe
from vmae_keras.recipes.pretraining import PretrainingRecipe
from vmae_keras.recipes.values import check_key, typed


def apply_overrides(
    config: VideoMAEConfig, recipe: PretrainingRecipe, overrides: list[str]
) -> tuple[VideoMAEConfig, PretrainingRecipe]:
    """Return copies with the values of "key=value" strings, whose keys are fields of either.

    Values are Python literals (numbers, tuples, None, True); anything else is a string.

    Raises:
        ValueError: A key is unknown, "=" is missing, or a value has the wrong type or is out of range.
    """
    of_recipe, of_model = pretraining_changes(overrides)
    return config.replace(**of_model), dataclasses.replace(recipe, **of_recipe)


def config_changes(overrides: list[str]) -> dict[str, Any]:
    """Return fields of a `VideoMAEConfig` from "key=value" strings, before the model is known.

    Raises:
        ValueError: See `apply_overrides`.
    """
    return _changes(overrides, VideoMAEConfig)[VideoMAEConfig]


def fine_tuning_changes(
    overrides: list[str], recipe: type[FineTuningRecipe] = FineTuningRecipe
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return fields of a fine-tuning recipe and of a `VideoMAEConfig` from "key=value" strings.

    Fields of both, such as drop_path, belong to the recipe.

    Args:
        overrides: "key=value" strings.
        recipe: Class of the recipe.

    Raises:
        ValueError: See `apply_overrides`.
    """
    changes = _changes(overrides, recipe, VideoMAEConfig)
    return changes[recipe], changes[VideoMAEConfig]


def pretraining_changes(overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return fields of a `PretrainingRecipe` and of a `VideoMAEConfig` from "key=value" strings.

    Raises:
        ValueError: See `apply_overrides`.
    """
    changes = _changes(overrides, VideoMAEConfig, PretrainingRecipe)
    return changes[PretrainingRecipe], changes[VideoMAEConfig]


def _changes(overrides: Sequence[str], *owners: type) -> dict[type, dict[str, Any]]:
    fields = {
        owner: {field.name: field.type for field in dataclasses.fields(owner)} for owner in owners
    }
    known = [name for names in fields.values() for name in names]
    changes: dict[type, dict[str, Any]] = {owner: {} for owner in owners}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"An override must be KEY=VALUE, as in epochs=20. Received: {text!r}.")
        check_key(key, known)
        owner = next(owner for owner, names in fields.items() if key in names)
        changes[owner][key] = typed(key, _literal(value), fields[owner][key])
    return changes


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
