"""Reader for the model behind a handle: a folder, a file or `hf://owner/name`."""

import os
from pathlib import Path
from typing import Any

from vmae_keras.weights import hub
from vmae_keras.weights.json_files import read_settings
from vmae_keras.weights.keras_files import read_keras
from vmae_keras.weights.recognise import recognise_model
from vmae_keras.weights.stored_model import Stored
from vmae_keras.weights.tensor_files import WeightsError, read_tensors

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def locate(handle: str | os.PathLike) -> Path:
    """Return the local folder or file of a handle, and download it if necessary.

    Raises:
        WeightsError: The path does not exist.
        HubError: See `hub.fetch`.
    """
    if hub.is_hub(str(handle)):
        return hub.fetch(str(handle))
    path = Path(handle).expanduser()
    if not path.exists():
        raise WeightsError(
            f"{path} does not exist. Give a folder, a file, or hf://owner/name of the hub."
        )
    return path


def read_weights(path: Path, overrides: dict[str, Any]) -> Stored:
    """Return the model in a folder or file written by Keras or by another implementation.

    Args:
        path: Local folder or file.
        overrides: Fields of the configuration that the user sets.

    Raises:
        WeightsError: There is no model, or it cannot be used.
    """
    if (saved := read_keras(path)) is not None:
        return saved
    file = _weights_file(path) if path.is_dir() else path
    settings, preprocessing = (
        read_settings(file.parent / name) for name in ("config.json", "preprocessor_config.json")
    )
    return recognise_model(read_tensors(file), settings, preprocessing, overrides)


def _weights_file(folder: Path) -> Path:
    known = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if known:
        return known[0]
    others = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if len(others) == 1:
        return others[0]
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    raise WeightsError(
        f"{folder} holds no model, or several: no {', '.join(_WEIGHTS)}, no run.json and not one "
        f"single file of weights. It holds {found}. Give the file itself."
    )
