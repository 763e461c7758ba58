"""The graph of an artifact: raw clips in, named outputs out."""

import contextlib

import numpy as np
from keras import ops

from vmae_keras.data.finetune_augment import neighbours
from vmae_keras.export.contract import Contract

INTEGER = ("int8-dynamic", "int8")
# Added before levels are cut to whole ones. Not a half itself: resized levels often are x.5 but for the
# last bit, and that bit is each runtime's own.
HALF = np.float32(0.5007)


def serve(model, contract: Contract, inputs: dict) -> dict:
    """Tensors by name -> tensors by name, as the contract says.

    Source: clauses EXPORT-1 to EXPORT-3.
    """
    video = resized(inputs["video"], contract) if contract.resizes else inputs["video"]
    if contract.what == "pretrain":
        return {"prediction": model({**inputs, "video": video}, training=False)}
    if contract.what == "encoder":
        return {"features": model(video, training=False)}
    if contract.quantize in INTEGER:
        logits = _float_head(model.head, model.features(video))
    else:
        logits = model(video, training=False)
    return {"logits": logits, "probabilities": ops.softmax(logits)}


def resized(video, contract: Contract):
    """(B, T, H0, W0, C) levels or [0, 1] -> float32 (B, T, H, W, C) in [0, 1].

    Resizes frames until the crop just fits, linearly and without antialiasing, and crops the centre, by one
    matrix for the rows and one for the columns: they give the same numbers wherever they run, and compute
    no pixel outside the crop. The matrices stand on the left, where no converter takes them for dense
    layers. Levels are rounded.

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


def _interpolation(count, new_count):
    """float32 (new_count, count)"""
    before, after, share = neighbours(count, new_count)
    matrix = np.zeros((new_count, count), "float32")
    line = np.arange(new_count)
    np.add.at(matrix, (line, before), 1 - share)
    np.add.at(matrix, (line, after), share)
    return matrix


def _float_head(head, x):
    """(B, D) -> (B, K), not as a matrix product, so that the converter leaves it in float32.

    The head reads one feature of a clip: no average over tokens makes its rounding small. Clause EXPORT-5.
    """
    products = ops.expand_dims(x, 2) * ops.expand_dims(ops.convert_to_tensor(head.kernel), 0)
    return ops.sum(products, axis=1) + ops.convert_to_tensor(head.bias)


def stages(model) -> dict:
    """A model's layers by name, in the order in which a clip passes them."""
    layers = [model.tubelet_embedding, *model.encoder.blocks, model.encoder.norm]
    if hasattr(model, "decoder"):
        layers += [model.bridge, *model.decoder.blocks, model.decoder.norm]
    layers += [layer for name in ("fc_norm", "head") if (layer := getattr(model, name, None))]
    return {layer.path.partition("/")[2]: layer for layer in layers}


@contextlib.contextmanager
def recorded(model):
    """Gives a dict that holds what each of the model's `stages` returned, by name, once it was called."""
    outputs, layers = {}, stages(model)

    def recording(name, call):
        def run(*args, **kwargs):
            outputs[name] = call(*args, **kwargs)
            return outputs[name]

        return run

    try:
        for name, layer in layers.items():
            layer.call = recording(name, layer.call)
        yield outputs
    finally:
        for layer in layers.values():
            del layer.call  # the class's own again


def serve_stages(model, contract: Contract, inputs: dict) -> dict:
    """As `serve`, with what each stage returned under its name besides: to find where numbers part."""
    with recorded(model) as found:
        outputs = serve(model, contract, inputs)
    return outputs | found
