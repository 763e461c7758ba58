"""From a handle (a folder, a file, `hf://owner/name`) to what lies there."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from vmae_keras.config import VideoMAEConfig
from vmae_keras.weights import hub
from vmae_keras.weights.recognise import Stored, recognise
from vmae_keras.weights.tensor_files import Tensor, WeightsError, read_tensors

_LARGEST_SETTINGS = 4 * 2**20  # bytes; names of classes take most of it
_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)  # fmt: skip
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def locate(handle: str | Path) -> Path:
    """A folder or a file on this machine, downloaded if need be.

    Raises:
        WeightsError: nothing is there. HubError: see `hub.fetch`.
    """
    if hub.is_hub(str(handle)):
        return hub.fetch(str(handle))
    path = Path(handle).expanduser()
    if not path.exists():
        raise WeightsError(
            f"{path} does not exist. Give a folder, a file, or hf://owner/name of the hub."
        )
    return path


def keras_settings(path: Path) -> dict[str, Any] | None:
    """The `config.json` of a folder that `save_to_preset` wrote; None if it is another folder."""
    settings = read_settings(path / "config.json") if path.is_dir() else {}
    ours = str(settings.get("registered_name", "")).startswith("vmae_keras>")
    return settings if ours else None


def read_stored(path: Path, overrides: dict[str, Any]) -> Stored:
    """The model in a folder or a file that other implementations or `vmae pretrain` wrote.

    Args:
        overrides: fields of the configuration that the user sets.

    Raises:
        WeightsError: there is none, or it cannot be used.
    """
    if path.is_dir() and (path / "run.json").is_file():
        return _read_run(path)
    file = _weights_file(path) if path.is_dir() else path
    settings, preprocessing = (
        read_settings(file.parent / name) for name in ("config.json", "preprocessor_config.json")
    )
    return recognise(read_tensors(file), settings, preprocessing, overrides)


def _weights_file(folder):
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


def read_settings(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file that may be a stranger's, {} where there is no such file.

    Raises:
        WeightsError: it is too large, damaged, or holds something else.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > _LARGEST_SETTINGS:
        raise WeightsError(f"{path} is too large for settings: {path.stat().st_size} bytes.")
    try:
        values = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path} must hold a JSON object. Received: {type(values).__name__}.")
    return values


def _read_run(folder):
    """A run's best checkpoint, else its newest: our own paths, with optimizer and seeds beside them."""
    checkpoints = [
        path
        for place in ("checkpoints", "best")
        for path in sorted((folder / place).glob("step-*.safetensors"))
    ]
    if not checkpoints:
        raise WeightsError(
            f"{folder} holds no checkpoint yet. Train it: vmae pretrain --out {folder} --resume"
        )
    settings = folder / "run.json"
    values = read_settings(settings)
    classifier = values.get("stage") in ("fine-tuning", "distillation")
    try:
        config = VideoMAEConfig(**values["config"])
        named = classifier and values["labels"] is not None
        labels = tuple(map(str, values["labels"])) if named else None
        accumulate = int(values["recipe"].get("accumulate", 1))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{settings} describes no VideoMAE: {error!r}") from error
    file = read_tensors(checkpoints[-1])
    batches = checkpoints[-1].stem.removeprefix("step-")
    averaged = not batches.isdecimal() or int(batches) >= accumulate
    model = "video_classifier/" if classifier else "video_mae/"
    tensors = _model_of_run(file.tensors, model, averaged)
    # By the weights: of a mapped head, earlier versions wrote down the recipe's pooling.
    pooling = ("mean" if "fc_norm/gamma" in tensors else "first") if classifier else None
    kind = "classifier" if classifier else "pretraining"
    classes = tensors["head/bias"].shape[0] if classifier else None
    return Stored(config, kind, pooling, classes, labels, tensors, "keras", str(file.path))


def _model_of_run(tensors, model, averaged):
    """Return a checkpoint's weights as they are used: averages where there are, LoRA's products added.

    Args:
        averaged: whether the weights were updated at all; before, averages are zeros.
    """
    used = {}
    for name in tensors:
        if name.startswith(model):
            average = f"optimizer/adamw/{name.replace('/', '_')}_average"
            taken = average if averaged and average in tensors else name
            used[name.removeprefix(model)] = tensors[taken]
    for name in [name for name in used if name.endswith("/lora_kernel_a")]:
        path = name.removesuffix("lora_kernel_a")
        parts = [used.pop(path + "lora_kernel_" + part) for part in "ab"]
        kernel = used[path + "kernel"]
        used[path + "kernel"] = Tensor(kernel.shape, partial(_with_lora, kernel, *parts))
    return used


def _with_lora(kernel, a, b):
    return kernel.read() + a.read() @ b.read()
