"""Models for comparisons of the library with the oracle: four that cover every option, and drawn ones."""

from unittest import mock

import numpy as np
from hypothesis import assume, reject
from hypothesis import strategies as st

from backends_tests.support import SEED_SHIFT
from spec import layers_reference as layers
from spec import reference
from spec.config import Config
from spec.conformance.cases import Case, ClassifierCase, floating, half, noise

VIDEOS = (noise, floating, half)
KINKS = {"relu": (0,), "leaky_relu": (0,), "relu6": (0, 6), "hard_swish": (-3, 3)}
ACTIVATIONS = (
    "gelu",
    "gelu_tanh",
    "quick_gelu",
    "relu2",
    "silu",
    "mish",
    "sigmoid",
    "tanh",
    "linear",
    *KINKS,
)

# Four models, one per column. No two rows of options are equal, so no option can stand in for another.
_SIZES = {
    "grid": ((1, 3, 5), (2, 3, 1), (3, 2, 2), (1, 2, 3)),
    "tubelet": ((1, 2, 3), (2, 3, 2), (1, 4, 3), (2, 2, 4)),
    "channels": (1, 3, 2, 4),
    "heads": (2, 3, 1, 2),
    "dim": (16, 24, 12, 24),
    "depth": (2, 1, 1, 2),
    "mlp_dim": (20, 12, 28, 16),
    "decoder_heads": (1, 2, 3, 1),
    "decoder_dim": (12, 16, 24, 8),
    "decoder_depth": (1, 2, 2, 1),
    "decoder_mlp_dim": (12, 20, 16, 28),
}
_OPTIONS = {
    "activation": ("quick_gelu", "mish", "relu2", "gelu_tanh"),
    "query_value_bias": (True, False, False, True),
    "layer_norm_epsilon": (1e-2, 1e-6, 1e-1, 1e-3),
    "last_norm_epsilon": (None, 0.3, None, 0.5),
    "encoder_norm": (True, False, True, False),
    "class_token": (True, True, True, False),
    "planar_positions": (True, False, False, True),
    "learned_positions": (False, False, True, True),
    "position_grid": ((1, 2, 3), (3, 2, 2), None, (1, 3, 2)),
    "bridge_bias": (True, True, False, False),
    "layer_scale": (0.0, 0.1, 0.0, 0.1),
    "cosine_attention": (False, True, True, False),
    "drop_path": (0.9, 0.5, 0.0, 0.0),
    "norm_pix": (True, True, False, True),
    "mae_target": (False, True, True, True),
}
_BATCHES = {
    "masking": (
        {"kind": "random", "ratio": 0.5},
        {"kind": "tube", "ratio": 0.5, "decoder_ratio": 0.5},
        {"kind": "frame", "ratio": 0.5},
        {"kind": "agnostic", "ratio": 0.5, "decoder_ratio": 0.25},
    ),
    "video": (half, noise, floating, noise),
    "clips": (1, 3, 2, 2),
}
_POOLINGS = ("mean", "first", "first", "mean")


