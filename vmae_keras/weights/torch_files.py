"""Reader and writer for torch files: `.pth`, `.pt` and `.bin`. torch is imported only when needed.

Unpickling can execute arbitrary code. So files are read only with torch's restricted unpickler, after
checks of the file (`torch_archives`) and its opcodes (`pickles`). Zip files are memory-mapped.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vmae_keras.process.files import replacing
from vmae_keras.weights import torch_archives
from vmae_keras.weights.tensor_files import (
    Tensor,
    TensorFile,
    WeightsError,
    as_float32,
    not_floats,
)

_CONTAINERS = ("model", "module", "state_dict")
_LONGEST_ARGUMENT = 500  # values


def read_torch(path: Path) -> TensorFile:
    """Return the tensors of a torch file.

    Takes the tensors under `model`, `module` or `state_dict`, the first of these that is a dict, else those
    at the top level. The rest (optimizer, scaler, averaged weights) stays unread. Legacy files, from before
    torch 1.6, are read into memory as a whole, because torch cannot map them.

    Raises:
        WeightsError: The file is damaged, has no tensors, or contains more than tensors, plain values and
            an argparse Namespace. torch is missing, or older than 2.6.
    """
    path = Path(path)
    with open(path, "rb") as file:
        zipped = file.read(4) == b"PK\3\4"
    check = torch_archives.check_zip if zipped else torch_archives.check_old
    check(path)
    torch = _torch(path)
    if path.suffix == ".safetensors":  # torch detects the format by the name
        raise WeightsError(f"{path} is a file of torch, not safetensors. Rename it to `.pth`.")
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged file can make torch raise anything
        reason = str(error).strip().splitlines()[:1]
        raise WeightsError(
            f"{path} cannot be read by torch: {type(error).__name__}: {''.join(reason)}. "
            "Nothing in it was executed. Download it again."
        ) from error
    stored = _container(content)
    size = path.stat().st_size
    tensors = {
        name: Tensor(tuple(value.shape), partial(_read, path, size, name, value))
        for name, value in stored.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if not tensors:
        found = list(content)[:10] if isinstance(content, dict) else type(content).__name__
        raise WeightsError(
            f"{path} holds no tensors by name, neither at its top nor under {', '.join(_CONTAINERS)}. "
            f"Received: {found}."
        )
    return TensorFile(path, tensors, _arguments(content))


def write_torch(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write {"model": {name: tensor}} atomically, in the form of the official repositories."""
    torch = _torch(path)
    model = {
        name: torch.from_numpy(np.require(value, requirements=["C", "W"]))
        for name, value in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, open(partial, "wb") as file:
        torch.save({"model": model}, file)


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path} is a file of torch, which is not installed. Run `pip install torch`, "
            "or get the same weights as safetensors."
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise WeightsError(  # CVE-2025-32434: before 2.6, the restricted unpickler could execute code
            f"{path} is not safe to read with this torch. Received: torch {torch.__version__}, "
            "wanted 2.6 or later. Run `pip install --upgrade torch`."
        )
    return torch


def _container(content: Any) -> dict:
    if not isinstance(content, dict):
        return {}
    inner = [content.get(key) for key in _CONTAINERS]
    return next((one for one in inner if isinstance(one, dict)), content)


def _read(path: Path, size: int, name: str, tensor: Any) -> np.ndarray:
    import torch

    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if tensor.dtype not in floats or tensor.layout != torch.strided:
        raise not_floats(path, name, str(tensor.dtype))
    if tensor.numel() * tensor.itemsize > size:
        raise WeightsError(
            f"{path}: `{name}` repeats its values beyond the file's own size. "
            f"Received: shape {tuple(tensor.shape)}."
        )
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    # Copied by NumPy, because malloc retained memory that torch allocated repeatedly (6 tensors of 16 MB).
    return as_float32(path, name, np.array(bits.detach().numpy()))


def _stand_in(module: str, name: str) -> type:
    """Return a class that replaces another one in a pickle, and only stores its state."""

    def set_state(self: Any, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__ = state

    methods = {"__init__": lambda self, *_: None, "__setstate__": set_state}
    return type(name, (), {"__module__": module, "__qualname__": name, **methods})


_STAND_INS = [
    _stand_in("argparse", "Namespace"),
    # NumPy scalars, which a training checkpoint may contain. They are not used, and NumPy is not called.
    _stand_in("numpy", "dtype"),
    _stand_in("numpy._core.multiarray", "scalar"),
    _stand_in("numpy.core.multiarray", "scalar"),
]


def _arguments(content: Any) -> dict[str, Any]:
    namespace = content.get("args")
    if type(namespace).__name__ != "Namespace":
        return {}
    return {
        name: value
        for name, value in vars(namespace).items()
        if isinstance(name, str) and not name.startswith("_") and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    """Return True for text, numbers, None, and lists, tuples or dicts of them.

    The number of values is limited, because a list may contain itself.
    """
    waiting = [value]
    for _ in range(_LONGEST_ARGUMENT):
        if not waiting:
            return True
        one = waiting.pop()
        if type(one) in (list, tuple, dict):
            if len(one) > _LONGEST_ARGUMENT:
                return False
            waiting += [*one, *one.values()] if type(one) is dict else one
        elif type(one) not in (str, int, float, bool, type(None)):
            return False
    return not waiting
