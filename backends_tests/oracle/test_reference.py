"""Tests of the oracle's models, target and loss against naive loops and, if installed, float64 torch."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.oracle.small_model import (
    CONFIGS,
    small_batch,
    small_config,
    weights_of,
)
from spec import layers_reference as layers
from spec import masks_reference as masks
from spec import position_reference, reference
from spec import training_reference as training

clause = pytest.mark.clause
GRID = (8, 14, 14)
SPECIFICATION = Path(reference.__file__).with_name("SPEC.md")


# Tubelets and positions --------------------------------------------------------------------------


@clause("TUBE-1", "TUBE-2")
def test_tubelets_are_row_major_channel_fastest_and_invertible():
    """TUBE-1, TUBE-2: Follow one value by hand, and check the round trip."""
    video = np.random.default_rng(0).random((2, 4, 6, 12, 3))
    tokens = reference.tubelets(video, (2, 3, 4))
    assert tokens.shape == (2, 2 * 2 * 3, 2 * 3 * 4 * 3)
    token, value = (1 * 2 + 0) * 3 + 2, ((1 * 3 + 2) * 4 + 3) * 3 + 1
    assert tokens[1, token, value] == video[1, 2 + 1, 0 + 2, 8 + 3, 1]
    np.testing.assert_array_equal(reference.untubelets(tokens, (2, 2, 3), (2, 3, 4)), video)


@clause("CONFIG-1")
def test_a_video_that_the_tubelet_does_not_divide_is_refused():
    """CONFIG-1: Raise for such sizes."""
    with pytest.raises(ValueError, match="frames=15"):
        reference.tubelets(np.zeros((1, 15, 4, 4, 3)), (2, 2, 2))


@clause("INPUT-1")
def test_uint8_is_divided_by_255_and_float_is_not():
    """INPUT-1: Compare uint8 with float input."""
    video = np.array([0, 51, 255], np.uint8)
    np.testing.assert_array_equal(reference.unit_video(video), [0.0, 0.2, 1.0])
    np.testing.assert_array_equal(reference.unit_video(np.float32([0, 0.5, 1])), [0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match="int32"):
        reference.unit_video(video.astype(np.int32))


@clause("POS-1", "POS-2")
def test_positions_follow_the_scalar_formula_and_extend_by_a_suffix():
    """POS-1, POS-2: Compare with the scalar formula; more positions extend the table."""
    table = position_reference.sinusoid_positions(50, 10)
    for token, column in ((0, 0), (0, 1), (1, 0), (7, 3), (49, 8), (49, 9)):
        angle = token / 10000 ** (2 * (column // 2) / 10)
        assert_close(table[token, column], (math.cos if column % 2 else math.sin)(angle), "float64")
    np.testing.assert_array_equal(position_reference.sinusoid_positions(90, 10)[:50], table)


@clause("EMBED-1")
def test_the_embedding_is_a_strided_convolution():
    """EMBED-1: Compare with a convolution written as loops, with a kernel in torch's layout."""
    generator = np.random.default_rng(2)
    video = generator.random((1, 4, 6, 4, 3))
    kernel, bias = generator.random((5, 3, 2, 3, 2)), generator.random(5)
    dense = kernel.transpose(2, 3, 4, 1, 0).reshape(-1, 5)
    tokens = (reference.tubelets(video, (2, 3, 2)) @ dense + bias).reshape(2, 2, 2, 5)
    for t, h, w, d in np.ndindex(tokens.shape):
        total = bias[d]
        for p0, p1, p2, channel in np.ndindex(2, 3, 2, 3):
            pixel = video[0, 2 * t + p0, 3 * h + p1, 2 * w + p2, channel]
            total += kernel[d, channel, p0, p1, p2] * pixel
        assert_close(tokens[t, h, w, d], total, "float64")


# Model -------------------------------------------------------------------------------------------


