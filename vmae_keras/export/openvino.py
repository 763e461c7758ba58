"""OpenVINO models (.xml and .bin), converted from ONNX, with the contract in their runtime information."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vmae_keras.export import onnx
from vmae_keras.export.contract import KEY, Contract

NAME = "model.xml"


def write(
    serve: Callable, model: Any, contract: Contract, path: Path, clips: np.ndarray | None
) -> None:
    """Write a model by converting its ONNX export. "fp16" stores the weights in half precision."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / onnx.NAME
        onnx.write(serve, model, contract, between, None)
        converted = openvino.convert_model(str(between))
        converted.set_rt_info(contract.to_json(), [KEY])
        openvino.save_model(converted, str(path), compress_to_fp16=contract.quantize == "fp16")


def read_contract(path: Path) -> str:
    """Return the contract's JSON."""
    return _openvino().Core().read_model(path).get_rt_info([KEY]).value


def open_artifact(path: Path) -> Callable[[dict], dict]:
    """Return the artifact as a function of arrays by name that runs on the CPU in float32."""
    openvino = _openvino()
    # By default, OpenVINO computes in bfloat16 if the CPU supports it.
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = compiled({name: openvino.Tensor(array) for name, array in inputs.items()})
        return {port.any_name: found[port] for port in compiled.outputs}

    return run


def _openvino() -> ModuleType:
    with warnings.catch_warnings():
        # Its telemetry forks a process, and JAX warns about forks.
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        import openvino
    return openvino
