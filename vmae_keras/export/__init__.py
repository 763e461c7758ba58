"""Export of models to artifacts that run without Keras: SavedModel, LiteRT, ONNX, OpenVINO."""

from typing import Literal, get_args

Quantization = Literal["fp16", "int8-dynamic", "int8"]
QUANTIZATIONS = get_args(Quantization)
Format = Literal["savedmodel", "litert", "onnx", "openvino"]
# The quantizations that each format supports.
FORMATS: dict[Format, tuple[Quantization, ...]] = {
    "savedmodel": (),
    "litert": QUANTIZATIONS,
    "onnx": (),
    "openvino": ("fp16",),
}
DType = Literal["uint8", "float32"]  # of input videos
DTYPES = get_args(DType)