@clause("ENC-1", "ENC-2", "DEC-1", "DEC-2", "DEC-3")
def test_the_forward_by_its_named_parts():
    """ENC-1, ENC-2, DEC-1 to DEC-3: Check shapes and order; tokens that are not visible have no effect."""
    config, batch = small_config(), small_batch()
    weights = weights_of(config)
    out = reference.forward(config, weights, batch, named=True)
    shapes = {name: value.shape for name, value in out.items()}
    assert list(shapes) == [
        "embedded",
        "encoder/block_0",
        "encoder/block_1",
        "encoder/norm",
        "bridge",
        "decoder/input",
        "decoder/block_0",
        "decoder/norm",
        "predictions",
    ]
    assert shapes["embedded"] == shapes["encoder/norm"] == (2, 4, 8)
    assert shapes["decoder/input"] == shapes["decoder/block_0"] == (2, 10, 12)
    assert shapes["predictions"] == (2, 6, 96)

    positions = position_reference.sinusoid_positions(12, 12)
    query = out["decoder/input"][:, 4:]
    assert_close(query, weights["mask_token"] + positions[batch["decoded"]], "float64")
    assert_close(
        out["decoder/input"][:, :4], out["bridge"] + positions[batch["visible"]], "float64"
    )

    hidden = np.setdiff1d(np.arange(12), batch["visible"][0])
    tokens = reference.tubelets(batch["video"], config.tubelet)
    tokens[0, hidden] = 255 - tokens[0, hidden]
    changed = {**batch, "video": reference.untubelets(tokens, (2, 2, 3), config.tubelet)}
    np.testing.assert_array_equal(reference.forward(config, weights, changed), out["predictions"])

    turned = {**batch, "decoded": batch["decoded"][:, ::-1]}
    assert_close(reference.forward(config, weights, turned)[:, ::-1], out["predictions"], "float64")


@clause("BLOCK-6", "BLOCK-7")
def test_branches_are_scaled_and_dropped_per_clip():
    """BLOCK-6, BLOCK-7: Match a factor with a larger layer scale; clips and stacks drop independently."""
    config = small_config(layer_scale=0.1)
    weights = weights_of(config)
    x = np.random.default_rng(7).standard_normal((2, 5, 8))
    path = "encoder/block_0"
    scales = {f"{path}/scale1": 2.0, f"{path}/scale2": 3.0}
    scaled = weights | {name: factor * weights[name] for name, factor in scales.items()}
    keep = np.array([[2.0, 2.0], [3.0, 3.0]])
    assert_close(
        layers.block(x, weights, path, config, heads=2, keep=keep),
        layers.block(x, scaled, path, config, heads=2),
        "float64",
    )
    half = layers.block(x, weights, path, config, heads=2, keep=np.array([[0.0, 1.0], [0.0, 1.0]]))
    np.testing.assert_array_equal(half[0], x[0])
    assert_close(half[1], layers.block(x, weights, path, config, heads=2)[1], "float64")
    np.testing.assert_array_equal(training.drop_path_rates(0.2, 3), [0.0, 0.1, 0.2])

    keep = {"encoder_keep": np.ones((2, 2, 2)), "decoder_keep": np.zeros((1, 2, 2))}
    keep["encoder_keep"][1] = 0
    out = reference.forward(config, weights, small_batch(), named=True, **keep)
    assert (out["encoder/block_0"] != out["embedded"]).any()
    np.testing.assert_array_equal(out["encoder/block_1"], out["encoder/block_0"])
    np.testing.assert_array_equal(out["decoder/block_0"], out["decoder/input"])


