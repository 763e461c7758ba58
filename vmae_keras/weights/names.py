"""Table of all weights: our path and shape, and the names and layouts in other implementations.

Clauses WEIGHT-1, WEIGHT-2, EMBED-1, POS-5, FT-4, IMAGE-1, IMAGE-5. `spec/weights.toml` is the
language-independent form of this table.
"""

import math
import re

import numpy as np

from vmae_keras.config import VideoMAEConfig

OFFICIAL, HUGGING_FACE, MMACTION2 = "official", "huggingface", "mmaction2"
VIT = "vit"  # Hugging Face's ViT and ViTMAE
_COLUMNS = (OFFICIAL, HUGGING_FACE, MMACTION2, VIT)

# Weights of a block: our name, then one name per column. A missing fourth name equals the second.
_BLOCK = {
    "norm1/gamma": ("norm1.weight", "layernorm_before.weight", "norm1.weight"),
    "norm1/beta": ("norm1.bias", "layernorm_before.bias", "norm1.bias"),
    "attention/qkv/kernel": (
        "attn.qkv.weight",
        (
            "attention.attention.query.weight",
            "attention.attention.key.weight",
            "attention.attention.value.weight",
        ),
        "attn.qkv.weight",
    ),
    "attention/q_bias": (
        "attn.q_bias",
        "attention.attention.q_bias",
        "attn.q_bias",
        "attention.attention.query.bias",
    ),
    "attention/v_bias": (
        "attn.v_bias",
        "attention.attention.v_bias",
        "attn.v_bias",
        "attention.attention.value.bias",
    ),
    "attention/log_scale": ("attn.scale", None, None),
    "attention/projection/kernel": (
        "attn.proj.weight",
        "attention.output.dense.weight",
        "attn.proj.weight",
    ),
    "attention/projection/bias": (
        "attn.proj.bias",
        "attention.output.dense.bias",
        "attn.proj.bias",
    ),
    "norm2/gamma": ("norm2.weight", "layernorm_after.weight", "norm2.weight"),
    "norm2/beta": ("norm2.bias", "layernorm_after.bias", "norm2.bias"),
    "mlp/hidden/kernel": ("mlp.fc1.weight", "intermediate.dense.weight", "mlp.layers.0.0.weight"),
    "mlp/hidden/bias": ("mlp.fc1.bias", "intermediate.dense.bias", "mlp.layers.0.0.bias"),
    "mlp/output/kernel": ("mlp.fc2.weight", "output.dense.weight", "mlp.layers.1.weight"),
    "mlp/output/bias": ("mlp.fc2.bias", "output.dense.bias", "mlp.layers.1.bias"),
    "scale1": ("gamma_1", None, "gamma_1"),
    "scale2": ("gamma_2", None, "gamma_2"),
}

# Weights outside of blocks. {encoder} is "encoder." in official pretraining models, and empty otherwise.
_EMBEDDING = (
    "{encoder}patch_embed.proj",
    "videomae.embeddings.patch_embeddings.projection",
    "backbone.patch_embed.projection",
    "vit.embeddings.patch_embeddings.projection",
)
_ENCODER_NORM = ("{encoder}norm", "videomae.layernorm", "backbone.norm", "vit.layernorm")
_FC_NORM = ("fc_norm", "fc_norm", "backbone.fc_norm")
_BRIDGE = ("encoder_to_decoder", "encoder_to_decoder", None, "decoder.decoder_embed")
_DECODER_NORM = ("decoder.norm", "decoder.norm", None, "decoder.decoder_norm")


def _tensors(modules: tuple[str | None, ...], name: str) -> tuple[str | None, ...]:
    return tuple(None if module is None else f"{module}.{name}" for module in modules)


