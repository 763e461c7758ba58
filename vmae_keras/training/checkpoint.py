"""Checkpoints: every variable of model and optimizer by its path, in one safetensors file.

Keras's own `.weights.h5` leaves out the states of random seeds, so that a resumed run would draw other
drop-path decisions. A file written here also moves between backends.
"""

import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vmae_keras import backend
from vmae_keras.process.failures import FULL
from vmae_keras.runs.checkpoint_files import checkpoint_name, list_checkpoints, step_of

_OPTIMIZER = "optimizer/"
_WRITING = "writing"  # a folder, since safetensors gives its unfinished file another name each time


class CheckpointError(ValueError):
    """A checkpoint does not fit the model, or there is none."""


def save(
    folder: Path,
    step: int,
    model,
    keep: int | None = 2,
    writes: bool = True,
    check: Callable[[str, np.ndarray], None] | None = None,
) -> Path:
    """Write `step-XXXXXXXX.safetensors` atomically; the newest `keep` remain, or all with None.

    Killed at any moment, it leaves either the old files or the new one, never a part of one. On a full disk
    the older ones of several make room.

    Args:
        writes: of processes that train together, each holding a part of the weights perhaps, all call
            this and one writes.
        check: called with the path and value of each variable of the model before anything is
            written; what it raises ends the saving.

    Raises:
        OSError: the disk is full, or the folder cannot be written; nothing remains of the new file.
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


def clean(*folders: Path):
    """Delete what a killed process left half-written in folders of checkpoints."""
    for folder in folders:
        shutil.rmtree(folder / _WRITING, ignore_errors=True)
        (folder / "writing.partial").unlink(missing_ok=True)  # as earlier versions called it


def _write(path, tensors, step):
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


def restore(path: Path, model) -> int:
    """Sets every variable of the model, and of its built optimizer if it has one; returns the step.

    Raises:
        CheckpointError: variables that are missing, left over or of another shape, all listed; or the
            file is damaged.
    """
    try:
        return _restore(path, model)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged: {error}. Delete it to go back to the checkpoint before."
        ) from error


def _restore(path, model):
    variables = _variables(model)
    with safe_open(path, "numpy") as file:
        stored = set(file.keys())
        if not getattr(model, "optimizer", None):  # to use a model, not to train it further
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
    """Delete the checkpoints of all other steps."""
    for path in list_checkpoints(folder):
        if step_of(path) not in steps:
            path.unlink()


def _variables(model):
    """All variables by path, the optimizer's under a prefix of their own."""
    optimizer = getattr(model, "optimizer", None)
    own = {variable.path for variable in model.variables}
    pairs = [(variable.path, variable) for variable in model.variables]
    if optimizer:
        pairs += [(_OPTIMIZER + v.path, v) for v in optimizer.variables if v.path not in own]
    named = dict(pairs)
    if len(named) != len(pairs):
        raise CheckpointError("Two variables of the model share one path; name its layers apart.")
    return named