@clause("EMBED-1", "EMBED-2", "BLOCK-1", "BLOCK-2", "BLOCK-3", "BLOCK-4", "BLOCK-5", "BLOCK-6")
@clause("BLOCK-8", "INPUT-2", "DEC-1", "DEC-2")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_torch_agrees_in_float64_on_predictions_loss_and_gradient(witness, config):
    """EMBED-1 to DEC-2: Compare with torch, and torch's gradient with finite differences."""
    batch, weights = small_batch(), weights_of(config)
    model = witness(config, weights)
    predictions = model.forward(batch).detach().numpy()
    assert_close(reference.forward(config, weights, batch), predictions, "float64")

    loss = model.loss(batch, reference.target(config, batch["video"], batch["decoded"]))
    assert_close(reference.pretraining_loss(config, weights, batch), loss.item(), "float64")
    loss.backward()
    entries = [(name, tuple(s // 2 for s in value.shape)) for name, value in weights.items()][::3]
    slopes = [model.weights[name].grad.numpy()[index] for name, index in entries]
    assert_close(training.gradient(config, weights, batch, entries), slopes, "difference_quotient")


@clause("BLOCK-2")
def test_every_norm_can_be_replaced_by_its_path(monkeypatch):
    """BLOCK-2: List the paths of all norms; patching one changes the result only from there on."""
    config, batch = small_config(), small_batch()
    weights, seen = weights_of(config), []
    right = reference.forward(config, weights, batch, named=True)

    def patched(x, weights, path, config, norm=layers.norm):
        seen.append(path)
        return norm(x, weights, path, config) + (path == "encoder/block_1/norm2")

    monkeypatch.setattr(layers, "norm", patched)
    moved = reference.forward(config, weights, batch, named=True)
    parts = [
        f"{part}/{norm}"
        for part in ("encoder/block_0", "encoder/block_1")
        for norm in ("norm1", "norm2")
    ]
    parts += ["encoder/norm", "decoder/block_0/norm1", "decoder/block_0/norm2", "decoder/norm"]
    assert seen == parts
    np.testing.assert_array_equal(moved["encoder/block_0"], right["encoder/block_0"])
    assert np.abs(moved["encoder/block_1"] - right["encoder/block_1"]).max() > 1e-3

    seen.clear()
    shapes = training.classifier_weight_shapes(config, 5)
    reference.classify(config, weights_of(config, shapes=shapes), batch["video"])
    assert seen == [*parts[:4], "fc_norm"]


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def swapped_tubelets(video, tubelet, cut=reference.tubelets):
    tokens = cut(video, tubelet)
    return tokens.reshape(*tokens.shape[:2], 2, 4, 4, 3).swapaxes(3, 4).reshape(tokens.shape)


MUTANTS = {
    "tanh gelu": (layers, "gelu", tanh_gelu),
    "epsilon 1e-5": (
        layers,
        "layer_norm",
        lambda x, gamma, beta, epsilon, norm=layers.layer_norm: norm(x, gamma, beta, 1e-5),
    ),
    "positions one off": (
        position_reference,
        "sinusoid_positions",
        lambda count, dim, table=position_reference.sinusoid_positions: table(count + 1, dim)[1:],
    ),
    "swapped tubelet axes": (reference, "tubelets", swapped_tubelets),
}


@clause("BLOCK-2", "BLOCK-5", "POS-1", "TUBE-2")
@pytest.mark.parametrize(("module", "name", "mutant"), MUTANTS.values(), ids=MUTANTS)
def test_weights_of_half_show_a_wrong_detail(monkeypatch, module, name, mutant):
    """BLOCK-2, BLOCK-5, POS-1, TUBE-2: Check that each bug moves a prediction by more than 1e-6."""
    config, batch = small_config(), small_batch()
    weights = weights_of(config)
    right = reference.forward(config, weights, batch)
    monkeypatch.setattr(module, name, mutant)
    assert np.abs(reference.forward(config, weights, batch) - right).max() > 1e-6


# Classifier --------------------------------------------------------------------------------------


@clause("FT-1", "FT-2", "FT-4", "BLOCK-6", "BLOCK-8")
@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_torch_agrees_in_float64_on_logits(witness, config, pooling):
    """FT-1, FT-2: Embed every token and apply one norm and one head; measured 2.1e-15."""
    shapes = training.classifier_weight_shapes(config, 5, pooling)
    weights, video = weights_of(config, shapes=shapes), small_batch()["video"]
    logits = witness(config, weights).classify(video, pooling).detach().numpy()
    assert_close(reference.classify(config, weights, video, pooling=pooling), logits, "float64")


@clause("FT-1", "FT-2", "ENC-2")
def test_the_classifier_by_its_named_parts():
    """FT-1, FT-2: Run the pretraining encoder's blocks over all tokens, then norm and pooling."""
    config, video = small_config(), small_batch()["video"]
    weights = weights_of(config)
    every = np.tile(np.arange(12), (2, 1))
    batch = {"video": video, "visible": every, "decoded": every[:, :1]}
    encoder = reference.forward(config, weights, batch, named=True)
    head = {"head/kernel": np.random.default_rng(3).random((8, 5)), "head/bias": np.arange(5.0)}
    norm = {"fc_norm/gamma": np.full(8, 2.0), "fc_norm/beta": np.full(8, 3.0)}

    first = reference.classify(config, weights | head, video, pooling="first", named=True)
    assert list(first) == [
        "embedded",
        "encoder/block_0",
        "encoder/block_1",
        "encoder/norm",
        "logits",
    ]
    np.testing.assert_array_equal(first["encoder/norm"], encoder["encoder/norm"])
    for clip in range(2):
        token = encoder["encoder/norm"][clip, 0]
        assert_close(first["logits"][clip], token @ head["head/kernel"] + np.arange(5), "float64")

    mean = reference.classify(config, weights | head | norm, video, named=True)
    assert list(mean) == ["embedded", "encoder/block_0", "encoder/block_1", "fc_norm", "logits"]
    for clip in range(2):
        pooled = sum(encoder["encoder/block_1"][clip]) / 12
        spread = math.sqrt(sum((pooled - pooled.mean()) ** 2) / 8 + 1e-6)
        normed = 2 * (pooled - pooled.mean()) / spread + 3
        assert_close(mean["fc_norm"][clip], normed, "float64")
        assert_close(mean["logits"][clip], normed @ head["head/kernel"] + np.arange(5), "float64")


@clause("FT-1", "FT-2")
def test_an_unknown_pooling_is_refused():
    """FT-1, FT-2: Raise for an unknown pooling."""
    with pytest.raises(ValueError, match="pooling='max'"):
        reference.classify(small_config(), {}, small_batch()["video"], pooling="max")


# Target and loss ---------------------------------------------------------------------------------


@clause("TARGET-1", "TARGET-2", "TARGET-3", "TARGET-4", "RECON-1")
def test_the_target_of_one_tubelet_by_hand():
    """TARGET-1 to TARGET-4, RECON-1: Normalise per channel, unbiased, epsilon outside the root; invert."""
    config, batch = small_config(), small_batch()
    batch["video"][0, :2, :4, :4] = 80  # token 0 of the first clip has one colour
    batch["decoded"][0, 0] = 0
    wanted = reference.target(config, batch["video"], batch["decoded"])
    # The rounding error of a mean, divided by 1e-6.
    assert np.isfinite(wanted).all() and np.abs(wanted[0, 0]).max() < 1e-9

    token = int(batch["decoded"][1, 3])
    ti, hi, wi = token // 6, token // 3 % 2, token % 3
    piece = batch["video"][1, 2 * ti : 2 * ti + 2, 4 * hi : 4 * hi + 4, 4 * wi : 4 * wi + 4] / 255
    for channel in range(3):
        pixels = piece[..., channel].ravel()
        spread = math.sqrt(((pixels - pixels.mean()) ** 2).sum() / (len(pixels) - 1))
        assert_close(
            wanted[1, 3, channel::3], (pixels - pixels.mean()) / (spread + 1e-6), "float64"
        )

    raw = reference.target(small_config(norm_pix=False), batch["video"], batch["decoded"])
    np.testing.assert_array_equal(raw[1, 3], piece.ravel())
    mean, variance = reference.statistics(config, batch["video"], batch["decoded"])
    assert_close(reference.reconstruct(config, wanted, mean, variance), raw, "float64")


@clause("LOSS-1", "LOSS-2")
def test_v2_with_decoded_equal_to_masked_is_v1():
    """LOSS-1, LOSS-2: Check that ones change nothing and a zero removes a token and its count."""
    generator = np.random.default_rng(8)
    predictions, wanted = generator.random((2, 2, 6, 96))
    plain = reference.loss(predictions, wanted)
    assert_close(plain, np.mean((predictions - wanted) ** 2), "float64")
    ids = masks.pretraining(GRID, generator)
    weight = reference.decoded_weight(ids["visible"][None], ids["decoded"][None])
    assert (weight == 1).all()
    assert reference.loss(predictions, wanted, np.ones((2, 6))) == plain

    weight = np.ones((2, 6))
    weight[0, :3] = 0
    rest = np.r_[predictions[0, 3:] - wanted[0, 3:], predictions[1] - wanted[1]]
    assert_close(reference.loss(predictions, wanted, weight), np.mean(rest**2), "float64")


# The specification itself ------------------------------------------------------------------------


def test_clause_ids_are_unique_and_every_clause_named_here_exists():
    """Check the clauses of SPEC.md: unique ids, none invented by these tests, each with a requirement."""
    lines = re.findall(r"(?m)^- \*\*([A-Z]+-\d+)\*\* (.*)$", SPECIFICATION.read_text("utf-8"))
    ids = [name for name, _ in lines]
    assert len(ids) == len(set(ids)) > 50
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    named = set(re.findall(r'"([A-Z]+-\d+)"', tests))
    assert named and named <= set(ids)
    assert all(re.search(r"\*[^*]+\*$", text) for _, text in lines), "a clause without a source"
    assert all("MUST" in text or "SHOULD" in text for _, text in lines), (
        "a clause that binds nobody"
    )
