"""Reader for JSON objects in untrusted files."""

import json
from pathlib import Path
from typing import Any

from vmae_keras.weights.tensor_files import WeightsError

LARGEST_SETTINGS = 4 * 2**20  # bytes; class names take up most of it


def read_settings(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or {} if the file does not exist.

    Raises:
        WeightsError: The file is too large, damaged, or holds something else.
    """
    if not path.is_file():
        return {}
    with open(path, "rb") as file:
        return parse_settings(file.read(LARGEST_SETTINGS + 1), path)


def parse_settings(content: bytes, source: Any) -> dict[str, Any]:
    """Return the object in a JSON text. `source` names the text in error messages.

    Raises:
        WeightsError: See `read_settings`.
    """
    if len(content) > LARGEST_SETTINGS:
        raise WeightsError(
            f"{source} is too large for settings. At most {LARGEST_SETTINGS} bytes are read."
        )
    try:
        values = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{source} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{source} must hold a JSON object. Received: {type(values).__name__}.")
    return values