_COMMON = {
    "tubelet_embedding/kernel": _tensors(_EMBEDDING, "weight"),
    "tubelet_embedding/bias": _tensors(_EMBEDDING, "bias"),
    "tubelet_embedding/class_token": (None, None, None, "vit.embeddings.cls_token"),
    "tubelet_embedding/positions": (
        "pos_embed",
        None,
        None,
        "vit.embeddings.position_embeddings",
    ),
    "encoder/norm/gamma": _tensors(_ENCODER_NORM, "weight"),
    "encoder/norm/beta": _tensors(_ENCODER_NORM, "bias"),
    "fc_norm/gamma": (*_tensors(_FC_NORM, "weight"), None),
    "fc_norm/beta": (*_tensors(_FC_NORM, "bias"), None),
    "bridge/kernel": _tensors(_BRIDGE, "weight"),
    "bridge/bias": (None, None, None, "decoder.decoder_embed.bias"),
    "mask_token": ("mask_token", "mask_token", None, "decoder.mask_token"),
    "decoder/norm/gamma": _tensors(_DECODER_NORM, "weight"),
    "decoder/norm/beta": _tensors(_DECODER_NORM, "bias"),
}
_HEAD = {
    True: ("decoder.head", "decoder.head", None, "decoder.decoder_pred"),
    False: ("head", "classifier", "cls_head.fc_cls", "classifier"),
}
_BLOCKS = {
    "encoder": (
        "{encoder}blocks.",
        "videomae.encoder.layer.",
        "backbone.blocks.",
        "vit.encoder.layer.",
    ),
    "decoder": ("decoder.blocks.", "decoder.decoder_layers.", None, "decoder.decoder_layers."),
}


