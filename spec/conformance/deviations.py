"""Known deviations of implementations in this field, each as a patch of the oracle.

A deviation replaces one of the oracle's functions by a variant of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

import numpy as np

from spec import reference, training_reference


@dataclasses.dataclass(frozen=True, eq=False)
class Deviation:
    """A departure from a clause.

    Args:
        clause, text: from which one, and what is done instead.
        function: of the oracle; its name.
        patch: the original function -> the deviating one.
        site: deviations of one site exclude each other.
    """

    clause: str
    text: str
    function: str
    patch: Callable[[Callable], Callable]
    site: str = ""
    module: ModuleType = reference

    def excludes(self, other: Deviation) -> bool:
        return self is other or (self.site != "" and self.site == other.site)

    def __str__(self) -> str:
        return f"{self.text} ({self.clause})"


@contextlib.contextmanager
def applied(deviations: Iterable[Deviation]) -> Iterator[None]:
    """Within it the oracle deviates."""
    with contextlib.ExitStack() as originals:
        for each in deviations:
            original = getattr(each.module, each.function)
            originals.callback(setattr, each.module, each.function, original)
            setattr(each.module, each.function, each.patch(original))
        yield


# LayerNorm ---------------------------------------------------------------------------------------

NORMS = {
    "encoder/block_*": r"encoder/block_\d+/norm[12]",
    "encoder/norm": "encoder/norm",
    "decoder/block_*": r"decoder/block_\d+/norm[12]",
    "decoder/norm": "decoder/norm",
    "fc_norm": "fc_norm",
}
# 1e-12 is the default of Hugging Face's models after BERT, 1e-5 torch's, 1e-3 that of Keras's layer.
EPSILONS = ("1e-12", "1e-8", "1e-7", "1e-5", "1e-3")


def _norm(group: str, text: str, variant: Callable) -> Deviation:
    """`variant(norm, x, weights, path, config)` for the LayerNorms of a group."""

    def patch(norm: Callable) -> Callable:
        def deviating(x, weights, path, config):
            if re.fullmatch(NORMS[group], path):
                return variant(norm, x, weights, path, config)
            return norm(x, weights, path, config)

        return deviating

    return Deviation("BLOCK-2", f"{group}: {text}", "norm", patch, site=group)


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


# Input, tubelets, positions ----------------------------------------------------------------------


def _configured(function: str, clause: str, text: str, **fields) -> Deviation:
    """A function that takes the configuration first, as if that were another."""

    def patch(original: Callable) -> Callable:
        return lambda config, *rest, **named: original(
            dataclasses.replace(config, **{k: v(config) for k, v in fields.items()}), *rest, **named
        )

    return Deviation(clause, text, function, patch, site=function)


def _channel_slowest(tokens: np.ndarray, channels: int) -> np.ndarray:
    """(B, K, P): values by channel, p0, p1, p2."""
    return tokens.reshape(*tokens.shape[:2], -1, channels).swapaxes(2, 3).reshape(tokens.shape)


def _columns_before_rows(tubelets: Callable) -> Callable:
    def deviating(video, tubelet):
        t, h, w = (size // part for size, part in zip(video.shape[1:4], tubelet, strict=True))
        order = np.arange(t * h * w).reshape(t, h, w).swapaxes(1, 2).reshape(-1)
        return tubelets(video, tubelet)[:, order]

    return deviating


def _halves(sinusoid: Callable) -> Callable:
    def deviating(count, dim):
        table = sinusoid(count, dim)
        return np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)

    return deviating


def _without_positions(of: str) -> Callable:
    """Zeros for the tables of one width."""

    def patch(forward: Callable) -> Callable:
        def deviating(config, *rest, **named):
            def blank(sinusoid):
                return lambda count, dim: sinusoid(count, dim) * (dim != getattr(config, of))

            with applied([Deviation("", "", "sinusoid_positions", blank)]):
                return forward(config, *rest, **named)

        return deviating

    return patch


INPUT = [
    _configured(
        "encoder_tubelets",
        "INPUT-2",
        "mean and std of .5 instead of ImageNet's",
        mean=lambda config: (0.5,) * config.channels,
        std=lambda config: (0.5,) * config.channels,
    ),
    _configured(
        "encoder_tubelets",
        "INPUT-2",
        "the encoder sees pixels in [0, 1]",
        mean=lambda config: (0.0,) * config.channels,
        std=lambda config: (1.0,) * config.channels,
    ),
    Deviation("TUBE-1", "token ids run over rows before columns", "tubelets", _columns_before_rows),
    Deviation(
        "TUBE-2",
        "the embedding reads tubelets with the channel slowest",
        "encoder_tubelets",
        lambda read: lambda config, *rest: _channel_slowest(read(config, *rest), config.channels),
    ),
    Deviation(
        "TUBE-2",
        "the target has tubelets with the channel slowest",
        "target",
        lambda target: (
            lambda config, *rest: _channel_slowest(target(config, *rest), config.channels)
        ),
    ),
    Deviation(
        "POS-1", "sines in the first half, cosines in the second", "sinusoid_positions", _halves
    ),
    Deviation(
        "POS-1",
        "positions counted from 1",
        "sinusoid_positions",
        lambda sinusoid: lambda count, dim: sinusoid(count + 1, dim)[1:],
    ),
    Deviation("EMBED-2", "no positions in the encoder", "forward", _without_positions("dim")),
    Deviation("DEC-1", "no positions in the decoder", "forward", _without_positions("decoder_dim")),
]


# Blocks ------------------------------------------------------------------------------------------


def _zeroed(*names: str) -> Callable:
    """A function that takes x, the weights and a path: some weights below the path are 0."""

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
    """The kernel's columns are each head's q, k, v, not all heads' q, then k, then v."""

    def deviating(x, weights, path, heads):
        kernel = weights[f"{path}/qkv/kernel"]
        order = np.arange(kernel.shape[1]).reshape(heads, 3, -1).swapaxes(0, 1).reshape(-1)
        return queries_keys_values(
            x, {**weights, f"{path}/qkv/kernel": kernel[:, order]}, path, heads
        )

    return deviating


