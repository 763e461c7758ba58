"""VideoMAE and VideoMAE V2 in Keras 3, on JAX, TensorFlow and PyTorch."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported lazily: the command line and the data pipeline's workers do not need Keras. `__init__.pyi` states
# the same names for type checkers.
_HOME = {
    "AdamW": "training.optimizer",
    "Artifact": "export.artifact",
    "Devices": "distribution",
    "VideoClassifier": "classifier",
    "VideoEncoder": "encoder",
    "VideoMAE": "model",
    "VideoMAEConfig": "config",
    "WarmupCosine": "training.optimizer",
    "convert": "conversion.weight_files",
    "data": None,
    "distribution": None,
    "evaluate": "evaluation.classification",
    "export_model": "export.exporter",
    "extract_features": "evaluation.features",
    "fine_tuning_dataset": "data.fine_tuning",
    "list_videos": "data.files",
    "load": "presets",
    "masks": None,
    "predict": "evaluation.prediction",
    "pretraining_dataset": "data.pretraining",
    "probe": "evaluation.probes.probing",
    "read_clip": "data.pretraining",
    "reconstruct": "pictures.reconstruction",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vmae_keras' has no attribute {name!r}")
    home = _HOME[name]
    if home is None:
        return importlib.import_module(f"vmae_keras.{name}")
    return getattr(importlib.import_module(f"vmae_keras.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