def shapes(
    config: VideoMAEConfig, kind: str, pooling: str | None = None, classes: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a model by its path, without the model's name.

    Args:
        config: Configuration of the model.
        kind: "pretraining", "encoder" or "classifier".
        pooling: Pooling of an encoder or a classifier.
        classes: Number of classes of a classifier.
    """
    c, pretraining = config, kind == "pretraining"
    found = {
        "tubelet_embedding/kernel": (c.tubelet_size, c.dim),
        "tubelet_embedding/bias": (c.dim,),
    }
    if c.class_token:
        found["tubelet_embedding/class_token"] = (1, 1, c.dim)
    if c.learned_positions:
        found["tubelet_embedding/positions"] = (c.num_tokens + c.class_token, c.dim)
    found |= _stack(c, "encoder", c.depth, c.dim, c.mlp_dim, c.heads)
    if pooling == "first" or (pooling is None and c.encoder_norm):
        found |= _norm("encoder/norm", c.dim)
    if pooling == "mean":
        found |= _norm("fc_norm", c.dim)
    if pretraining:
        found |= {"bridge/kernel": (c.dim, c.decoder_dim), "mask_token": (1, 1, c.decoder_dim)}
        if c.bridge_bias:
            found["bridge/bias"] = (c.decoder_dim,)
        found |= _stack(
            c, "decoder", c.decoder_depth, c.decoder_dim, c.decoder_mlp_dim, c.decoder_heads
        )
        found |= _norm("decoder/norm", c.decoder_dim)
        found |= {"head/kernel": (c.decoder_dim, c.tubelet_size), "head/bias": (c.tubelet_size,)}
    if kind == "classifier" and classes is not None:
        found |= {"head/kernel": (c.dim, classes), "head/bias": (classes,)}
    return found


def totals(
    config: VideoMAEConfig, kind: str, pooling: str | None = None, classes: int | None = None
) -> tuple[int, int]:
    """Return a model's number of weights and its number of parameters, without listing all its blocks."""
    weights = numbers = 0
    one = shapes(config.replace(depth=1, decoder_depth=1), kind, pooling, classes)
    for path, shape in one.items():
        stack, block, _ = path.partition("/block_0/")
        times = {"encoder": config.depth, "decoder": config.decoder_depth}[stack] if block else 1
        weights += times
        numbers += times * math.prod(shape)
    return weights, numbers


def _norm(path: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {f"{path}/gamma": (dim,), f"{path}/beta": (dim,)}


def _stack(
    config: VideoMAEConfig, part: str, depth: int, dim: int, mlp_dim: int, heads: int
) -> dict[str, tuple[int, ...]]:
    block = {
        **_norm("norm1", dim),
        "attention/qkv/kernel": (dim, 3 * dim),
        "attention/projection/kernel": (dim, dim),
        "attention/projection/bias": (dim,),
        **_norm("norm2", dim),
        "mlp/hidden/kernel": (dim, mlp_dim),
        "mlp/hidden/bias": (mlp_dim,),
        "mlp/output/kernel": (mlp_dim, dim),
        "mlp/output/bias": (dim,),
    }
    if config.query_value_bias:
        block |= {"attention/q_bias": (dim,), "attention/v_bias": (dim,)}
    if config.cosine_attention:
        block["attention/log_scale"] = (heads, 1, 1)
    if config.layer_scale > 0:
        block |= {"scale1": (dim,), "scale2": (dim,)}
    return {
        f"{part}/block_{i}/{name}": shape for i in range(depth) for name, shape in block.items()
    }


def upstream_names(path: str, upstream: str, kind: str, pooling: str | None) -> tuple[str, ...]:
    """Return the names of the upstream tensors that, concatenated along axis 0, make up a weight, or ()."""
    column = _COLUMNS.index(upstream)
    block = re.fullmatch(r"(encoder|decoder)/block_(\d+)/(.+)", path)
    if block:
        part, index, inner = block.groups()
        columns = _BLOCK[inner]
        before, names = _BLOCKS[part][column], columns[column if column < len(columns) else 1]
        if before is None or names is None:
            return ()
        names = names if isinstance(names, tuple) else (names,)
        names = tuple(f"{before}{index}.{name}" for name in names)
    elif path.startswith("head/"):
        head = _HEAD[kind == "pretraining"][column]
        names = () if head is None else (f"{head}.{'weight' if path == 'head/kernel' else 'bias'}",)
    elif (path, upstream, pooling) == ("tubelet_embedding/positions", OFFICIAL, None):
        names = ()  # the official pretraining model has one row too many here, so it cannot run
    else:
        name = _COMMON[path][column]
        names = () if name is None else (name,)
    # Names in a classifier or a pooled encoder lack the prefix.
    prefix = "encoder." if pooling is None else ""
    return tuple(name.replace("{encoder}", prefix) for name in names)


def upstream_shape(
    path: str, shape: tuple[int, ...], config: VideoMAEConfig, upstream: str
) -> tuple[int, ...]:
    """Return the upstream shape of a weight, with all its tensors concatenated."""
    if path == "tubelet_embedding/kernel":
        sides = config.tubelet[1:] if upstream == VIT else config.tubelet
        return (config.dim, config.channels, *sides)
    if path == "tubelet_embedding/positions":
        return (1, *shape)
    return shape[::-1] if path.endswith("kernel") else shape


def from_upstream(path: str, tensor: np.ndarray) -> np.ndarray:
    """Convert upstream tensors, concatenated, to our weight."""
    if path == "tubelet_embedding/kernel":
        return np.moveaxis(tensor, (0, 1), (-1, -2)).reshape(-1, tensor.shape[0])
    if path == "tubelet_embedding/positions":
        return tensor[0]
    return tensor.T if path.endswith("kernel") else tensor


def to_upstream(path: str, weight: np.ndarray, config: VideoMAEConfig) -> np.ndarray:
    """Convert our weight to the upstream layout, the inverse of `from_upstream`."""
    if path == "tubelet_embedding/kernel":
        weight = weight.reshape(*config.tubelet, config.channels, config.dim)
        return np.ascontiguousarray(weight.transpose(4, 3, 0, 1, 2))
    if path == "tubelet_embedding/positions":
        return weight[None]
    return np.ascontiguousarray(weight.T) if path.endswith("kernel") else weight


def count(found: dict[str, tuple[int, ...]]) -> int:
    """Return the number of parameters in weights of these shapes."""
    return sum(math.prod(shape) for shape in found.values())
