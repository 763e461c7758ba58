"""Whether results in a folder were made with the same settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmae_keras.runs.run import RunError


def different_settings(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ from those in a JSON file."""
    try:
        before = json.loads(path.read_text("utf-8"))
        return [name for name in settings if before.get(name, ...) != settings[name]]
    except (OSError, ValueError, AttributeError):
        return list(settings)


def refuse_different(place: Path, holds: str, different: list[str]) -> None:
    """Raise RunError if results at `place` were made with other settings.

    Args:
        holds: What lies there, for the message.
        different: Names of what differs.
    """
    if different:
        raise RunError(
            f"{place} holds {holds}. Received: another {', '.join(different)}. "
            "Give another folder, or delete this one."
        )
