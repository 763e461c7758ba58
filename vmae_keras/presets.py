"""`from_preset` and `save_to_preset`, as in KerasHub, for weights of this and other libraries."""

import dataclasses
import json
import os
import warnings
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import keras
import numpy as np

import vmae_keras
from vmae_keras import backend
from vmae_keras.backend import without_remarks
from vmae_keras.backend.compile_settings import compile_as_saved
from vmae_keras.config import VideoMAEConfig
from vmae_keras.positions import resize
from vmae_keras.runs.model_files import read_stored
from vmae_keras.variants import CLASSES
from vmae_keras.weights import names
from vmae_keras.weights.keras_files import SETTINGS, WEIGHTS
from vmae_keras.weights.source import locate
from vmae_keras.weights.stored_model import Stored
from vmae_keras.weights.tensor_files import Tensor, WeightsError, listed, mismatches

_FIELDS = {field.name for field in dataclasses.fields(VideoMAEConfig)}


class Preset(keras.Model):
    """Base class of models that can be loaded from and saved to presets."""

    built: bool
    optimizer: Any

    @classmethod
    def from_preset(cls, preset: str | Path, load_weights: bool = True, **changes: Any) -> Self:
        """Return a model with published or saved weights.

            VideoMAE.from_preset("hf://MCG-NJU/videomae-base")
            VideoClassifier.from_preset("hf://MCG-NJU/videomae-base", classes=10, drop_path=0.1)
            VideoEncoder.from_preset("vit_b_k710_dl_from_giant.pth", frames=32)
            VideoMAE.from_preset("hf://facebook/vit-mae-base")  # an image model: one frame

        Args:
            preset: A folder (of `save_to_preset`, of a run of `vmae`, of Hugging Face's VideoMAE, ViT or
                ViTMAE), a file (an official `.pth`, safetensors, `.keras`), or
                `hf://owner/name[@revision][/file]`. The format is detected from the content, not the name.
            load_weights: Load the weights; False returns the same model with fresh weights.
            changes: Fields of the `VideoMAEConfig`, or arguments of the class. With other `frames`,
                `height` or `width`, tokens keep their positions (clauses POS-2 to POS-5).
                `position_grid=None` means that the weights were trained at that size, on its own grid.
                `heads` sets the number of heads, which no weight's shape reveals. A classifier gets a new
                head if `classes` or `labels` differ from the file's, and always with `new_head=True`.

        Raises:
            WeightsError: The file is damaged, malicious or not a VideoMAE; the model is of another kind; or
                weights are missing, unexpected or of the wrong shape (all are listed).
            HubError: The hub cannot be reached, or has no such model.
        """
        path, overrides, arguments = _opened(preset, changes)
        stored = read_stored(path, overrides)
        saved = stored.saved if stored.kind == cls.kind else None
        as_saved = saved is not None and not changes and load_weights
        if saved:
            arguments = {**saved.arguments, **arguments}
            if as_saved and saved.name:
                arguments["name"] = saved.name
        model = _build(cls, stored, load_weights, overrides, arguments)
        if as_saved:
            compile_as_saved(model, stored)
        return model

    def save_to_preset(self, preset: str | Path) -> None:
        """Write a folder for `from_preset`: config.json, metadata.json, model.weights.h5.

        config.json is written last, so that a folder that was interrupted cannot pass for a complete one.
        """
        folder = Path(preset)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS).unlink(missing_ok=True)
        partial_file = folder / f"partial.{WEIGHTS}"
        optimizer, self.optimizer = getattr(self, "optimizer", None), None  # not part of a preset
        try:
            self.save_weights(partial_file)
        finally:
            self.optimizer = optimizer
        os.replace(partial_file, folder / WEIGHTS)
        metadata = {
            "keras_version": keras.__version__,
            "vmae_keras_version": vmae_keras.__version__,
            "parameter_count": self.count_params(),
            "date_saved": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        settings = {
            "module": type(self).__module__,
            "class_name": type(self).__name__,
            "config": _config(self),
            "registered_name": keras.saving.get_registered_name(type(self)),
        }
        for name, values in (("metadata.json", metadata), (SETTINGS, settings)):
            (folder / name).write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def load(preset: str | Path, **changes: Any) -> keras.Model:
    """Return the model in a preset: a `VideoMAE`, a `VideoClassifier` or a `VideoEncoder`.

    Arguments and errors are those of `Preset.from_preset`.

    Example:
        from vmae_keras import load

        model = load("pretrained")  # or a run, a .pth or .keras file, hf://owner/name
    """
    path, overrides, _ = _opened(preset, changes)
    kind = read_stored(path, overrides).kind
    return getattr(vmae_keras, CLASSES[kind]).from_preset(path, **changes)


def preset_config(preset: str | Path, **changes: Any) -> VideoMAEConfig:
    """Return the configuration that `from_preset` would use, without building the model."""
    path, overrides, _ = _opened(preset, changes)
    return _with_places(read_stored(path, overrides).config, overrides)


class PresetHead(NamedTuple):
    """Head of a classifier: number of classes, their names if known, and pooling."""

    classes: int
    labels: tuple[str, ...] | None
    pooling: str


def preset_head(preset: str | Path) -> PresetHead:
    """Return the head of a preset's classifier, without building the model.

    Raises:
        WeightsError: The preset is not a classifier.
    """
    stored = read_stored(locate(preset), {})
    if not stored.classes:
        raise WeightsError(f"{preset} holds no classifier.")
    return PresetHead(stored.classes, stored.labels, stored.pooling or "mean")


def stored_model(model: keras.Model) -> Stored:
    """Return a model in memory as if it had been read from a file."""
    tensors = {
        path: Tensor(tuple(variable.shape), partial(_value, variable))
        for path, variable in by_path(model).items()
    }
    return Stored(
        model.config,
        model.kind,
        getattr(model, "pooling", None),
        getattr(model, "classes", None),
        getattr(model, "labels", None),
        tensors,
        "keras",
        model.name,
    )


def _opened(
    preset: str | Path, changes: dict[str, Any]
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    overrides = {name: value for name, value in changes.items() if name in _FIELDS}
    arguments = {name: value for name, value in changes.items() if name not in _FIELDS}
    return locate(preset), overrides, arguments


def _config(model: keras.Model) -> dict[str, Any]:
    with without_remarks():  # Keras imports TensorFlow here if it is installed
        return model.get_config()


def _value(variable: keras.Variable) -> np.ndarray:
    return np.asarray(backend.to_numpy(variable), "float32")


def by_path(model: keras.Model) -> dict[str, keras.Variable]:
    """Return the weights by path without the model's name, frozen ones included (WEIGHT-1, FT-4)."""
    return {v.path.removeprefix(f"{model.name}/"): v for v in model.weights}


def _build(
    cls: type[keras.Model],
    stored: Stored,
    load_weights: bool,
    overrides: dict[str, Any],
    arguments: dict[str, Any],
) -> keras.Model:
    for note in stored.notes:
        warnings.warn(f"{stored.source}: {note}.", stacklevel=3)
    config = _with_places(stored.config, overrides)
    config, arguments, new = cls.preset_arguments(stored, config, arguments)
    if not load_weights:
        return cls(config, **arguments)
    wanted = names.shapes(config, cls.kind, arguments.get("pooling"), arguments.get("classes"))
    wanted = {path: shape for path, shape in wanted.items() if path not in new}
    readers = {path: stored.tensors[path] for path in wanted.keys() & stored.tensors.keys()}
    if config.learned_positions and config.grid != stored.config.grid:
        name = "tubelet_embedding/positions"
        table = readers[name]
        readers[name] = Tensor(wanted[name], lambda: _resized(table, stored.config, config))
    if faults := mismatches(wanted, readers):
        raise WeightsError(
            f"{stored.source} holds {_described(stored)}; it does not fit this {cls.__name__}:"
            f"{listed(faults)}"
        )

    def read(layer: keras.layers.Layer) -> None:
        for variable in layer.weights:
            path = variable.path.partition("/")[2]
            if path in readers:
                variable.assign(readers.pop(path).read())

    model = cls(config, **arguments, fill=read)
    read(model)
    return model


def _resized(table: Tensor, old: VideoMAEConfig, new: VideoMAEConfig) -> np.ndarray:
    """Resize learned positions to another grid; the class token's row stays as it is."""
    rows = table.read()
    first = int(new.class_token)
    return np.concatenate([rows[:first], resize(rows[first:], old.grid, new.grid)])


def _with_places(config: VideoMAEConfig, overrides: dict[str, Any]) -> VideoMAEConfig:
    """Apply changes to a configuration; with another height or width, keep the fixed table's grid."""
    changed = config.replace(**overrides)
    if changed.learned_positions or changed.position_grid or "position_grid" in overrides:
        return changed
    if changed.grid[1:] == config.grid[1:]:
        return changed
    return changed.replace(position_grid=(changed.grid[0], *config.grid[1:]))


def _described(stored: Stored) -> str:
    count = names.count({path: tensor.shape for path, tensor in stored.tensors.items()})
    classes = f", {stored.classes} classes" if stored.classes else ""
    return f"a {CLASSES[stored.kind]} ({count / 1e6:.1f} M weights{classes})"
