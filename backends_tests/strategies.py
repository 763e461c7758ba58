"""Hypothesis strategies: models of any small configuration, with weights and a batch."""

import os

from hypothesis import HealthCheck, assume, reject, settings
from hypothesis import strategies as st

from spec.config import Config
from spec.conformance.cases import Case, floating, noise

# JAX compiles each example anew: few of them, always the same, unless asked for more.
settings.register_profile("suite", max_examples=2, derandomize=True, deadline=None)
settings.register_profile(
    "nightly",
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def profile():
    """The one that $HYPOTHESIS_PROFILE names, as a decorator of tests."""
    return settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@st.composite
def configurations(draw):
    """Widths are multiples of the heads, sizes of the tubelet."""
    t, h, w = (draw(st.integers(1, 4)) for _ in range(3))
    p0, p1, p2 = draw(st.integers(1, 2)), draw(st.integers(2, 4)), draw(st.integers(2, 4))
    heads, decoder_heads, channels = (draw(st.integers(1, 3)) for _ in range(3))
    return Config(
        frames=t * p0, height=h * p1, width=w * p2, channels=channels, tubelet=(p0, p1, p2),
        dim=heads * draw(st.sampled_from([8, 12])), depth=draw(st.integers(1, 2)), heads=heads,
        mlp_dim=draw(st.integers(8, 40)),
        decoder_dim=decoder_heads * draw(st.sampled_from([8, 12])), decoder_depth=1,
        decoder_heads=decoder_heads, decoder_mlp_dim=draw(st.integers(8, 40)),
        norm_pix=draw(st.booleans()), layer_scale=draw(st.sampled_from([0.0, 0.1])),
        cosine_attention=draw(st.booleans()), class_token=draw(st.booleans()),
        learned_positions=draw(st.booleans()), bridge_bias=draw(st.booleans()),
        planar_positions=t == 1 and draw(st.booleans()), mae_target=draw(st.booleans()),
        mean=tuple(draw(st.floats(0, 1, width=16)) for _ in range(channels)),
        std=tuple(draw(st.floats(0.125, 1, width=16)) for _ in range(channels)),
    )  # fmt: skip


@st.composite
def cases(draw):
    """Masks of any kind that leave the encoder two tokens and the loss one."""
    masking = {
        "kind": draw(st.sampled_from(["tube", "random", "frame", "agnostic"])),
        "ratio": draw(st.sampled_from([0.25, 0.5, 0.75])),
        "decoder_ratio": draw(st.sampled_from([None, 0.25, 0.5, 0.75])),
    }
    case = Case(
        "drawn", draw(configurations()), masking, video=draw(st.sampled_from([noise, floating])),
        clips=draw(st.integers(1, 3)), seed=draw(st.integers(0, 2**16)),
    )  # fmt: skip
    try:
        batch = case.batch
    except ValueError:  # a mask that leaves nothing visible, or nothing masked
        reject()
    assume(batch["visible"].shape[1] >= 2 and batch["decoded"].shape[1] >= 1)
    assume("weight" not in batch or batch["weight"].any())
    return case
