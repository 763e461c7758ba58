"""From a handle (a folder, a file, `hf://owner/name`) to what lies there."""

from functools import partial
from pathlib import Path
from typing import Any

from vmae_keras.config import VideoMAEConfig
from vmae_keras.weights import hub, names
from vmae_keras.weights.json_files import read_settings
from vmae_keras.weights.keras_files import read_keras
from vmae_keras.weights.recognise import Stored, recognise
from vmae_keras.weights.tensor_files import Tensor, WeightsError, listed, read_tensors

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
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


def read_stored(path: Path, overrides: dict[str, Any]) -> Stored:
    """The model in a folder or a file that other implementations, Keras or `vmae pretrain` wrote.

    Args:
        overrides: fields of the configuration that the user sets.

    Raises:
        WeightsError: there is none, or it cannot be used.
    """
    if path.is_dir() and (path / "run.json").is_file():
        return _read_run(path)
    if (saved := read_keras(path)) is not None:
        return saved
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
        accumulate = int(values.get("recipe", {}).get("accumulate", 1))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{settings} describes no VideoMAE: {error!r}") from error
    file = read_tensors(checkpoints[-1])
    batches = checkpoints[-1].stem.removeprefix("step-")
    averaged = not batches.isdecimal() or int(batches) >= accumulate
    model = "video_classifier/" if classifier else "video_mae/"
    tensors = _model_of_run(file.tensors, model, averaged)
    # By the weights: of a mapped head, earlier versions wrote down the recipe's pooling.
    pooling = ("mean" if "fc_norm/gamma" in tensors else "first") if classifier else None
    kind = "classifier" if classifier else "pretraining"
    classes = None
    if classifier:
        head = tensors.get("head/bias")
        classes = head.shape[0] if head and head.shape else 0
    if labels is not None and len(labels) != classes:
        raise WeightsError(f"{settings} names {len(labels)} classes, {file.path} has {classes}.")
    expected = names.shapes(config, kind, pooling, classes)
    faults = [f"missing: {name}" for name in expected if name not in tensors]
    faults += [f"unexpected: {name}" for name in tensors if name not in expected]
    faults += [
        f"shape {tensors[name].shape}, wanted {shape}: {name}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if faults:
        raise WeightsError(
            f"{settings} does not fit the weights in {file.path}.{listed(faults, 20)}"
        )
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
        kernel, a, b = (
            used.get(path + part) for part in ("kernel", "lora_kernel_a", "lora_kernel_b")
        )
        if (
            kernel
            and b
            and kernel.shape == a.shape[:1] + b.shape[1:]
            and a.shape[1:] == b.shape[:1]
        ):
            used[path + "kernel"] = Tensor(kernel.shape, partial(_with_lora, kernel, a, b))
            del used[path + "lora_kernel_a"], used[path + "lora_kernel_b"]
    return used


def _with_lora(kernel, a, b):
    return kernel.read() + a.read() @ b.read()