def _columns(table):
    """Return a dict of options for each of the four models."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def _config(*, grid, tubelet, channels, **others):
    frames, height, width = (count * part for count, part in zip(grid, tubelet, strict=True))
    return Config(
        frames=frames, height=height, width=width, tubelet=tubelet, channels=channels, **others
    )


def _colours(channels):
    """Draw a distinct mean and deviation for each channel."""
    return {
        "mean": tuple(0.3 + 0.1 * i for i in range(channels)),
        "std": tuple(0.2 + 0.05 * i for i in range(channels)),
    }


EVERY_OPTION = [
    Case(
        f"model {i}",
        _config(**sizes, **options, **_colours(sizes["channels"])),
        seed=i + SEED_SHIFT,
        **batch,
    )
    for i, (sizes, options, batch) in enumerate(
        zip(_columns(_SIZES), _columns(_OPTIONS), _columns(_BATCHES), strict=True)
    )
]
CLASSIFIERS = [
    ClassifierCase(
        case.name, case.config, video=case.video, clips=case.clips, seed=case.seed, pooling=pooling
    )
    for case, pooling in zip(EVERY_OPTION, _POOLINGS, strict=True)
]


@st.composite
def configurations(draw):
    """Draw every field of the configuration, with sizes that tubelets and heads divide."""
    maybe, channels = st.booleans(), draw(st.integers(1, 4))
    t, h, w = (draw(st.integers(1, 4)) for _ in range(3))
    planar = t == 1 and draw(maybe)
    slots = st.just(1) if planar else st.integers(1, 4)
    other_grid = st.none() | st.tuples(slots, st.integers(1, 4), st.integers(1, 4))
    heads, decoder_heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    level = st.floats(0, 1, width=16)
    return _config(
        grid=(t, h, w),
        tubelet=(draw(st.integers(1, 2)), draw(st.integers(2, 4)), draw(st.integers(2, 4))),
        channels=channels,
        heads=heads,
        dim=heads * draw(st.sampled_from([8, 12])),
        depth=draw(st.integers(1, 2)),
        mlp_dim=draw(st.integers(8, 40)),
        decoder_heads=decoder_heads,
        decoder_dim=decoder_heads * draw(st.sampled_from([8, 12])),
        decoder_depth=draw(st.integers(1, 2)),
        decoder_mlp_dim=draw(st.integers(8, 40)),
        norm_pix=draw(maybe),
        mae_target=draw(maybe),
        drop_path=draw(st.sampled_from([0.0, 0.9])),
        layer_scale=draw(st.sampled_from([0.0, 0.1])),
        cosine_attention=draw(maybe),
        query_value_bias=draw(maybe),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        layer_norm_epsilon=draw(st.sampled_from([1e-6, 1e-2, 1e-1])),
        last_norm_epsilon=draw(st.sampled_from([None, 0.3])),
        encoder_norm=draw(maybe),
        learned_positions=draw(maybe),
        planar_positions=planar,
        position_grid=draw(other_grid),
        class_token=draw(maybe),
        bridge_bias=draw(maybe),
        mean=tuple(draw(level) for _ in range(channels)),
        std=tuple(draw(st.floats(0.125, 1, width=16)) for _ in range(channels)),
    )


def _batches(draw):
    return {
        "video": draw(st.sampled_from(VIDEOS)),
        "clips": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 2**16)),
    }


@st.composite
def cases(draw):
    """Draw masks of any kind that leave at least two tokens to the encoder and one to the loss."""
    masking = {
        "kind": draw(st.sampled_from(["tube", "random", "frame", "agnostic"])),
        "ratio": draw(st.sampled_from([0.25, 0.5, 0.75])),
        "decoder_ratio": draw(st.sampled_from([None, 0.25, 0.5, 0.75])),
    }
    case = Case("drawn", draw(configurations()), masking, **_batches(draw))
    try:
        batch = case.batch
    except ValueError:  # the mask leaves nothing visible or nothing masked
        reject()
    assume(batch["visible"].shape[1] >= 2 and batch["decoded"].shape[1] >= 1)
    assume("weight" not in batch or batch["weight"].any())
    assume(_distance_of_kinks(case) > 1e-4)
    return case


@st.composite
def classifiers(draw):
    """Draw classifiers of either pooling, with at least two tokens. Keras warns of attention to one."""
    pooling, config = draw(st.sampled_from(["mean", "first"])), draw(configurations())
    assume(config.num_tokens >= 2)
    return ClassifierCase("drawn", config, **_batches(draw), pooling=pooling)


def _distance_of_kinks(case):
    """Return the distance of activation inputs to kinks, where rounding alone can change the derivative."""
    kinks = KINKS.get(case.config.activation, ())
    if not kinks:
        return np.inf
    with mock.patch.object(layers, "activate", wraps=layers.activate) as activate:
        reference.forward(case.config, case.weights, case.batch)
    return min(
        np.abs(call.args[0] - kink).min() for call in activate.call_args_list for kink in kinks
    )
