"""Files of torch: `.pth`, `.pt` and `.bin`. torch itself is imported when one is read or written.

A pickle can run any program. Here one is read with torch's restricted reader alone, after its file
(`torch_archives`) and its opcodes (`pickles`) were checked; the zip form is mapped into memory, not read.
"""

from functools import partial
from pathlib import Path

import numpy as np

from vmae_keras.weights import torch_archives
from vmae_keras.weights.tensor_files import (
    Tensor,
    TensorFile,
    WeightsError,
    as_float32,
    at_one_stroke,
    not_floats,
)

_CONTAINERS = ("model", "module", "state_dict")
_LONGEST_ARGUMENT = 500  # values


def read_torch(path: Path) -> TensorFile:
    """The tensors of a file of torch.

    They are those under `model`, `module` or `state_dict`, the first of these that is a dict, else those at
    the top. The rest (optimizer, scaler, an average of the weights) stays unread. An old file, from before
    torch 1.6, is read into memory whole, since torch cannot map it.

    Raises:
        WeightsError: the file is damaged, holds no tensors, or wants more than tensors, plain values and an
            argparse Namespace; or torch is missing, or older than 2.6.
    """
    path = Path(path)
    with open(path, "rb") as file:
        zipped = file.read(4) == b"PK\3\4"
    check = torch_archives.check_zip if zipped else torch_archives.check_old
    check(path)
    torch = _torch(path)
    if path.suffix == ".safetensors":  # torch goes by the name
        raise WeightsError(f"{path} is a file of torch, not safetensors. Rename it to `.pth`.")
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch raises whatever a damaged file leads to
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
    """Writes {"model": {name: tensor}} at one stroke, as the official repositories do."""
    torch = _torch(path)
    model = {
        name: torch.from_numpy(np.require(value, requirements=["C", "W"]))
        for name, value in tensors.items()
    }
    with at_one_stroke(path) as unfinished, open(unfinished, "wb") as file:
        torch.save({"model": model}, file)


def _torch(path):
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path} is a file of torch, which is not installed. Run `pip install torch`, "
            "or get the same weights as safetensors."
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise WeightsError(  # CVE-2025-32434: until then the restricted reader could be made to run code
            f"{path} is not safe to read with this torch. Received: torch {torch.__version__}, "
            "wanted 2.6 or later. Run `pip install --upgrade torch`."
        )
    return torch


def _container(content):
    if not isinstance(content, dict):
        return {}
    inner = [content.get(key) for key in _CONTAINERS]
    return next((one for one in inner if isinstance(one, dict)), content)


def _read(path, size, name, tensor):
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
    # Copied by NumPy: what torch allocates again and again, malloc was seen to keep (six tensors of 16 MB).
    return as_float32(path, name, np.array(bits.detach().numpy()))


def _stand_in(module, name):
    """A class that a pickle takes for another one, and that only keeps what it is given."""

    def set_state(self, state):
        if isinstance(state, dict):
            self.__dict__ = state

    methods = {"__init__": lambda self, *_: None, "__setstate__": set_state}
    return type(name, (), {"__module__": module, "__qualname__": name, **methods})


_STAND_INS = [
    _stand_in("argparse", "Namespace"),
    # NumPy's numbers, which a training checkpoint may hold: nobody reads them, and NumPy is not called.
    _stand_in("numpy", "dtype"),
    _stand_in("numpy._core.multiarray", "scalar"),
    _stand_in("numpy.core.multiarray", "scalar"),
]


def _arguments(content):
    namespace = content.get("args")
    if type(namespace).__name__ != "Namespace":
        return {}
    return {
        name: value
        for name, value in vars(namespace).items()
        if isinstance(name, str) and not name.startswith("_") and _is_plain(value)
    }


def _is_plain(value):
    """Whether text, numbers, None, or lists, tuples, dicts of them; not many: a list may hold itself."""
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
