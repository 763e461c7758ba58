"""Small random files of weights as other implementations write them, made from spec/weights.toml alone."""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from spec.config import Config
from spec.weight_table import expand


def small(**changes) -> Config:
    """16 x 224 x 224 clips, which a file that says nothing is taken for, and little else."""
    sizes = dict(
        dim=8, depth=2, heads=2, mlp_dim=12,
        decoder_dim=6, decoder_depth=2, decoder_heads=2, decoder_mlp_dim=10,
    )  # fmt: skip
    return Config(**{**sizes, **changes})


def tensors(config, model, upstream, classes=5, seed=0):
    """-> (an upstream's name: float32 array, our path: the weight that it must become).

    Args:
        model: "pretraining", "classifier mean" or "classifier first".
        upstream: "official", "official_classifier", "huggingface" or "mmaction2".
    """
    generator = np.random.default_rng(seed)
    stored, expected = {}, {}
    for path, weight in expand(config, model, classes).items():
        shapes = weight.tensors(upstream)
        values = {
            name: generator.normal(size=shape).astype("float32") for name, shape in shapes.items()
        }
        if values:
            stored |= values
            expected[path] = weight.from_upstream(list(values.values()))
    return stored, expected


def without(start, *dicts):
    """Each dict without the entries whose names begin so."""
    return [
        {name: value for name, value in one.items() if not name.startswith(start)} for one in dicts
    ]


def write(path: Path, stored, settings=None, preprocessing=None) -> Path:
    """Writes safetensors, and the JSON files that lie beside them; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = {"config.json": settings, "preprocessor_config.json": preprocessing}
    for name, values in beside.items():
        if values is not None:
            (path.parent / name).write_text(json.dumps(values))
    save_file({name: np.asarray(value, order="C") for name, value in stored.items()}, path)
    return path


def write_torch(path: Path, stored, container="model", **arguments) -> Path:
    """Writes a training checkpoint of torch, `arguments` as its Namespace; returns the path."""
    import torch

    values = {name: torch.from_numpy(value) for name, value in stored.items()}
    others = {"epoch": 3, "args": argparse.Namespace(**arguments)}
    torch.save({container: values, **others}, path)
    return path


def hugging_face_settings(config, **changes):
    """A `config.json` with the field names of transformers."""
    return {
        "model_type": "videomae",
        "image_size": [config.height, config.width],
        "patch_size": config.tubelet[1],
        "num_channels": config.channels,
        "num_frames": config.frames,
        "tubelet_size": config.tubelet[0],
        "hidden_size": config.dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_dim,
        "hidden_act": config.activation,
        "layer_norm_eps": config.layer_norm_epsilon,
        "qkv_bias": config.query_value_bias,
        "decoder_hidden_size": config.decoder_dim,
        "decoder_num_hidden_layers": config.decoder_depth,
        "decoder_num_attention_heads": config.decoder_heads,
        "decoder_intermediate_size": config.decoder_mlp_dim,
        "norm_pix_loss": config.norm_pix,
        **changes,
    }
