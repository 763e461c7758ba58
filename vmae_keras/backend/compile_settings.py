"""Compilation of a model as saved in a `.keras` file, with the state of its optimizer."""

import warnings
from typing import Any

import keras

from vmae_keras.weights.stored_model import Stored
from vmae_keras.weights.tensor_files import Tensor, WeightsError

# Allow-list of classes that a file may name. The module comes from here, not from the file. None of the
# classes takes code, or allocates much more memory than the file's size, as metrics with tables do.
_MODULES = {
    **dict.fromkeys(
        (
            "Adadelta",
            "Adafactor",
            "Adagrad",
            "Adam",
            "Adamax",
            "AdamW",
            "Ftrl",
            "Lamb",
            "Lion",
            "LossScaleOptimizer",
            "Nadam",
            "RMSprop",
            "SGD",
        ),
        "keras.optimizers",
    ),
    **dict.fromkeys(
        (
            "CosineDecay",
            "CosineDecayRestarts",
            "ExponentialDecay",
            "InverseTimeDecay",
            "PiecewiseConstantDecay",
            "PolynomialDecay",
        ),
        "keras.optimizers.schedules",
    ),
    **dict.fromkeys(
        (
            "BinaryCrossentropy",
            "CategoricalCrossentropy",
            "CosineSimilarity",
            "Huber",
            "KLDivergence",
            "MeanAbsoluteError",
            "MeanSquaredError",
            "SparseCategoricalCrossentropy",
        ),
        "keras.losses",
    ),
    **dict.fromkeys(
        (
            "Accuracy",
            "BinaryAccuracy",
            "CategoricalAccuracy",
            "SparseCategoricalAccuracy",
            "SparseTopKCategoricalAccuracy",
            "TopKCategoricalAccuracy",
        ),
        "keras.metrics",
    ),
    "vmae_keras>AdamW": "vmae_keras.training.optimizer",
    "vmae_keras>WarmupCosine": "vmae_keras.training.optimizer",
}


def compile_as_saved(model: keras.Model, stored: Stored) -> None:
    """Compile a model as saved in a `.keras` file, and restore the optimizer's state.

    If the saved model was compiled with anything but optimizers, losses and accuracies of Keras or this
    library, warn and leave the model uncompiled.

    Raises:
        WeightsError: The optimizer's settings are invalid, or do not fit its state.
    """
    saved = stored.saved
    if not saved or not saved.compiled:
        return
    unknown: set[str] = set()
    try:
        compiled = _named_by_us(saved.compiled, unknown)
    except RecursionError:
        unknown.add("lists within lists")
    if unknown:
        warnings.warn(
            f"{stored.source} was compiled with {', '.join(sorted(unknown))}, which is not created from a "
            "file, so the model is not compiled. If you trust the file, read it with "
            "keras.saving.load_model.",
            stacklevel=3,
        )
        return
    try:
        model.compile_from_config(compiled)
        _restore(model.optimizer, saved.optimizer)
    except Exception as error:  # Keras's classes raise many kinds of errors for invalid arguments
        raise WeightsError(
            f"{stored.source}: its optimizer cannot be restored. {type(error).__name__}: {error}"
        ) from error


def _named_by_us(value: Any, unknown: set[str]) -> Any:
    """Return a configuration with modules from `_MODULES`; add names that are not there to `unknown`."""
    if isinstance(value, list):
        return [_named_by_us(each, unknown) for each in value]
    if not isinstance(value, dict):
        return value
    inner = {key: _named_by_us(each, unknown) for key, each in value.items()}
    if inner.keys().isdisjoint(("class_name", "module", "registered_name")):
        return inner
    name, registered = str(inner.get("class_name")), str(inner.get("registered_name"))
    ours = registered if registered == f"vmae_keras>{name}" else name
    if ours not in _MODULES or not isinstance(inner.get("config"), dict):
        unknown.add(name)
        return None
    return {
        "module": _MODULES[ours],
        "class_name": name,
        "config": inner["config"],
        "registered_name": ours if ours != name else None,
    }


def _restore(optimizer: keras.optimizers.Optimizer, state: tuple[Tensor, ...]) -> None:
    """Restore an optimizer's variables. One saved before training has only the first of them."""
    shapes = [tuple(variable.shape) for variable in optimizer.variables]
    if shapes[: len(state)] != [tensor.shape for tensor in state]:
        raise ValueError(f"It has {len(shapes)} variables, the file {len(state)} of other shapes.")
    for variable, tensor in zip(optimizer.variables, state, strict=False):
        variable.assign(tensor.read())
