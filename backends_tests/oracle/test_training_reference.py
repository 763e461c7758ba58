"""Tests of the oracle's weights, costs, schedules and AdamW against published numbers and torch's AdamW."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.oracle.small_model import small_batch, small_config, weights_of
from spec import cost_reference, reference
from spec import masks_reference as masks
from spec import training_reference as training
from spec.config import VARIANTS, Config
from spec.gradient_reference import pretraining_gradients

clause = pytest.mark.clause
SPECIFICATION = Path(reference.__file__).with_name("SPEC.md")
# Pretraining where it differs from V1's, by the first part of a variant's name.
MASKING = {"v2": {"decoder_ratio": 0.5}, "mae": {"kind": "random", "ratio": 0.75}}


# Weights and their initialisation ----------------------------------------------------------------


@clause("WEIGHT-1")
def test_the_forward_needs_every_weight():
    """WEIGHT-1: Check that every weight of the table is used and none is missing."""
    config = small_config(layer_scale=0.1, cosine_attention=True)
    weights, batch = weights_of(config), small_batch()
    right = reference.forward(config, weights, batch)
    generator = np.random.default_rng(9)  # the next norm would remove a constant
    for name, value in weights.items():
        changed = {**weights, name: value + 0.1 * generator.standard_normal(value.shape)}
        moved = reference.forward(config, changed, batch)
        assert np.abs(moved - right).max() > 1e-9, name


@clause("FT-4")
@pytest.mark.parametrize(("pooling", "norm"), [("mean", "fc_norm"), ("first", "encoder/norm")])
def test_the_classifier_needs_every_weight_of_its_table(pooling, norm):
    """FT-4: Check for the pretraining encoder's paths and shapes, one norm, by pooling, and a head."""
    config = small_config(layer_scale=0.1, cosine_attention=True)
    shapes = training.classifier_weight_shapes(config, 5, pooling)
    shared = {
        name: shape
        for name, shape in training.weight_shapes(config).items()
        if name.startswith(("tubelet_embedding/", "encoder/block_"))
    }
    own = {f"{norm}/gamma": (8,), f"{norm}/beta": (8,), "head/kernel": (8, 5), "head/bias": (5,)}
    assert list(shapes.items()) == list((shared | own).items())

    weights, video = weights_of(config, shapes=shapes), small_batch()["video"]
    right = reference.classify(config, weights, video, pooling=pooling)
    generator = np.random.default_rng(10)
    for name, value in weights.items():
        changed = {**weights, name: value + 0.1 * generator.standard_normal(value.shape)}
        moved = reference.classify(config, changed, video, pooling=pooling)
        assert np.abs(moved - right).max() > 1e-9, name


@clause("INIT-1", "INIT-2", "INIT-3", "INIT-4")
def test_the_initialisation_names_every_weight():
    """INIT-1 to INIT-4: Check the bounds of the base model's weights."""
    rules = training.initialisation(Config.variant("v1-b"))
    assert rules["encoder/block_3/attention/qkv/kernel"] == ("uniform", math.sqrt(6 / (4 * 768)))
    assert rules["head/kernel"] == ("uniform", math.sqrt(6 / (384 + 1536)))
    assert rules["tubelet_embedding/kernel"] == ("uniform", 1 / math.sqrt(1536))
    assert rules["tubelet_embedding/bias"] == rules["tubelet_embedding/kernel"]
    assert rules["bridge/kernel"] == ("uniform", 1 / math.sqrt(768))
    assert rules["mask_token"] == ("truncated_normal", 0.02)
    assert rules["head/bias"] == rules["decoder/norm/beta"] == ("constant", 0.0)
    assert rules["encoder/norm/gamma"] == ("constant", 1.0)
    scaled = training.initialisation(small_config(layer_scale=0.1, cosine_attention=True))
    assert scaled["decoder/block_0/scale2"] == ("constant", 0.1)
    assert scaled["encoder/block_1/attention/log_scale"] == ("constant", math.log(10))


