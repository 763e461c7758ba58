"""ONNX models, with the contract in their metadata."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vmae_keras.backend import AnyTensor
from vmae_keras.export.contract import KEY, Contract

NAME = "model.onnx"
_OPSET = 20  # the first with a GELU operator


def write(
    serve: Callable, model: Any, contract: Contract, path: Path, clips: np.ndarray | None
) -> None:
    """Write a model with PyTorch's exporter, in opset 20."""
    import torch

    names = list(contract.inputs)

    class Served(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: AnyTensor) -> tuple[AnyTensor, ...]:
            outputs.clear()
            outputs.update(serve(dict(zip(names, tensors, strict=True))))
            return tuple(outputs.values())

    outputs: dict[str, AnyTensor] = {}
    # Two clips: with one, the tracer would treat the batch size as a constant.
    examples = tuple(
        torch.zeros((contract.batch or 2, *shape[1:]), dtype=getattr(torch, dtype))
        for dtype, shape in contract.inputs.values()
    )
    batch = {} if contract.batch else {0: torch.export.Dim("batch", min=1)}
    served = Served().eval()
    with torch.no_grad():
        served(*examples)  # names the outputs
    program = torch.onnx.export(
        served,
        examples,
        dynamo=True,
        input_names=names,
        output_names=list(outputs),
        dynamic_shapes=(tuple(batch for _ in names),),
        opset_version=_OPSET,
        verbose=False,
    )
    program.model.metadata_props[KEY] = contract.to_json()
    program.save(str(path))


def read_contract(path: Path) -> str:
    """Return the contract's JSON."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.get_modelmeta().custom_metadata_map[KEY]


def open_artifact(path: Path) -> Callable[[dict], dict]:
    """Return the artifact as a function of arrays by name that runs in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path), providers=onnxruntime.get_available_providers()
    )
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))
