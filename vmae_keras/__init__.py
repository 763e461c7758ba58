"""VideoMAE and VideoMAE V2 in Keras 3, on JAX, TensorFlow and PyTorch."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported lazily: the command line and the data pipeline's workers do not need Keras.
_HOME = {
    "VideoClassifier": "vmae_keras.classifier",
    "VideoEncoder": "vmae_keras.encoder",
    "VideoMAE": "vmae_keras.model",
    "VideoMAEConfig": "vmae_keras.config",
    "load": "vmae_keras.presets",
    "masks": None,
    "data": None,
}

__all__ = ["VideoClassifier", "VideoEncoder", "VideoMAE", "VideoMAEConfig", "data", "load", "masks"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vmae_keras' has no attribute {name!r}")
    if _HOME[name] is None:
        return importlib.import_module(f"vmae_keras.{name}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
