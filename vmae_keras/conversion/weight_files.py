"""Conversion of weights from one format to another."""

import os
from pathlib import Path
from typing import Any

from vmae_keras.backend import without_remarks
from vmae_keras.conversion import TARGETS
from vmae_keras.presets import load, stored_model
from vmae_keras.weights.source import locate
from vmae_keras.weights.tensor_files import WeightsError
from vmae_keras.weights.write import write_hugging_face, write_official


def is_keras_file(out: Path) -> bool:
    """Return whether a result of the format "keras" is one file, by its suffix."""
    return out.suffix == ".keras"


def convert(
    source: str | os.PathLike, out: str | os.PathLike, to: str = "keras", **changes: Any
) -> list[str]:
    """Read any model that `from_preset` reads, and write it in another format.

    Return notes on the settings that the new file cannot store.

    Args:
        source: A folder, a file or `hf://owner/name`; see `Preset.from_preset`.
        out: A folder for "keras" and "hf", a `.keras` file for "keras", or a `.pth` file for "official".
        to: "keras" for this library's format, "official" for that of V1 and V2, or "hf" for transformers.
        changes: Fields of the `VideoMAEConfig` that weight shapes do not reveal, such as `heads=6`; see
            `Preset.from_preset`.

    Raises:
        WeightsError: The source cannot be read, the format cannot store this model, or `out` is the source.
        HubError: The hub cannot be reached, or has no such model.
        ValueError: `to` is unknown.

    Example:
        from vmae_keras import convert

        convert("weights.pth", "out.keras")
        convert("weights.pth", "out", to="hf")
    """
    if to not in TARGETS:
        raise ValueError(f"`to` must be one of {', '.join(TARGETS)}. Received: to={to!r}.")
    path, out = locate(source).resolve(), Path(out)
    if out.resolve() in (path, path.parent):
        raise WeightsError(f"{out} is where the model comes from. Give another place.")
    model = load(path, **changes)
    if to == "keras":
        if is_keras_file(out):
            with without_remarks():
                model.save(out)
        else:
            model.save_to_preset(out)
        return []
    return (write_official if to == "official" else write_hugging_face)(stored_model(model), out)
