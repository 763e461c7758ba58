"""Known deviations of the model's layers, decoder and classifier."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np

from spec import layers_reference as layers
from spec import reference
from spec.conformance.deviations import Deviation

# LayerNorm ---------------------------------------------------------------------------------------

NORMS = {
    "encoder/block_*": r"encoder/block_\d+/norm[12]",
    "encoder/norm": "encoder/norm",
    "decoder/block_*": r"decoder/block_\d+/norm[12]",
    "decoder/norm": "decoder/norm",
    "fc_norm": "fc_norm",
}
# 1e-12 is the default of Hugging Face's BERT-like models, 1e-5 torch's, and 1e-3 that of Keras's layer.
EPSILONS = ("1e-12", "1e-8", "1e-7", "1e-5", "1e-3")


def _norm(group: str, text: str, variant: Callable) -> Deviation:
    """Build a deviation of a group's LayerNorms from `variant(norm, x, weights, path, config)`."""

    def patch(norm: Callable) -> Callable:
        def deviating(x, weights, path, config):
            if re.fullmatch(NORMS[group], path):
                return variant(norm, x, weights, path, config)
            return norm(x, weights, path, config)

        return deviating

    return Deviation("BLOCK-2", f"{group}: {text}", "norm", patch, site=group, module=layers)


def _epsilon(group: str, value: str) -> Deviation:
    def variant(norm, x, weights, path, config):
        return norm(x, weights, path, dataclasses.replace(config, layer_norm_epsilon=float(value)))

    return _norm(group, f"epsilon {value} instead of 1e-6", variant)


def _left_out(norm, x, weights, path, config):
    return x


LAYER_NORM = [
    *(_epsilon(group, value) for group in NORMS for value in EPSILONS),
    *(_norm(group, "left out", _left_out) for group in NORMS),
]


# Blocks ------------------------------------------------------------------------------------------


def _zeroed(*names: str) -> Callable:
    """Set some weights below the path to 0 in a function of x, weights and path."""

    def patch(original: Callable) -> Callable:
        def deviating(x, weights, path, *rest, **named):
            zeros = {f"{path}/{name}": 0 * weights[f"{path}/{name}"] for name in names}
            return original(x, {**weights, **zeros}, path, *rest, **named)

        return deviating

    return patch


def _without_layer_scale(block: Callable) -> Callable:
    def deviating(x, weights, path, *rest, **named):
        kept = {k: v for k, v in weights.items() if not k.endswith(("/scale1", "/scale2"))}
        return block(x, kept, path, *rest, **named)

    return deviating


def _heads_first(queries_keys_values: Callable) -> Callable:
    """Order the kernel's columns by head, then q, k, v, instead of by q, k, v, then head."""

    def deviating(x, weights, path, heads):
        kernel = weights[f"{path}/qkv/kernel"]
        order = np.arange(kernel.shape[1]).reshape(heads, 3, -1).swapaxes(0, 1).reshape(-1)
        return queries_keys_values(
            x, {**weights, f"{path}/qkv/kernel": kernel[:, order]}, path, heads
        )

    return deviating


def _logits_times(factor: Callable[[int, int], float]) -> Callable:
    """Multiply the logits by a factor of the head's width and the number of heads."""

    def patch(queries_keys_values: Callable) -> Callable:
        def deviating(x, weights, path, heads):
            q, k, v = queries_keys_values(x, weights, path, heads)
            return q * factor(q.shape[-1], heads), k, v

        return deviating

    return patch


BLOCKS = [
    Deviation(
        "BLOCK-5",
        "tanh GELU",
        "gelu",
        lambda gelu: (
            lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        ),
        site="gelu",
        module=layers,
    ),
    Deviation(
        "BLOCK-5",
        "GELU as x sigmoid(1.702 x)",
        "gelu",
        lambda gelu: lambda x: x / 2 * (1 + np.tanh(0.851 * x)),
        site="gelu",
        module=layers,
    ),
    Deviation(
        "BLOCK-3",
        "no biases of queries and values",
        "attention",
        _zeroed("q_bias", "v_bias"),
        module=layers,
    ),
    Deviation("BLOCK-3", "no bias of queries", "attention", _zeroed("q_bias"), module=layers),
    Deviation("BLOCK-3", "no bias of values", "attention", _zeroed("v_bias"), module=layers),
    Deviation(
        "BLOCK-3", "q, k, v within each head", "queries_keys_values", _heads_first, module=layers
    ),
    Deviation(
        "BLOCK-4",
        "logits scaled by the whole width",
        "queries_keys_values",
        _logits_times(lambda width, heads: heads**-0.5),
        site="scale",
        module=layers,
    ),
    Deviation(
        "BLOCK-4",
        "logits not scaled",
        "queries_keys_values",
        _logits_times(lambda width, heads: width**0.5),
        site="scale",
        module=layers,
    ),
    Deviation("BLOCK-6", "no layer scale", "block", _without_layer_scale, module=layers),
]


# Decoder and classifier --------------------------------------------------------------------------


def _unshuffled(forward: Callable) -> Callable:
    """Sort all tokens by their ids, and read the last M."""

    def deviating(config, weights, batch, *, named=False, **keep):
        out = forward(config, weights, batch, named=True, **keep)
        ids = np.concatenate([batch["visible"], batch["decoded"]], axis=1)
        ids = np.pad(ids, ((0, 0), (int(config.class_token), 0)), constant_values=-1)
        last = np.argsort(ids, axis=1, kind="stable")[:, -batch["decoded"].shape[1] :]
        x = reference.take(out[f"decoder/block_{config.decoder_depth - 1}"], last)
        weights = layers.in_float64(weights)
        x = layers.norm(x, weights, "decoder/norm", config)
        out["predictions"] = x @ weights["head/kernel"] + weights["head/bias"]
        return out if named else out["predictions"]

    return deviating


def _normalised_tokens(classify: Callable) -> Callable:
    def deviating(config, weights, video, *, pooling="mean", named=False):
        out = classify(config, weights, video, pooling=pooling, named=True)
        if pooling == "mean":
            weights = layers.in_float64(weights)
            x = layers.norm(out[f"encoder/block_{config.depth - 1}"], weights, "fc_norm", config)
            x = x[:, int(config.class_token) :].mean(1)
            out["logits"] = x @ weights["head/kernel"] + weights["head/bias"]
        return out if named else out["logits"]

    return deviating


def _pooling_every_token(classify: Callable) -> Callable:
    def deviating(config, weights, video, *, pooling="mean", named=False):
        out = classify(config, weights, video, pooling=pooling, named=True)
        if pooling == "mean":
            weights = layers.in_float64(weights)
            x = out[f"encoder/block_{config.depth - 1}"].mean(1)
            x = layers.norm(x, weights, "fc_norm", config)
            out["logits"] = x @ weights["head/kernel"] + weights["head/bias"]
        return out if named else out["logits"]

    return deviating


OUTPUT = [
    Deviation("DEC-1", "tokens are unshuffled before the last M are read", "forward", _unshuffled),
    Deviation("FT-1", "tokens normalised before their mean", "classify", _normalised_tokens),
    Deviation("IMAGE-3", "the class token is in the mean", "classify", _pooling_every_token),
]
