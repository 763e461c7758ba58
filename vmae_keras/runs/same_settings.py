"""Check that existing results in a folder were made with the same settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmae_keras.runs.run import RunError


def different_settings(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that differ from those in a JSON file."""
    try:
        before = json.loads(path.read_text("utf-8"))
        return [name for name in settings if before.get(name, ...) != settings[name]]
    except (OSError, ValueError, AttributeError):
        return list(settings)


def refuse_different(place: Path, holds: str, different: list[str]) -> None:
    """Raise RunError if results at `place` were made with other settings.

    Args:
        holds: Description of the results, for the error message.
        different: Names of the settings that differ.
    """
    if different:
        raise RunError(
            f"{place} holds {holds}. Received: another {', '.join(different)}. "
            "Give another folder, or delete this one."
        )
