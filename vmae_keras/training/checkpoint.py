"""Checkpoints: all variables of model and optimizer by path, in one safetensors file.

Keras's own `.weights.h5` lacks the states of random seeds, so a resumed run would draw different drop-path
decisions. Checkpoints written here can also be read on another backend.
"""

import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vmae_keras import backend
from vmae_keras.process.failures import FULL
from vmae_keras.runs.checkpoint_files import checkpoint_name, list_checkpoints, step_of

if TYPE_CHECKING:
    import keras

_OPTIMIZER = "optimizer/"
_WRITING = "writing"  # a folder, because safetensors names its temporary file differently each time


class CheckpointError(ValueError):
    """A checkpoint is damaged or does not fit the model."""


def save(
    folder: Path,
    step: int,
    model: "keras.Model",
    keep: int | None = 2,
    writes: bool = True,
    check: Callable[[str, np.ndarray], None] | None = None,
) -> Path:
    """Write `step-XXXXXXXX.safetensors` atomically, and delete all but the newest `keep` checkpoints.

    A kill at any moment never leaves a partial checkpoint. If the disk is full, all but the newest
    checkpoint are deleted before a second try.

    Args:
        keep: Number of checkpoints to keep; None keeps all.
        writes: Whether this process writes. All processes that train together must call this function,
            since each may hold only a part of the weights, but only one writes.
        check: Function called with the path and value of each variable of the model before anything is
            written. Its exceptions propagate.

    Raises:
        OSError: The disk is full, or the folder cannot be written. No part of the new file remains.
    """
    path = folder / checkpoint_name(step)
    tensors = {}
    for name, variable in _variables(model).items():
        value = backend.to_numpy(variable)
        if check and not name.startswith(_OPTIMIZER):
            check(name, value)
        if writes:
            tensors[name] = np.asarray(value, order="C")
    if not writes:
        return path
    try:
        _write(path, tensors, step)
    except OSError as error:
        older = list_checkpoints(folder)[:-1] if keep else []
        if error.errno not in FULL or not older:
            raise
        for old in older:
            old.unlink()
        _write(path, tensors, step)
    for old in list_checkpoints(folder)[:-keep] if keep else ():
        old.unlink()
    return path


def clean(*folders: Path) -> None:
    """Delete partial files that a killed process left in folders of checkpoints."""
    for folder in folders:
        shutil.rmtree(folder / _WRITING, ignore_errors=True)
        (folder / "writing.partial").unlink(missing_ok=True)  # the name in earlier versions


def _write(path: Path, tensors: dict[str, np.ndarray], step: int) -> None:
    clean(path.parent)
    writing = path.parent / _WRITING
    writing.mkdir(parents=True)
    try:
        save_file(tensors, writing / path.name, metadata={"step": str(step)})
        with open(writing / path.name, "rb") as file:
            os.fsync(file.fileno())
        os.replace(writing / path.name, path)
    except SafetensorError as error:
        if code := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(code[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def restore(path: Path, model: "keras.Model") -> int:
    """Restore every variable of the model, and of its built optimizer if it has one; return the step.

    Raises:
        CheckpointError: The file is damaged, or variables are missing, unexpected or of the wrong shape
            (all are listed).
    """
    try:
        return _restore(path, model)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged: {error}. Delete it to go back to the checkpoint before."
        ) from error


def _restore(path: Path, model: "keras.Model") -> int:
    variables = _variables(model)
    with safe_open(path, "numpy") as file:
        stored = set(file.keys())
        if not getattr(model, "optimizer", None):  # the model is for use, not for further training
            stored = {name for name in stored if not name.startswith(_OPTIMIZER)}
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in stored}
        faults = [f"missing: {name}" for name in sorted(variables.keys() - stored)]
        faults += [f"left over: {name}" for name in sorted(stored - variables.keys())]
        faults += [
            f"shape {shapes[name]}, wanted {tuple(variables[name].shape)}: {name}"
            for name in sorted(stored & variables.keys())
            if shapes[name] != tuple(variables[name].shape)
        ]
        if faults:
            raise CheckpointError(f"{path} does not fit the model:\n  " + "\n  ".join(faults))
        for name, variable in variables.items():
            variable.assign(file.get_tensor(name))
        return int(file.metadata()["step"])


def keep(folder: Path, steps: Collection[int]) -> None:
    """Delete the checkpoints of all steps but `steps`."""
    for path in list_checkpoints(folder):
        if step_of(path) not in steps:
            path.unlink()


def _variables(model: "keras.Model") -> dict[str, "keras.Variable"]:
    """Return all variables by path, the optimizer's with a prefix."""
    optimizer = getattr(model, "optimizer", None)
    own = {variable.path for variable in model.variables}
    pairs = [(variable.path, variable) for variable in model.variables]
    if optimizer:
        pairs += [(_OPTIMIZER + v.path, v) for v in optimizer.variables if v.path not in own]
    named = dict(pairs)
    if len(named) != len(pairs):
        raise CheckpointError("Two variables of the model share one path; name its layers apart.")
    return named