@clause("FT-5")
def test_the_classifiers_initialisation_names_every_weight():
    """FT-5: Check normal kernels, a small head, and the unchanged tubelet embedding and constants."""
    config = Config.variant("v1-b", layer_scale=0.1, cosine_attention=True)
    rules = training.classifier_initialisation(config, 400)
    assert rules.keys() == training.classifier_weight_shapes(config, 400).keys()
    drawn = {name: rule for name, rule in rules.items() if rule[0] != "constant"}
    assert drawn.pop("tubelet_embedding/kernel") == ("uniform", 1 / math.sqrt(1536))
    assert drawn.pop("tubelet_embedding/bias") == ("uniform", 1 / math.sqrt(1536))
    assert drawn.pop("head/kernel") == ("normal", 0.02 * 0.001)
    assert len(drawn) == 12 * 4 and set(drawn.values()) == {("normal", 0.02)}
    before = training.initialisation(config)
    rest = [name for name in rules if rules[name][0] == "constant" and name in before]
    assert rest and all(rules[name] == before[name] for name in rest)
    assert rules["head/bias"] == rules["fc_norm/beta"] == ("constant", 0.0)
    assert rules["fc_norm/gamma"] == ("constant", 1.0)
    scaled = training.classifier_initialisation(config, 7, "first", init_scale=1.0)
    assert scaled["head/kernel"] == ("normal", 0.02) and "encoder/norm/gamma" in scaled


# Numbers of weights, and of multiply-accumulates -------------------------------------------------


@clause("COUNT-1", "COUNT-2", "CONFIG-2")
@pytest.mark.parametrize(
    ("name", "encoder", "classifier", "pretraining"),
    [
        ("v1-s", 21.9, 22.0, 24.0),
        ("v1-b", 86.2, 86.5, 94.2),
        ("v1-l", 303.9, 304.3, 343.0),
        ("v2-l", 303.9, 304.3, 317.8),
        ("v1-h", 631.6, 632.1, 692.5),
        ("v2-h", 631.6, 632.1, 645.7),
        ("v2-g", 1011.6, 1012.2, 1026.3),
    ],
)
def test_parameter_counts(name, encoder, classifier, pretraining):
    """COUNT-1, COUNT-2: Compare with the published millions and the exact numbers in SPEC.md's table."""
    config = Config.variant(name)
    total, seen = (
        cost_reference.count_parameters(config),
        cost_reference.count_encoder_parameters(config),
    )
    assert round(total / 1e6, 1) == pretraining
    assert round(seen / 1e6, 1) == encoder
    assert round((seen + 400 * (config.dim + 1)) / 1e6, 1) == classifier
    for pooling in ("mean", "first"):
        shapes = training.classifier_weight_shapes(config, 400, pooling).values()
        assert sum(math.prod(shape) for shape in shapes) == seen + 400 * (config.dim + 1)
    assert f"| {seen:,} | {total:,} |" in SPECIFICATION.read_text(encoding="utf-8")
    assert (int(1408 * 48 / 11), int(512 * 48 / 11)) == (6144, 2234)


@clause("COUNT-1", "COUNT-2", "COUNT-3", "COUNT-4", "COUNT-5")
@pytest.mark.parametrize("name", VARIANTS)
def test_the_table_of_variants(name):
    """COUNT-1 to COUNT-5: Check the exact numbers in variants.toml, with the masks that it states."""
    config, published = Config.variant(name), VARIANTS[name]
    assert cost_reference.count_encoder_parameters(config) == published["encoder_parameters"]
    view = cost_reference.view_multiply_accumulates(config)
    assert view == published["view_multiply_accumulates"]
    if name.startswith("vit"):  # only encoder and classifier
        return
    assert cost_reference.count_parameters(config) == published["pretraining_parameters"]
    masking = MASKING.get(name.partition("-")[0], {})
    ids = masks.pretraining(config.grid, np.random.default_rng(0), **masking)
    visible, decoded = len(ids["visible"]), len(ids["decoded"])
    cost = cost_reference.pretraining_multiply_accumulates(config, visible, decoded)
    assert cost == published["pretraining_multiply_accumulates"]


