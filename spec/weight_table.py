"""`weights.toml` expanded for a model: every weight, its upstream tensors, the way from them to ours."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TABLE = tomllib.loads(Path(__file__).with_name("weights.toml").read_text("utf-8"))
MODELS = ("pretraining", "classifier mean", "classifier first")
UPSTREAMS = ("official", "official_classifier", "huggingface", "mmaction2", "vit")


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight of a model: ours, and the tensors that upstreams keep it in."""

    path: str
    shape: tuple[int, ...]
    layout: str
    upstream_shape: tuple[
        int, ...
    ]  # of its tensors together, concatenated along axis 0; but see `shape_in`
    names: Mapping[str, tuple[str, ...]]  # upstream -> its tensors

    def tensors(self, upstream: str) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the tensors that an upstream keeps the weight in; {} if in none."""
        names = self.names.get(upstream, ())
        first, *rest = self.shape_in(upstream)
        return {name: (first // len(names), *rest) for name in names}

    def shape_in(self, upstream: str) -> tuple[int, ...]:
        """Return the shape of an upstream's joined tensors: image models' convolution has no time axis."""
        if upstream == "vit" and self.layout == "conv3d":
            return *self.upstream_shape[:2], *self.upstream_shape[3:]
        return self.upstream_shape

    def from_upstream(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """The tensors of one upstream, in the order of `names` -> ours. WEIGHT-2, EMBED-1."""
        tensor = np.concatenate(tensors)
        match self.layout:
            case "same":
                return tensor
            case "transpose":
                return tensor.T
            case "conv3d":
                return np.moveaxis(tensor, (0, 1), (-1, -2)).reshape(self.shape)
            case "positions":
                return tensor[0]
        raise ValueError(f"`layout` must be one of weights.toml's. Received: {self.layout!r}.")


def expand(config: Any, model: str, classes: int | None = None) -> dict[str, Weight]:
    """Every weight of a model by its path; `classes` is the number of a classifier's classes."""
    if model not in MODELS:
        raise ValueError(f"`model` must be one of {', '.join(MODELS)}. Received: {model!r}.")
    letters = {
        "P": math.prod(config.tubelet) * config.channels,
        "D": config.dim,
        "Dd": config.decoder_dim,
        "N": math.prod(config.grid) + config.class_token,
        "K": classes,
    }
    options = {
        None: True,
        "layer_scale": config.layer_scale > 0,
        "cosine_attention": config.cosine_attention,
        "query_value_bias": config.query_value_bias,
        "learned_positions": config.learned_positions,
        "class_token": config.class_token,
        "bridge_bias": config.bridge_bias,
        "encoder_norm": config.encoder_norm or model != "pretraining",
    }
    whole = dict.fromkeys(UPSTREAMS, "")  # these names have no {blocks}
    weights = {}
    for entry in TABLE["weight"]:
        if not options[entry.get("needs")]:
            continue
        if "{part}" in entry["path"]:
            weights |= _block_weights(config, model, entry)
        elif model in entry["models"]:
            weights[entry["path"]] = _weight(config, entry, entry["path"], letters, whole)
    return weights


def huggingface_memory_name(name: str) -> str:
    """The state dict's name of a tensor in a file; transformers 5."""
    for stored, held in TABLE["huggingface_memory"].items():
        name = name.replace(stored, held)
    return name


def _block_weights(config: Any, model: str, entry: dict) -> dict[str, Weight]:
    """The entry's weight in each block of each part of the model."""
    weights = {}
    for part, about in TABLE["part"].items():
        if model not in about["models"]:
            continue
        width = getattr(config, about["width"])
        sizes = {
            "width": width,
            "3 width": 3 * width,
            "mlp": getattr(config, about["mlp"]),
            "heads": getattr(config, about["heads"]),
        }
        for i in range(getattr(config, about["depth"])):
            path = entry["path"].format(part=part, i=i)
            blocks = {name: about[name].format(i=i) for name in UPSTREAMS if name in about}
            weights[path] = _weight(config, entry, path, sizes, blocks)
    return weights


def _weight(config: Any, entry: dict, path: str, sizes: dict, blocks: dict[str, str]) -> Weight:
    """`sizes`: what the letters of the shape mean; `blocks`: what {blocks} is, by upstream."""
    shape = tuple(sizes.get(letter, letter) for letter in entry["shape"])
    upstream_shape = shape[::-1] if entry["layout"] == "transpose" else shape
    if entry["layout"] == "conv3d":
        upstream_shape = (config.dim, config.channels, *config.tubelet)
    if entry["layout"] == "positions":
        upstream_shape = (1, *shape)
    names = {}
    for upstream in blocks.keys() & entry.keys():
        listed = entry[upstream] if isinstance(entry[upstream], list) else [entry[upstream]]
        names[upstream] = tuple(name.format(blocks=blocks[upstream]) for name in listed)
    return Weight(path, shape, entry["layout"], upstream_shape, names)
