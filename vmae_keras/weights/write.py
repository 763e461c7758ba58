"""Writers of model weights for other implementations. Clauses WEIGHT-3, WEIGHT-5, WEIGHT-7."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vmae_keras.config import IMAGENET_MEAN, IMAGENET_STD, VideoMAEConfig
from vmae_keras.process.files import write_json
from vmae_keras.weights import names
from vmae_keras.weights.stored_model import Stored
from vmae_keras.weights.tensor_files import WeightsError, write_safetensors
from vmae_keras.weights.torch_files import write_torch

_ARCHITECTURES = {
    "pretraining": "VideoMAEForPreTraining",
    "classifier": "VideoMAEForVideoClassification",
    "encoder": "VideoMAEModel",
}
_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh", "hard_swish": "hardswish"}  # transformers' names


def write_official(stored: Stored, path: Path) -> list[str]:
    """Write a `.pth` in the format of V1 and V2: {"model": tensors}.

    Returns notes to the user on properties that the file cannot store.

    Raises:
        WeightsError: The official code cannot represent the model.
    """
    c = stored.config
    _refuse(
        stored,
        "The official models",
        {
            **_of_images(c),
            f"activation={c.activation!r}": c.activation != "gelu",
            "encoder_norm=False": stored.kind == "pretraining" and not c.encoder_norm,
            "learned_positions=True": stored.pooling is None and c.learned_positions,
            f"position_grid={c.position_grid}": c.position_grid not in (None, c.grid),
        },
    )
    notes = []
    if (c.frames, c.height, c.width) != (16, 224, 224):
        notes.append(f"clips of {c.frames} x {c.height} x {c.width}: pass them when you load it")
    epsilons = {c.layer_norm_epsilon, c.last_norm_epsilon or c.layer_norm_epsilon}
    if epsilons != {1e-6}:
        notes.append(f"epsilons of {_all(epsilons)}: the official models compute with 1e-06")
    if (c.mean, c.std) != (IMAGENET_MEAN, IMAGENET_STD):
        notes.append(f"mean {c.mean} and std {c.std}: the official ones are ImageNet's")
    if stored.labels:
        notes.append("the names of the classes")
    write_torch(path, _tensors(stored, names.OFFICIAL, "The official models"))
    return notes


def write_hugging_face(stored: Stored, folder: Path) -> list[str]:
    """Write a folder for transformers: config.json, preprocessor_config.json, model.safetensors.

    Returns notes to the user on what transformers does differently.

    Raises:
        WeightsError: transformers cannot represent the model.
    """
    c, whose = stored.config, "The models of transformers"
    _refuse(
        stored,
        whose,
        {
            **_of_images(c),
            "layer scales": c.layer_scale > 0,
            "cosine_attention=True": c.cosine_attention,
            "learned_positions=True": c.learned_positions,
            f"position_grid={c.position_grid}": c.position_grid not in (None, c.grid),
            f"tubelet={c.tubelet}, not square": c.tubelet[1] != c.tubelet[2],
            "an encoder with fc_norm": (stored.kind, stored.pooling) == ("encoder", "mean"),
        },
    )
    notes = []
    if (c.last_norm_epsilon or c.layer_norm_epsilon) != 1e-5 and stored.kind != "encoder":
        norm = "decoder.norm" if stored.kind == "pretraining" else "fc_norm"
        notes.append(
            f"epsilon {c.last_norm_epsilon or c.layer_norm_epsilon:g} of {norm}: transformers computes "
            "with 1e-05"
        )
    undone = (
        (IMAGENET_MEAN, IMAGENET_STD)
        if c.channels == 3
        else ((0.0,) * c.channels, (1.0,) * c.channels)
    )
    if stored.kind == "pretraining" and (c.mean, c.std) != undone:
        notes.append(f"mean {c.mean} and std {c.std}: its loss undoes {undone[0]} and {undone[1]}")
    tensors = _tensors(stored, names.HUGGING_FACE, whose)
    if stored.kind == "encoder":
        tensors = {name.removeprefix("videomae."): value for name, value in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)  # written last, when the rest is complete
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    write_json(folder / "preprocessor_config.json", _preprocessing(c))
    write_json(folder / "config.json", _settings(stored))
    return notes


def _tensors(stored: Stored, upstream: str, whose: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    nameless = []
    for path, tensor in stored.tensors.items():
        wanted = names.upstream_names(path, upstream, stored.kind, stored.pooling)
        if not wanted:
            nameless.append(path)
            continue
        value = names.to_upstream(path, tensor.read(), stored.config)
        found |= dict(zip(wanted, np.split(value, len(wanted)), strict=True))
    if nameless:
        raise WeightsError(f"{whose} have no such weights. Received: {', '.join(nameless)}.")
    return found


def _of_images(c: VideoMAEConfig) -> dict[str, bool]:
    """Return the options that only image models have, so no VideoMAE format supports them."""
    names = ("class_token", "planar_positions", "bridge_bias", "mae_target")
    return {f"{name}=True": getattr(c, name) for name in names}


def _refuse(stored: Stored, whose: str, options: dict[str, bool]) -> None:
    if refused := [name for name, present in options.items() if present]:
        raise WeightsError(
            f"{whose} cannot be this one. Received: {', '.join(refused)}, in {stored.source}."
        )


def _settings(stored: Stored) -> dict[str, Any]:
    c = stored.config
    settings: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[stored.kind]],
        "model_type": "videomae",
        "image_size": c.height if c.height == c.width else [c.height, c.width],
        "patch_size": c.tubelet[1],
        "num_channels": c.channels,
        "num_frames": c.frames,
        "tubelet_size": c.tubelet[0],
        "hidden_size": c.dim,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "intermediate_size": c.mlp_dim,
        "hidden_act": _ACTIVATIONS.get(c.activation, c.activation),
        "layer_norm_eps": c.layer_norm_epsilon,
        "qkv_bias": c.query_value_bias,
        "use_mean_pooling": stored.pooling == "mean"
        if stored.kind == "classifier"
        else not c.encoder_norm,
        "decoder_hidden_size": c.decoder_dim,
        "decoder_num_hidden_layers": c.decoder_depth,
        "decoder_num_attention_heads": c.decoder_heads,
        "decoder_intermediate_size": c.decoder_mlp_dim,
        "norm_pix_loss": c.norm_pix,
        "dtype": "float32",
    }
    if stored.kind == "classifier":
        labels = stored.labels or [f"LABEL_{i}" for i in range(stored.classes or 0)]
        settings["id2label"] = {str(i): label for i, label in enumerate(labels)}
        settings["label2id"] = {label: i for i, label in enumerate(labels)}
    return settings


def _preprocessing(c: VideoMAEConfig) -> dict[str, Any]:
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": min(c.height, c.width)},
        "resample": 2,  # bilinear
        "do_center_crop": True,
        "crop_size": {"height": c.height, "width": c.width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": c.mean,
        "image_std": c.std,
    }


def _all(values: Iterable[float]) -> str:
    return " and ".join(f"{value:g}" for value in sorted(values))