def _logits_times(factor: Callable[[int, int], float]) -> Callable:
    """Return the deviation that multiplies logits by `factor(width of a head, number of heads)`."""

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
    ),
    Deviation(
        "BLOCK-5",
        "GELU as x sigmoid(1.702 x)",
        "gelu",
        lambda gelu: lambda x: x / 2 * (1 + np.tanh(0.851 * x)),
        site="gelu",
    ),
    Deviation(
        "BLOCK-3", "no biases of queries and values", "attention", _zeroed("q_bias", "v_bias")
    ),
    Deviation("BLOCK-3", "no bias of queries", "attention", _zeroed("q_bias")),
    Deviation("BLOCK-3", "no bias of values", "attention", _zeroed("v_bias")),
    Deviation("BLOCK-3", "q, k, v within each head", "queries_keys_values", _heads_first),
    Deviation(
        "BLOCK-4",
        "logits scaled by the whole width",
        "queries_keys_values",
        _logits_times(lambda width, heads: heads**-0.5),
        site="scale",
    ),
    Deviation(
        "BLOCK-4",
        "logits not scaled",
        "queries_keys_values",
        _logits_times(lambda width, heads: width**0.5),
        site="scale",
    ),
    Deviation("BLOCK-6", "no layer scale", "block", _without_layer_scale),
]


# Decoder, target, loss, classifier ---------------------------------------------------------------


def _unshuffled(forward: Callable) -> Callable:
    """All tokens in the order of their ids, and of these the last M."""

    def deviating(config, weights, batch, *, named=False, **keep):
        out = forward(config, weights, batch, named=True, **keep)
        ids = np.concatenate([batch["visible"], batch["decoded"]], axis=1)
        ids = np.pad(ids, ((0, 0), (int(config.class_token), 0)), constant_values=-1)
        last = np.argsort(ids, axis=1, kind="stable")[:, -batch["decoded"].shape[1] :]
        x = reference.take(out[f"decoder/block_{config.decoder_depth - 1}"], last)
        weights = reference.in_float64(weights)
        x = reference.norm(x, weights, "decoder/norm", config)
        out["predictions"] = x @ weights["head/kernel"] + weights["head/bias"]
        return out if named else out["predictions"]

    return deviating


def _biased(statistics: Callable) -> Callable:
    def deviating(config, *rest):
        mean, variance = statistics(config, *rest)
        pixels = math.prod(config.tubelet) * (config.channels if config.mae_target else 1)
        return mean, variance * (pixels - 1) / pixels

    return deviating


def _jointly(statistics: Callable) -> Callable:
    """Over all P values, as mae_st does."""

    def deviating(config, video, ids):
        raw = dataclasses.replace(config, norm_pix=False)
        pixels = reference.target(raw, video, ids)[..., None, None]  # (B, K, P, 1, 1)
        return pixels.mean(2), pixels.var(2, ddof=1)

    return deviating


