"""Reading of a model from a run folder or any other path."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vmae_keras.config import VideoMAEConfig
from vmae_keras.runs.checkpoint_files import step_of
from vmae_keras.runs.run import Run, RunError
from vmae_keras.runs.settings import find_settings_class
from vmae_keras.variants import Kind
from vmae_keras.weights import names
from vmae_keras.weights.json_files import read_settings
from vmae_keras.weights.source import read_weights
from vmae_keras.weights.stored_model import Stored
from vmae_keras.weights.tensor_files import Tensor, WeightsError, listed, mismatches, read_tensors


def read_stored(path: Path, overrides: dict[str, Any]) -> Stored:
    """Return the model in a folder or file written by this library, Keras or another implementation.

    Args:
        path: Folder or file. The model of a run folder is its best checkpoint if there is one, else its
            newest.
        overrides: Fields of the configuration set by the user. They are ignored for a run folder.

    Raises:
        WeightsError: There is no model, or it cannot be used.
    """
    run = Run(path)
    if not run.exists():
        return read_weights(path, overrides)
    try:
        return _read_run(run)
    except RunError as error:
        raise WeightsError(str(error)) from error


def _read_run(run: Run) -> Stored:
    """Return the model in a run's checkpoint, which also holds optimizer and seeds."""
    checkpoint = run.weights_file()
    settings = run.settings_file
    values = read_settings(settings)
    try:
        classifier = find_settings_class(values).is_classifier
        config = VideoMAEConfig(**values["config"])
        named = classifier and values["labels"] is not None
        labels = tuple(map(str, values["labels"])) if named else None
        accumulate = int(values.get("recipe", {}).get("accumulate", 1))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{settings} describes no VideoMAE: {error!r}") from error
    file = read_tensors(checkpoint)
    averaged = step_of(checkpoint) >= accumulate
    model = "video_classifier/" if classifier else "video_mae/"
    tensors = _model_of_run(file.tensors, model, averaged)
    # Infer the pooling from the weights: earlier versions stored a wrong one for mapped heads.
    pooling = ("mean" if "fc_norm/gamma" in tensors else "first") if classifier else None
    kind: Kind = "classifier" if classifier else "pretraining"
    classes = None
    if classifier:
        head = tensors.get("head/bias")
        classes = head.shape[0] if head and head.shape else 0
    if labels is not None and len(labels) != classes:
        raise WeightsError(f"{settings} names {len(labels)} classes, {file.path} has {classes}.")
    expected = names.shapes(config, kind, pooling, classes)
    faults = mismatches(expected, tensors)
    faults += [f"unexpected: {name}" for name in tensors if name not in expected]
    if faults:
        raise WeightsError(
            f"{settings} does not fit the weights in {file.path}.{listed(faults, 20)}"
        )
    return Stored(config, kind, pooling, classes, labels, tensors, "keras", str(file.path))


def _model_of_run(tensors: dict[str, Tensor], model: str, averaged: bool) -> dict[str, Tensor]:
    """Return the final weights in a checkpoint: averages if there are any, with LoRA merged.

    Args:
        averaged: Whether the weights were updated at least once. Before that, averages are zeros.
    """
    used = {}
    for name in tensors:
        if name.startswith(model):
            average = f"optimizer/adamw/{name.replace('/', '_')}_average"
            taken = average if averaged and average in tensors else name
            used[name.removeprefix(model)] = tensors[taken]
    for name in [name for name in used if name.endswith("/lora_kernel_a")]:
        path = name.removesuffix("lora_kernel_a")
        kernel, a, b = (
            used.get(path + part) for part in ("kernel", "lora_kernel_a", "lora_kernel_b")
        )
        if (
            kernel
            and a
            and b
            and kernel.shape == a.shape[:1] + b.shape[1:]
            and a.shape[1:] == b.shape[:1]
        ):
            used[path + "kernel"] = Tensor(kernel.shape, partial(_with_lora, kernel, a, b))
            del used[path + "lora_kernel_a"], used[path + "lora_kernel_b"]
    return used


def _with_lora(kernel: Tensor, a: Tensor, b: Tensor) -> np.ndarray:
    return kernel.read() + a.read() @ b.read()
