"""Conversion of weights from one format to another."""

from pathlib import Path
from typing import Any

from vmae_keras.conversion import TARGETS
from vmae_keras.presets import load, stored_model
from vmae_keras.weights.source import locate
from vmae_keras.weights.tensor_files import WeightsError
from vmae_keras.weights.write import write_hugging_face, write_official


def convert(source: str, out: Path, to: str, **changes: Any) -> list[str]:
    """Read any model that `from_preset` reads, and write it in another format.

    Return notes on the settings that the new file cannot store.

    Args:
        source: See `Preset.from_preset`.
        out: Folder for "keras" and "hf", or `.pth` file for "official".
        to: One of `TARGETS`.
        changes: See `Preset.from_preset`.

    Raises:
        WeightsError: The source cannot be read, the format cannot store this model, or `out` is the source.
        ValueError: `to` is not one of `TARGETS`.
    """
    if to not in TARGETS:
        raise ValueError(f"`to` must be one of {', '.join(TARGETS)}. Received: to={to!r}.")
    path = locate(source).resolve()
    if out.resolve() in (path, path.parent):
        raise WeightsError(f"{out} is where the model comes from. Give another place.")
    model = load(path, **changes)
    if to == "keras":
        model.save_to_preset(out)
        return []
    return (write_official if to == "official" else write_hugging_face)(stored_model(model), out)