@clause("COUNT-3")
@pytest.mark.parametrize(
    ("name", "published"),
    [("v1-s", "56.9"), ("v1-b", "180.3"), ("v1-l", "596.8"), ("v2-h", "1191"), ("v2-g", "2543")],
)
def test_the_published_cost_of_a_view(name, published):
    """COUNT-3: Compare GMAC with the published digits (from memory) and the two in SPEC.md."""
    cost = cost_reference.view_multiply_accumulates(Config.variant(name)) / 1e9
    assert str(round(cost, 1 if "." in published else None)) == published
    assert f"| {cost:.2f} |" in SPECIFICATION.read_text(encoding="utf-8")


@clause("COUNT-4")
@pytest.mark.parametrize(
    ("name", "visible", "decoded", "billions", "printed"),
    [
        ("v1-b", 160, 1408, 35.44, 35.48),
        ("v2-b", 160, 784, 25.84, 25.87),
        ("v2-g", 208, 1840, 263.96, 263.93),
        ("v2-g", 208, 1024, 241.61, 241.61),
    ],
)
def test_the_published_cost_of_pretraining(name, visible, decoded, billions, printed):
    """COUNT-4: Embed every token, as upstream; the paper's figures (from memory) agree within .15 %."""
    config = Config.variant(name)
    values = math.prod(config.tubelet) * 3
    cost = cost_reference.pretraining_multiply_accumulates(config, visible, decoded)
    cost += (config.num_tokens - visible) * values * config.dim
    assert round(cost / 1e9, 2) == billions
    assert cost / 1e9 == pytest.approx(printed, rel=1.5e-3)  # printed figures


@clause("COUNT-3", "COUNT-4")
def test_torch_counts_the_same_operations(witness):
    """COUNT-3, COUNT-4: Count the forward operations with torch's counter, which counts two per product."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    def operations(run):
        # The counter supports only this one of torch's attention kernels on CPUs: two products.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    config, batch = small_config(), small_batch(clips=1)
    shapes = training.classifier_weight_shapes(config, 5)
    classifier = witness(config, weights_of(config, shapes=shapes))
    counted = operations(lambda: classifier.classify(batch["video"], "mean"))
    assert counted == 2 * cost_reference.view_multiply_accumulates(config, 5)

    model = witness(config, weights_of(config))
    unread = (12 - 4) * 96 * 8  # the witness embeds all 12 tokens; the encoder reads 4
    cost = cost_reference.pretraining_multiply_accumulates(config, 4, 6)
    assert operations(lambda: model.forward(batch)) == 2 * (cost + unread)


# Schedules and AdamW -----------------------------------------------------------------------------


@clause("OPT-2")
def test_weight_decay_touches_kernels_only():
    """OPT-2: Decay only kernels."""
    shapes = training.weight_shapes(small_config(layer_scale=0.1, cosine_attention=True))
    decayed = {name for name, shape in shapes.items() if training.decayed(name, shape)}
    assert decayed == {name for name in shapes if name.endswith("kernel")}


@clause("OPT-3", "OPT-4")
def test_the_learning_rate_schedule():
    """OPT-3, OPT-4: Compare with upstream's list, which is built from linspace and a cosine."""
    warmup, total, peak, floor = 5, 25, 3e-4, 2e-5
    upstream = np.r_[
        np.linspace(0, peak, warmup),
        [
            floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * i / (total - warmup)))
            for i in range(total - warmup)
        ],
    ]
    rates = [
        training.learning_rate(
            step, base=1.5e-4, minimum=1e-5, videos_per_step=512, warmup_steps=5, total_steps=25
        )
        for step in range(total)
    ]
    assert_close(rates, upstream, "float64")
    assert rates[4] == rates[5] == peak and rates[-1] > floor
    assert all(a > b for a, b in pairwise(rates[5:]))


