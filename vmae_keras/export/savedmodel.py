"""TensorFlow SavedModels: folders, with the contract among the extra assets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vmae_keras.backend import AnyTensor, without_remarks
from vmae_keras.export.contract import KEY, Contract

NAME = "saved_model"
_EXTRA = f"assets.extra/{KEY}.json"


def write(
    serve: Callable, model: Any, contract: Contract, path: Path, clips: np.ndarray | None
) -> None:
    """Write a SavedModel with the signature `serving_default`, with Keras on TensorFlow."""
    import keras
    import tensorflow as tf

    names = list(contract.inputs)
    signature = [
        tf.TensorSpec(shape, dtype, name=name) for name, (dtype, shape) in contract.inputs.items()
    ]
    archive = keras.export.ExportArchive()

    def endpoint(*tensors: AnyTensor) -> dict[str, AnyTensor]:
        # A signature does not check shapes, and a graph of reshapes would accept some wrong ones.
        checked = [
            tf.ensure_shape(t, spec.shape) for t, spec in zip(tensors, signature, strict=True)
        ]
        return serve(dict(zip(names, checked, strict=True)))

    archive.add_endpoint("serving_default", endpoint, input_signature=signature)
    archive.write_out(str(path), verbose=False)
    (path / _EXTRA).parent.mkdir()
    (path / _EXTRA).write_text(contract.to_json(), "utf-8")


def read_contract(path: Path) -> str:
    """Return the contract's JSON."""
    return (path / _EXTRA).read_text("utf-8")


def open_artifact(path: Path) -> Callable[[dict], dict]:
    """Return the artifact as a function of arrays by name that runs in TensorFlow without Keras."""
    with without_remarks():
        import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # `loaded` keeps the variables alive; the signature does not.
        found = loaded and signature(**{name: tf.constant(a) for name, a in inputs.items()})
        return {name: tensor.numpy() for name, tensor in found.items()}

    return run
