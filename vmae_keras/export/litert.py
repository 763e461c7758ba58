"""LiteRT (TFLite) models with builtin operators only; the contract is an appended zip, as in TFLite."""

import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vmae_keras.backend import without_remarks
from vmae_keras.export import savedmodel
from vmae_keras.export.contract import KEY, Contract

NAME = "model.tflite"
_ENTRY = f"{KEY}.json"
# An int8 softmax has steps of 1/256, and each of 1568 keys has a weight of about 1/1568, so attention would
# vanish. Therefore only dense layers compute in integers. Clause EXPORT-5.
_DENSE = "FULLY_CONNECTED"


def write(
    serve: Callable, model: Any, contract: Contract, path: Path, clips: np.ndarray | None
) -> None:
    """Write a model with TensorFlow's converter.

    Args:
        serve: Function of inputs by name that returns outputs by name.
        model: Model whose variables `serve` uses.
        contract: Contract to store in the artifact.
        path: File to write.
        clips: Clips that int8's ranges are measured on, (n, T, H, W, C) in the contract's dtype; else None.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / savedmodel.NAME
        savedmodel.write(serve, model, contract, saved, None)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if contract.quantize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if contract.quantize == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        if contract.quantize == "int8":
            content = _dense_layers_in_int8(converter, contract, clips)
        else:
            content = converter.convert()
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_ENTRY, contract.to_json())


def _dense_layers_in_int8(converter: Any, contract: Contract, clips: Any) -> bytes:
    import tensorflow as tf
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    def batches() -> Iterator[list[np.ndarray]]:
        for clip in clips:
            yield [np.repeat(clip[None], contract.batch or 1, axis=0)]

    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = batches
    # Only the debugger lets the operators be chosen. It debugs nothing unless asked to.
    lite = tf.lite.experimental
    others = [name for name in vars(BuiltinOperator) if name.isupper() and name != _DENSE]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that its interpreter has moved to ai-edge-litert
        debugger = lite.QuantizationDebugger(
            converter=converter,
            debug_dataset=batches,
            debug_options=lite.QuantizationDebugOptions(denylisted_ops=others),
        )
    return debugger.get_nondebug_quantized_model()


def read_contract(path: Path) -> str:
    """Return the contract's JSON."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(_ENTRY).decode()


def open_artifact(path: Path) -> Callable[[dict], dict]:
    """Return the artifact as a function of arrays by name that runs in LiteRT's interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    with without_remarks():
        interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
    runner = interpreter.get_signature_runner()
    return lambda inputs: runner(**inputs)
