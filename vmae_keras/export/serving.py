"""The graph of an artifact, from raw clips to named outputs."""

import keras
import numpy as np
from keras import ops

from vmae_keras.backend import AnyTensor
from vmae_keras.backend.internals import recorded
from vmae_keras.data.augmentation import neighbours
from vmae_keras.export.contract import Contract

INTEGER = ("int8-dynamic", "int8")
# Added before levels are floored. It is not exactly 0.5: resized levels are often x.5 up to the last bit,
# and the last bit differs between runtimes.
HALF = np.float32(0.5007)


def serve(
    model: keras.Model, contract: Contract, inputs: dict[str, AnyTensor]
) -> dict[str, AnyTensor]:
    """Return the outputs that the contract names, from the inputs that it names.

    Source: clauses EXPORT-1 to EXPORT-3.
    """
    video = resized(inputs["video"], contract) if contract.resizes else inputs["video"]
    if contract.kind == "pretraining":
        return {"prediction": model({**inputs, "video": video}, training=False)}
    if contract.kind == "encoder":
        return {"features": model(video, training=False)}
    if contract.quantize in INTEGER:
        logits = _float_head(model.head, model.features(video))
    else:
        logits = model(video, training=False)
    return {"logits": logits, "probabilities": ops.softmax(logits)}


def resized(video: AnyTensor, contract: Contract) -> AnyTensor:
    """(B, T, H0, W0, C) levels or [0, 1] -> float32 (B, T, H, W, C) in [0, 1]: resize and crop frames.

    Frames are resized linearly, without antialiasing, until the crop just fits, and the centre is cropped.
    One matrix for the rows and one for the columns do both: every runtime computes the same numbers, and
    no pixel outside the crop. The matrices are left operands, because converters would take right ones
    for dense layers. Levels are rounded.

    Source: clauses EXPORT-2, EVAL-3, EVAL-5.
    """
    (height, width), (y, x) = contract.crop
    rows = _interpolation(contract.height, height)[y : y + contract.size[0]]
    columns = _interpolation(contract.width, width)[x : x + contract.size[1]]
    frames, channels = contract.frames, contract.channels
    v = ops.reshape(ops.cast(video, "float32"), (-1, contract.height, contract.width * channels))
    v = ops.matmul(ops.convert_to_tensor(rows), v)  # (B T, H, W0 C)
    v = ops.reshape(v, (-1, contract.size[0], contract.width, channels))
    v = ops.matmul(ops.convert_to_tensor(columns), v)  # (B T, H, W, C)
    v = ops.reshape(v, (-1, frames, *contract.size, channels))
    return ops.floor(v + HALF) / 255.0 if contract.dtype == "uint8" else v


def _interpolation(count: int, new_count: int) -> np.ndarray:
    """Return the matrix of a linear interpolation, float32 (new_count, count)."""
    before, after, share = neighbours(count, new_count)
    matrix = np.zeros((new_count, count), "float32")
    line = np.arange(new_count)
    np.add.at(matrix, (line, before), 1 - share)
    np.add.at(matrix, (line, after), share)
    return matrix


def _float_head(head: keras.layers.Dense, x: AnyTensor) -> AnyTensor:
    """(B, D) -> (B, K): compute logits without a matrix product, so that the converter keeps float32.

    The head reads a single vector per clip, so its rounding errors are not averaged over tokens.
    Clause EXPORT-5.
    """
    products = ops.expand_dims(x, 2) * ops.expand_dims(ops.convert_to_tensor(head.kernel), 0)
    return ops.sum(products, axis=1) + ops.convert_to_tensor(head.bias)


def stages(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return a model's layers by name, in the order in which they run."""
    layers = [model.tubelet_embedding, *model.encoder.blocks, model.encoder.norm]
    if hasattr(model, "decoder"):
        layers += [model.bridge, *model.decoder.blocks, model.decoder.norm]
    layers += [layer for name in ("fc_norm", "head") if (layer := getattr(model, name, None))]
    return {layer.path.partition("/")[2]: layer for layer in layers}


def serve_stages(
    model: keras.Model, contract: Contract, inputs: dict[str, AnyTensor]
) -> dict[str, AnyTensor]:
    """Return the outputs of `serve` and of each stage, to find the first one that deviates."""
    with recorded(stages(model)) as found:
        outputs = serve(model, contract, inputs)
    return outputs | found
