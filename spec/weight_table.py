"""The weights of a model and their upstream tensors, expanded from `weights.toml`."""

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
    """One weight of a model and the upstream tensors that store it."""

    path: str
    shape: tuple[int, ...]
    layout: str
    # Shape of the tensors concatenated along axis 0; for image models see `shape_in`.
    upstream_shape: tuple[int, ...]
    names: Mapping[str, tuple[str, ...]]  # upstream -> its tensors

    def tensors(self, upstream: str) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of the upstream tensors that store the weight; {} if there are none."""
        names = self.names.get(upstream, ())
        first, *rest = self.shape_in(upstream)
        return {name: (first // len(names), *rest) for name in names}

    def shape_in(self, upstream: str) -> tuple[int, ...]:
        """Return the shape of an upstream's tensors together.

        The convolution of image models has no time axis.
        """
        if upstream == "vit" and self.layout == "conv3d":
            return *self.upstream_shape[:2], *self.upstream_shape[3:]
        return self.upstream_shape

    def from_upstream(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """Convert the tensors of one upstream, in the order of `names`, to ours. WEIGHT-2, EMBED-1."""
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
    """Return every weight of a model by its path; `classes` is needed for a classifier only."""
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
    """Return the name in the state dict of transformers 5 for a tensor's name in a file."""
    for stored, held in TABLE["huggingface_memory"].items():
        name = name.replace(stored, held)
    return name


def _block_weights(config: Any, model: str, entry: dict) -> dict[str, Weight]:
    """Return the entry's weight in each block of each part of the model."""
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
    """Build one weight from its entry.

    Args:
        config: Configuration of the model.
        entry: Entry of `weights.toml`.
        path: Path of the weight.
        sizes: Size for each letter in the entry's shape.
        blocks: Value of {blocks} for each upstream.
    """
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
