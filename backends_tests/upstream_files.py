"""Small random weight files as other implementations write them, derived from spec/weights.toml."""

import argparse
import json
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import save_file

from spec.config import Config
from spec.weight_table import expand


def small(**changes) -> Config:
    """Return a small configuration for 16 x 224 x 224 clips, the default for a file without settings."""
    sizes = dict(
        dim=8,
        depth=2,
        heads=2,
        mlp_dim=12,
        decoder_dim=6,
        decoder_depth=2,
        decoder_heads=2,
        decoder_mlp_dim=10,
    )
    return Config(**{**sizes, **changes})


def tensors(config, model, upstream, classes=5, seed=0):
    """Return ({upstream name: float32 array}, {our path: expected weight}).

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
    """Return each dict without the entries whose names have this prefix."""
    return [
        {name: value for name, value in one.items() if not name.startswith(start)} for one in dicts
    ]


def write(path: Path, stored, settings=None, preprocessing=None) -> Path:
    """Write safetensors and the accompanying JSON files; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = {"config.json": settings, "preprocessor_config.json": preprocessing}
    for name, values in beside.items():
        if values is not None:
            (path.parent / name).write_text(json.dumps(values))
    save_file({name: np.asarray(value, order="C") for name, value in stored.items()}, path)
    return path


def write_torch(path: Path, stored, container="model", **arguments) -> Path:
    """Write a training checkpoint of torch with `arguments` as its Namespace; return the path."""
    import torch

    values = {name: torch.from_numpy(value) for name, value in stored.items()}
    others = {"epoch": 3, "args": argparse.Namespace(**arguments)}
    torch.save({container: values, **others}, path)
    return path


def hugging_face_settings(config, **changes):
    """Return a `config.json` with the field names of transformers."""
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


def keras_file(
    path: Path,
    written,
    model="pretraining",
    form="folder",
    *,
    replace=None,
    settings=None,
    change=None,
    kept=None,
    compression=zipfile.ZIP_STORED,
    **arguments,
):
    """Write a preset folder or a `.keras` archive by hand; return its path and its weights by our paths.

    Args:
        written: Configuration of the weights.
        model: "pretraining", "classifier mean" or "classifier first".
        replace: Settings that replace those of our class.
        settings: Text of config.json.
        change: Function that modifies the open HDF5 file.
        kept: Bytes, or share, of the HDF5 file to keep.
        arguments: Arguments of the class, added to the right ones or in place of them.
    """
    generator = np.random.default_rng(0)
    weights = {
        name: generator.normal(size=weight.shape).astype("float32")
        for name, weight in expand(written, model, 5).items()
    }
    folder = path if form == "folder" else path.with_name(f"{path.name} unpacked")
    folder.mkdir()
    file = folder / "model.weights.h5"
    with h5py.File(file, "w") as content:
        counts: dict[str, int] = {}
        for name, value in weights.items():
            layer = name.rpartition("/")[0]
            number = counts[layer] = counts.get(layer, -1) + 1
            place = layer.replace("/block_0", "/block").replace("/block", "/blocks/block")
            place = place.replace("mlp/output", "mlp/output_")
            if place == "tubelet_embedding":
                place = "layers/tubelet_embedding"
            content[f"{place}/vars/{number}"] = value
        if change:
            change(content)
    if kept is not None:
        whole = file.read_bytes()
        file.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    kind, _, pooling = model.partition(" ")
    name = {"pretraining": "VideoMAE", "classifier": "VideoClassifier"}[kind]
    right = {"name": "a_model", "config": written.to_dict()}
    if pooling:
        right |= {"classes": 5, "labels": None, "pooling": pooling, "head_dropout": 0.0}
    ours = {"class_name": name, "registered_name": f"vmae_keras>{name}"}
    values = {**ours, "config": {**right, **arguments}} if replace is None else replace
    text = json.dumps(values).encode() if settings is None else settings
    (folder / "config.json").write_bytes(text)
    if form == "archive":
        with zipfile.ZipFile(path, "w", compression) as archive:
            for part in ("config.json", "model.weights.h5"):
                archive.write(folder / part, part)
        shutil.rmtree(folder)
    return path, weights