def _epsilon_inside(target: Callable) -> Callable:
    def deviating(config, video, decoded):
        expected = target(config, video, decoded)
        if not config.norm_pix or config.mae_target:  # MAE's lies there
            return expected
        _, variance = reference.statistics(config, video, decoded)
        pixels = expected.reshape(*variance.shape[:2], -1, config.channels)
        return (pixels * (np.sqrt(variance) + 1e-6) / np.sqrt(variance + 1e-6)).reshape(
            expected.shape
        )

    return deviating


def _per_token(predictions: np.ndarray, target: np.ndarray) -> np.ndarray:
    return ((predictions - target) ** 2).mean(-1)


def _of_each_clip(loss: Callable) -> Callable:
    def deviating(predictions, target, weight=None):
        every = np.ones(predictions.shape[:2]) if weight is None else weight
        clips = zip(predictions, target, every, strict=True)
        return np.mean([loss(*(each[None] for each in clip)) for clip in clips])

    return deviating


def _normalised_tokens(classify: Callable) -> Callable:
    def deviating(config, weights, video, *, pooling="mean", named=False):
        out = classify(config, weights, video, pooling=pooling, named=True)
        if pooling == "mean":
            weights = reference.in_float64(weights)
            x = reference.norm(out[f"encoder/block_{config.depth - 1}"], weights, "fc_norm", config)
            x = x[:, int(config.class_token) :].mean(1)
            out["logits"] = x @ weights["head/kernel"] + weights["head/bias"]
        return out if named else out["logits"]

    return deviating


def _pooling_every_token(classify: Callable) -> Callable:
    def deviating(config, weights, video, *, pooling="mean", named=False):
        out = classify(config, weights, video, pooling=pooling, named=True)
        if pooling == "mean":
            weights = reference.in_float64(weights)
            x = out[f"encoder/block_{config.depth - 1}"].mean(1)
            x = reference.norm(x, weights, "fc_norm", config)
            out["logits"] = x @ weights["head/kernel"] + weights["head/bias"]
        return out if named else out["logits"]

    return deviating


def _row_first(planar_positions: Callable) -> Callable:
    def deviating(height, width, dim):
        across, down = np.split(planar_positions(height, width, dim), 2, axis=1)
        return np.concatenate([down, across], axis=1)

    return deviating


REST = [
    Deviation("DEC-1", "tokens are unshuffled before the last M are read", "forward", _unshuffled),
    _configured("target", "TARGET-2", "pixels not normalised", norm_pix=lambda config: False),
    Deviation("TARGET-2", "biased variance", "statistics", _biased, site="statistics"),
    Deviation(
        "TARGET-2",
        "normalised over all channels at once",
        "statistics",
        _jointly,
        site="statistics",
    ),
    Deviation("TARGET-2", "epsilon inside the root", "target", _epsilon_inside),
    Deviation(
        "TARGET-1",
        "pixels after mean and std",
        "_pixels",
        lambda pixels: (
            lambda config, *rest: (
                (pixels(config, *rest) - np.asarray(config.mean)) / np.asarray(config.std)
            )
        ),
    ),
    Deviation(
        "LOSS-2",
        "divided by the number of decoded tokens",
        "loss",
        lambda loss: (
            lambda predictions, target, weight=None: np.mean(
                _per_token(predictions, target) * (1 if weight is None else weight)
            )
        ),
        site="loss",
    ),
    Deviation(
        "LOSS-2",
        "visible tokens count too",
        "loss",
        lambda loss: lambda predictions, target, weight=None: loss(predictions, target),
        site="loss",
    ),
    Deviation("LOSS-2", "mean of the clips' losses", "loss", _of_each_clip, site="loss"),
    Deviation("FT-1", "tokens normalised before their mean", "classify", _normalised_tokens),
    Deviation("IMAGE-3", "the class token is in the mean", "classify", _pooling_every_token),
    Deviation("IMAGE-4", "the row's half first", "planar_positions", _row_first),
    _configured(
        "_pixels", "IMAGE-6", "MAE's target of pixels in [0, 1]", mae_target=lambda config: False
    ),
]


# Optimiser ---------------------------------------------------------------------------------------

OPTIMISER = [
    Deviation(
        "OPT-2",
        "every weight decays",
        "decayed",
        lambda decayed: lambda name, shape: True,
        module=training_reference,
        site="decay",
    ),
    Deviation(
        "OPT-2",
        "no weight decays",
        "decayed",
        lambda decayed: lambda name, shape: False,
        module=training_reference,
        site="decay",
    ),
]

FORWARD = [*LAYER_NORM, *INPUT, *BLOCKS, *REST]
