"""The export formats: their modules, the backends that write them, and their packages."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from vmae_keras.export import FORMATS
from vmae_keras.export.contract import ArtifactError

# The backends that need the least time and memory: PyTorch's exporter takes a tenth of the time and an
# eighth of the memory of converting TensorFlow's graph to ONNX.
BACKENDS = {
    "savedmodel": "tensorflow",
    "litert": "tensorflow",
    "onnx": "torch",
    "openvino": "torch",
}
_SAVED = "saved_model.pb"  # in the folder of a SavedModel
_RUNTIMES = {
    "savedmodel": "tensorflow",
    "litert": "ai_edge_litert",
    "onnx": "onnxruntime",
    "openvino": "openvino",
}
_WRITERS = {
    "savedmodel": ["tensorflow"],
    "litert": ["tensorflow"],
    "onnx": ["torch", "onnxscript"],
    "openvino": ["torch", "onnxscript"],
}


def module(name: str) -> ModuleType:
    """Return the module that writes and runs a format."""
    return importlib.import_module(f"vmae_keras.export.{name}")


def check_installed(name: str, *, writing: bool) -> None:
    """Raise ArtifactError if a package is missing that is needed to run a format, or also to write it."""
    wanted = [_RUNTIMES[name], *(_WRITERS[name] if writing else ())]
    if missing := [each for each in wanted if importlib.util.find_spec(each) is None]:
        raise ArtifactError(
            f"{name} needs packages that are not installed: {', '.join(missing)}. Install them: "
            f"pip install 'vmae-keras[{name}]'."
        )


def find(path: str | Path) -> tuple[str, Path] | None:
    """Return format and path of the artifact at a path, or in the folder at that path.

    Return None if there is none, or if the folder holds a model or a run besides artifacts.

    Raises:
        ArtifactError: The folder holds several artifacts.
    """
    path = Path(path)
    if (path / "config.json").is_file() or (path / "run.json").is_file():
        return None
    found = []
    for name in FORMATS:
        own = module(name).NAME
        for place in (path, path / own):
            if name == "savedmodel":
                there = (place / _SAVED).is_file()
            else:
                there = place.is_file() and place.suffix == Path(own).suffix
            if there:
                found.append((name, place))
    if len(found) > 1:
        places = ", ".join(place.name for _, place in found)
        raise ArtifactError(f"{path} holds several artifacts: {places}. Give one of them.")
    return found[0] if found else None