@clause("FT-6")
def test_layer_decay_of_the_base_model():
    """FT-6: Check first and last layers by hand for depth 12 and c = .75; no layer may be left out."""
    expected = {
        "tubelet_embedding/kernel": 0.75**13,
        "tubelet_embedding/bias": 0.75**13,
        "encoder/block_0/norm1/gamma": 0.75**12,
        "encoder/block_1/attention/q_bias": 0.75**11,
        "encoder/block_10/mlp/hidden/kernel": 0.75**2,
        "encoder/block_11/mlp/output/bias": 0.75,
        "fc_norm/gamma": 1.0,
        "encoder/norm/beta": 1.0,
        "head/kernel": 1.0,
        "bridge/kernel": 1.0,
        "mask_token": 1.0,
        "decoder/block_0/norm1/gamma": 1.0,
    }
    for name, scale in expected.items():
        assert_close(training.layer_decay_scale(name, 12, 0.75), scale, "float64", what=name)
    shapes = training.classifier_weight_shapes(Config.variant("v1-b"), 400)
    assert len({training.layer_decay_scale(name, 12, 0.75) for name in shapes}) == 14


ADAMW = {
    "defaults": {},
    "an epsilon that shows": {"epsilon": 0.01},
    "other constants": {"weight_decay": 0.3, "beta_1": 0.8, "beta_2": 0.999},
    "layer decay": {"layer_decay": 0.75, "weight_decay": 0.3},
}


@clause("OPT-1", "OPT-2", "OPT-5", "FT-6", "FT-7")
@pytest.mark.parametrize("options", ADAMW.values(), ids=ADAMW)
def test_torchs_adamw_agrees_in_float64(witness, options):
    """OPT-5: Compare four updates with torch's AdamW, one group per weight as upstream; error 3.7e-13."""
    import torch

    config = small_config(layer_scale=0.1, cosine_attention=True)
    weights, rates = weights_of(config), [0.0, 0.02, 0.05, 0.01]
    batches = [small_batch(seed) for seed in range(4)]
    decay = options.get("layer_decay", 1.0)

    model = witness(config, weights)
    groups = [
        {
            "params": [tensor],
            "lr_scale": decay ** {"tubelet_embedding": 3, "block_0": 2, "block_1": 1}.get(layer, 0),
            "weight_decay": options.get("weight_decay", 0.05) if name.endswith("kernel") else 0.0,
        }
        for name, tensor in model.weights.items()
        for layer in [name.removeprefix("encoder/").split("/")[0]]
    ]
    betas = options.get("beta_1", 0.9), options.get("beta_2", 0.95)
    optimiser = torch.optim.AdamW(groups, betas=betas, eps=options.get("epsilon", 1e-8))
    for batch, rate in zip(batches, rates, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate * group["lr_scale"]
        optimiser.zero_grad()
        model.loss(batch, reference.target(config, batch["video"], batch["decoded"])).backward()
        optimiser.step()

    updated = training.adamw_steps(config, weights, batches, rates, **options)
    assert list(updated) == list(weights)
    for name, tensor in model.weights.items():
        assert np.abs(updated[name] - weights[name]).max() > 1e-4, name
        assert_close(updated[name], tensor.detach().numpy(), "float64.training", what=name)


@clause("OPT-5", "FT-7")
def test_the_first_update_by_hand():
    """OPT-5: Check that both moments equal the gradient's, and that epsilon follows the correction of v."""
    config, batch = small_config(), small_batch()
    weights, name = weights_of(config), "tubelet_embedding/kernel"
    _, gradients = pretraining_gradients(config, weights, batch)
    g, w, r = gradients[name], weights[name], 0.1 * 0.5**3
    unmoved = training.adamw_steps(config, weights, [batch], [0.0])
    np.testing.assert_array_equal(unmoved[name], w)
    updated = training.adamw_steps(
        config, weights, [batch], [0.1], weight_decay=0.2, epsilon=0.01, layer_decay=0.5
    )[name]
    by_hand = w * (1 - r * 0.2) - r * g / (np.abs(g) + 0.01)
    assert_close(updated, by_hand, "float64")
    other = w * (1 - r * 0.2) - r * g / (np.abs(g) + 0.01 / math.sqrt(1 - 0.95))
    assert np.abs(updated - other).max() > 1e-4
    assert 1 / math.sqrt(1 - 0.95) == pytest.approx(4.5, abs=0.05)  # OPT-5 rounds it so


@clause("OPT-5")
def test_every_batch_needs_a_rate():
    """OPT-5: Raise if a batch has no rate."""
    with pytest.raises(ValueError):
        training.adamw_steps(small_config(), {}, [small_batch()], [])
