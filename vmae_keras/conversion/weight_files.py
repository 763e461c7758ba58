"""From one format of weights to another."""

from pathlib import Path
from typing import Any

from vmae_keras.presets import load, stored_model
from vmae_keras.weights.source import locate
from vmae_keras.weights.tensor_files import WeightsError
from vmae_keras.weights.write import write_hugging_face, write_official

TARGETS = ("keras", "official", "hf")


def convert(source: str, out: Path, to: str, **changes: Any) -> list[str]:
    """Reads any model that `from_preset` reads, and writes it. Returns what the new file cannot say.

    Args:
        source: see `Preset.from_preset`.
        out: a folder for "keras" and "hf", a `.pth` file for "official".
        to: one of `TARGETS`.
        changes: see `Preset.from_preset`.

    Raises:
        WeightsError: the source cannot be read, the target cannot be this model, or is the source.
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
