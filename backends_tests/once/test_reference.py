"""The oracle against naive loops, published numbers and, where installed, torch in float64."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from spec import masks_reference as masks
from spec import reference
from spec import training_reference as training

clause = pytest.mark.clause
GRID, GIANT_GRID = (8, 14, 14), (8, 16, 16)
SPECIFICATION = Path(reference.__file__).with_name("SPEC.md")


def small_config(**changes):
    """A model with no two sizes alike, so that a swapped axis cannot go unseen."""
    config = SimpleNamespace(
        frames=4, height=8, width=12, channels=3, tubelet=(2, 4, 4), dim=8, depth=2, heads=2,
        mlp_dim=20, decoder_dim=12, decoder_depth=1, decoder_heads=3, decoder_mlp_dim=28,
        norm_pix=True, drop_path=0.0, layer_scale=0.0, cosine_attention=False,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), layer_norm_epsilon=1e-6,
    )  # fmt: skip
    vars(config).update(changes)
    return config


def small_batch(seed=0, clips=2):
    """Video uint8 and ids of 12 tokens: 4 visible, 6 decoded, some of them both."""
    generator = np.random.default_rng(seed)
    ids = {
        name: np.stack([np.sort(generator.permutation(12)[:count]) for _ in range(clips)])
        for name, count in (("visible", 4), ("decoded", 6))
    }
    video = generator.integers(0, 256, (clips, 4, 8, 12, 3), dtype=np.uint8)
    return {"video": video, **ids, "weight": reference.decoded_weight(**ids)}


def weights_of(config, seed=1):
    return training.random_weights(config, np.random.default_rng(seed))


def close(actual, expected, tolerance):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# Tubelets and positions --------------------------------------------------------------------------


@clause("TUBE-1", "TUBE-2")
def test_tubelets_are_row_major_channel_fastest_and_invertible():
    """TUBE-1, TUBE-2: one value followed by hand, and the round trip."""
    video = np.random.default_rng(0).random((2, 4, 6, 12, 3))
    tokens = reference.tubelets(video, (2, 3, 4))
    assert tokens.shape == (2, 2 * 2 * 3, 2 * 3 * 4 * 3)
    token, value = (1 * 2 + 0) * 3 + 2, ((1 * 3 + 2) * 4 + 3) * 3 + 1
    assert tokens[1, token, value] == video[1, 2 + 1, 0 + 2, 8 + 3, 1]
    np.testing.assert_array_equal(reference.untubelets(tokens, (2, 2, 3), (2, 3, 4)), video)


@clause("CONFIG-1")
def test_a_video_that_the_tubelet_does_not_divide_is_refused():
    """CONFIG-1."""
    with pytest.raises(ValueError, match="frames=15"):
        reference.tubelets(np.zeros((1, 15, 4, 4, 3)), (2, 2, 2))


@clause("INPUT-1")
def test_uint8_is_divided_by_255_and_float_is_not():
    """INPUT-1."""
    video = np.array([0, 51, 255], np.uint8)
    np.testing.assert_array_equal(reference.unit_video(video), [0.0, 0.2, 1.0])
    np.testing.assert_array_equal(reference.unit_video(np.float32([0, 0.5, 1])), [0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match="int32"):
        reference.unit_video(video.astype(np.int32))


@clause("POS-1", "POS-2")
def test_positions_follow_the_scalar_formula_and_extend_by_a_suffix():
    """POS-1, POS-2."""
    table = reference.sinusoid_positions(50, 10)
    for token, column in ((0, 0), (0, 1), (1, 0), (7, 3), (49, 8), (49, 9)):
        angle = token / 10000 ** (2 * (column // 2) / 10)
        assert table[token, column] == pytest.approx(
            (math.cos if column % 2 else math.sin)(angle), abs=1e-15
        )
    np.testing.assert_array_equal(reference.sinusoid_positions(90, 10)[:50], table)


@clause("EMBED-1")
def test_the_embedding_is_a_strided_convolution():
    """EMBED-1: a convolution written as loops, from a kernel in torch's layout."""
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
        assert tokens[t, h, w, d] == pytest.approx(total, abs=1e-12)


# Masks -------------------------------------------------------------------------------------------


@clause("MASK-1", "MASK-2", "MASK-3", "MASK-4", "MASK-5")
@pytest.mark.parametrize(
    ("draw", "grid", "ratio", "masked", "visible"),
    [
        (masks.tube, GRID, 0.9, 1408, 160),
        (masks.tube, GRID, 0.75, 1176, 392),
        (masks.tube, GIANT_GRID, 0.9, 1840, 208),
        (masks.tube, (2, 3, 15), 0.6, 54, 36),  # (.6 * 3) * 15 would truncate to 26 a slot
        (masks.random, GRID, 0.9, 1411, 157),
        (masks.frame, GRID, 0.9, 1372, 196),
        (masks.agnostic, GRID, 0.9, 1412, 156),
        (masks.random, GIANT_GRID, 0.9, 1843, 205),
        (masks.agnostic, GIANT_GRID, 0.9, 1844, 204),
    ],
)
def test_mask_counts(draw, grid, ratio, masked, visible):
    """MASK-1 to MASK-5: the published counts, and a sorted partition of all the ids."""
    seen, hidden = draw(grid, ratio, np.random.default_rng(3))
    assert (len(hidden), len(seen)) == (masked, visible)
    assert seen.dtype == hidden.dtype == np.int32
    assert all((np.diff(ids) > 0).all() for ids in (seen, hidden))
    np.testing.assert_array_equal(np.sort(np.r_[seen, hidden]), np.arange(np.prod(grid)))


@clause("MASK-2", "MASK-4")
def test_tubes_repeat_over_time_and_frames_are_whole():
    """MASK-2, MASK-4."""
    for draw, axis in ((masks.tube, 0), (masks.frame, (1, 2))):
        hidden = np.zeros(GRID, bool)
        hidden.flat[draw(GRID, 0.75, np.random.default_rng(4))[1]] = True
        assert (hidden.all(axis) == hidden.any(axis)).all()
        assert hidden.any() and not hidden.all()


@clause("MASK-1", "MASK-6", "CELL-1")
def test_masks_follow_their_generator_and_refuse_empty_sides():
    """MASK-1, MASK-6, CELL-1."""
    for draw in (masks.tube, masks.random, masks.frame, masks.agnostic):
        first, again, other = (draw(GRID, 0.5, np.random.default_rng(s))[0] for s in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()
        for ratio in (0.0, 1.0, 1.5):
            with pytest.raises(ValueError, match="at least one visible"):
                draw(GRID, ratio, np.random.default_rng(0))
    with pytest.raises(ValueError, match="masks 0 of 4"):
        masks.tube((1, 2, 2), 0.2, np.random.default_rng(0))
    for ratio in (0.2, 1.0):
        with pytest.raises(ValueError, match="running cell"):
            masks.running_cell(GRID, ratio, np.random.default_rng(0))


@clause("CELL-1", "CELL-2")
def test_the_published_running_cell():
    """CELL-1, CELL-2: ratio .5, pointer 0, and the same cycle one slot later for pointer 1."""
    cycle = [[[1, 0], [0, 1]], [[0, 0], [1, 1]], [[0, 1], [1, 0]], [[1, 1], [0, 0]]]
    hidden = ~masks.running_cell_pattern((8, 4, 6), 0.5, 0)
    np.testing.assert_array_equal(hidden, np.tile(np.array(cycle + cycle, bool), (1, 2, 3)))
    np.testing.assert_array_equal(
        ~masks.running_cell_pattern((7, 4, 6), 0.5, 1), np.roll(hidden, -1, axis=0)[:7]
    )


@clause("CELL-1", "CELL-3")
@pytest.mark.parametrize(("ratio", "count"), [(0.25, 1176), (0.5, 784), (0.6, 784), (0.9, 392)])
def test_running_cells_decode_a_static_number_and_use_every_pointer(ratio, count):
    """CELL-1 (int(4 ratio) of 4 are hidden), CELL-3."""
    patterns = [
        np.flatnonzero(masks.running_cell_pattern(GRID, ratio, pointer)) for pointer in range(4)
    ]
    drawn = set()
    for seed in range(40):
        decoded = masks.running_cell(GRID, ratio, np.random.default_rng(seed))
        assert len(decoded) == count
        drawn |= {p for p in range(4) if np.array_equal(decoded, patterns[p])}
    assert drawn == {0, 1, 2, 3}


@clause("CELL-4")
def test_odd_grids_drop_a_surplus_at_random():
    """CELL-4: the smallest count over the pointers, and no id from outside a pattern."""
    grid, by_pointer = (3, 5, 5), {}
    patterns = [set(np.flatnonzero(masks.running_cell_pattern(grid, 0.5, p))) for p in range(4)]
    counts = [len(pattern) for pattern in patterns]
    assert len(set(counts)) > 1 and masks.running_cell_count(grid, 0.5) == min(counts)
    for seed in range(60):
        decoded = set(masks.running_cell(grid, 0.5, np.random.default_rng(seed)))
        pointers = [p for p in range(4) if decoded <= patterns[p]]
        assert len(decoded) == min(counts) and pointers
        for pointer in pointers:
            by_pointer.setdefault(pointer, set()).add(frozenset(decoded))
    largest = int(np.argmax(counts))
    assert len(by_pointer[largest]) > 1, "the surplus must not always be the same ids"


@clause("DUAL-1", "DUAL-2", "DUAL-3", "DUAL-4")
@pytest.mark.parametrize(
    ("grid", "decoder_ratio", "masked_decoded", "decoded", "length", "length_v1"),
    [
        (GRID, 0.5, 704, 784, 944, 1568),
        (GIANT_GRID, 0.5, 920, 1024, 1232, 2048),
        (GRID, 0.25, 1056, 1176, 1336, 1568),
        (GRID, 0.75, 352, 392, 552, 1568),
    ],
)
def test_dual_masking_is_static(grid, decoder_ratio, masked_decoded, decoded, length, length_v1):
    """DUAL-1 to DUAL-4: lengths, the constant overlap, and the weight computed in two ways."""
    plain = masks.pretraining(grid, np.random.default_rng(0))
    assert set(plain) == {"visible", "decoded"}
    assert len(plain["visible"]) + len(plain["decoded"]) == length_v1
    for seed in range(30):
        ids = masks.pretraining(grid, np.random.default_rng(seed), decoder_ratio=decoder_ratio)
        assert ids["weight"].dtype == np.float32
        assert ids["weight"].sum() == masked_decoded and len(ids["decoded"]) == decoded
        assert len(ids["visible"]) + len(ids["decoded"]) == length
        again = reference.decoded_weight(ids["visible"][None], ids["decoded"][None])
        np.testing.assert_array_equal(again[0], ids["weight"])


# Model -------------------------------------------------------------------------------------------


@clause("ENC-1", "ENC-2", "DEC-1", "DEC-2", "DEC-3")
def test_the_forward_by_its_named_parts():
    """ENC-1, ENC-2, DEC-1 to DEC-3: shapes, order, and no leak from tokens that are not visible."""
    config, batch = small_config(), small_batch()
    weights = weights_of(config)
    out = reference.forward(config, weights, batch, named=True)
    shapes = {name: value.shape for name, value in out.items()}
    assert list(shapes) == [
        "embedded", "encoder/block_0", "encoder/block_1", "encoder/norm", "bridge",
        "decoder/input", "decoder/block_0", "decoder/norm", "predictions",
    ]  # fmt: skip
    assert shapes["embedded"] == shapes["encoder/norm"] == (2, 4, 8)
    assert shapes["decoder/input"] == shapes["decoder/block_0"] == (2, 10, 12)
    assert shapes["predictions"] == (2, 6, 96)

    positions = reference.sinusoid_positions(12, 12)
    query = out["decoder/input"][:, 4:]
    close(query, weights["mask_token"] + positions[batch["decoded"]], 1e-12)
    close(out["decoder/input"][:, :4], out["bridge"] + positions[batch["visible"]], 1e-12)

    hidden = np.setdiff1d(np.arange(12), batch["visible"][0])
    tokens = reference.tubelets(batch["video"], config.tubelet)
    tokens[0, hidden] = 255 - tokens[0, hidden]
    changed = {**batch, "video": reference.untubelets(tokens, (2, 2, 3), config.tubelet)}
    np.testing.assert_array_equal(reference.forward(config, weights, changed), out["predictions"])

    turned = {**batch, "decoded": batch["decoded"][:, ::-1]}
    close(reference.forward(config, weights, turned)[:, ::-1], out["predictions"], 1e-10)


@clause("BLOCK-6", "BLOCK-7")
def test_branches_are_scaled_and_dropped_per_clip():
    """BLOCK-6, BLOCK-7: a factor is a larger layer scale; clips and stacks drop alone."""
    config = small_config(layer_scale=0.1)
    weights = weights_of(config)
    x = np.random.default_rng(7).standard_normal((2, 5, 8))
    path = "encoder/block_0"
    scales = {f"{path}/scale1": 2.0, f"{path}/scale2": 3.0}
    scaled = weights | {name: factor * weights[name] for name, factor in scales.items()}
    keep = np.array([[2.0, 2.0], [3.0, 3.0]])
    close(
        reference.block(x, weights, path, heads=2, keep=keep),
        reference.block(x, scaled, path, heads=2),
        1e-12,
    )
    half = reference.block(x, weights, path, heads=2, keep=np.array([[0.0, 1.0], [0.0, 1.0]]))
    np.testing.assert_array_equal(half[0], x[0])
    close(half[1], reference.block(x, weights, path, heads=2)[1], 1e-12)
    np.testing.assert_array_equal(training.drop_path_rates(0.2, 3), [0.0, 0.1, 0.2])

    keep = {"encoder_keep": np.ones((2, 2, 2)), "decoder_keep": np.zeros((1, 2, 2))}
    keep["encoder_keep"][1] = 0
    out = reference.forward(config, weights, small_batch(), named=True, **keep)
    assert (out["encoder/block_0"] != out["embedded"]).any()
    np.testing.assert_array_equal(out["encoder/block_1"], out["encoder/block_0"])
    np.testing.assert_array_equal(out["decoder/block_0"], out["decoder/input"])


def torch_forward(torch, config, weights, batch):
    """The same model from torch's own convolution, norm, activation and attention, in float64."""
    functional = torch.nn.functional

    def norm(x, path):
        gamma, beta = weights[f"{path}/gamma"], weights[f"{path}/beta"]
        return functional.layer_norm(x, x.shape[-1:], gamma, beta, config.layer_norm_epsilon)

    def attention(x, path, heads):
        q_bias, v_bias = weights[f"{path}/q_bias"], weights[f"{path}/v_bias"]
        bias = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
        qkv = functional.linear(x, weights[f"{path}/qkv/kernel"].T, bias)
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if config.cosine_attention:
            scale = weights[f"{path}/log_scale"].clamp(max=4.6052).exp()
            q, k = functional.normalize(q, dim=-1) * scale, functional.normalize(k, dim=-1)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, scale=1.0 if config.cosine_attention else None
        )
        kernel, bias = weights[f"{path}/projection/kernel"], weights[f"{path}/projection/bias"]
        return functional.linear(mixed.transpose(1, 2).flatten(2), kernel.T, bias)

    def stack(x, part, depth, heads):
        for path in (f"{part}/block_{i}" for i in range(depth)):
            scales = [weights.get(f"{path}/scale{n}", 1.0) for n in (1, 2)]
            x = x + scales[0] * attention(norm(x, f"{path}/norm1"), f"{path}/attention", heads)
            hidden = norm(x, f"{path}/norm2") @ weights[f"{path}/mlp/hidden/kernel"]
            hidden = functional.gelu(hidden + weights[f"{path}/mlp/hidden/bias"])
            hidden = hidden @ weights[f"{path}/mlp/output/kernel"]
            x = x + scales[1] * (hidden + weights[f"{path}/mlp/output/bias"])
        return x

    def chosen(tokens, ids):
        return tokens.gather(1, ids[..., None].expand(-1, -1, tokens.shape[-1]))

    def positions(dim):
        angle = torch.arange(12)[:, None] / 10000 ** (torch.arange(0, dim, 2).double() / dim)
        table = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
        return table.expand(len(batch["video"]), -1, -1)

    visible, decoded = (torch.tensor(batch[name]) for name in ("visible", "decoded"))
    video = torch.tensor(batch["video"]).double() / 255
    mean, std = (torch.tensor(value, dtype=torch.float64) for value in (config.mean, config.std))
    video = (video - mean) / std
    kernel = weights["tubelet_embedding/kernel"].reshape(*config.tubelet, 3, -1)
    tokens = functional.conv3d(
        video.permute(0, 4, 1, 2, 3), kernel.permute(4, 3, 0, 1, 2),
        weights["tubelet_embedding/bias"], stride=config.tubelet,
    ).flatten(2).transpose(1, 2) + positions(config.dim)  # fmt: skip
    x = stack(chosen(tokens, visible), "encoder", config.depth, config.heads)
    known = norm(x, "encoder/norm") @ weights["bridge/kernel"]
    table = positions(config.decoder_dim)
    query = weights["mask_token"] + chosen(table, decoded)
    x = torch.cat([known + chosen(table, visible), query], 1)
    x = stack(x, "decoder", config.decoder_depth, config.decoder_heads)
    x = norm(x[:, -decoded.shape[1] :], "decoder/norm")
    return x @ weights["head/kernel"] + weights["head/bias"]


CONFIGS = {
    "plain": small_config(),
    "layer scale": small_config(layer_scale=0.1),
    "cosine attention": small_config(cosine_attention=True),
    "epsilon": small_config(layer_norm_epsilon=1e-3),
}


@clause("EMBED-1", "EMBED-2", "BLOCK-1", "BLOCK-2", "BLOCK-3", "BLOCK-4", "BLOCK-5", "BLOCK-6")
@clause("BLOCK-8", "INPUT-2", "DEC-1", "DEC-2")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_torch_agrees_in_float64_on_predictions_loss_and_gradient(config):
    """EMBED-1 to DEC-2: torch as a witness; its gradient against finite differences."""
    torch = pytest.importorskip("torch")
    batch, weights = small_batch(), weights_of(config)
    if config.cosine_attention:  # one head beyond the clamp, one inside it
        for name in weights:
            if name.endswith("log_scale"):
                weights[name].flat[:2] = 6.0, 1.5
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    predictions = torch_forward(torch, config, tensors, batch)
    close(reference.forward(config, weights, batch), predictions.detach().numpy(), 1e-12)

    wanted = torch.tensor(reference.target(config, batch["video"], batch["decoded"]))
    per_token = torch.nn.functional.mse_loss(predictions, wanted, reduction="none").mean(-1)
    weight = torch.tensor(batch["weight"])
    loss = (per_token * weight).sum() / weight.sum()
    assert reference.pretraining_loss(config, weights, batch) == pytest.approx(loss.item(), 1e-12)
    loss.backward()
    entries = [(name, tuple(s // 2 for s in value.shape)) for name, value in weights.items()][::3]
    slopes = [tensors[name].grad.numpy()[index] for name, index in entries]
    close(training.gradient(config, weights, batch, entries), slopes, 1e-6)


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def swapped_tubelets(video, tubelet, cut=reference.tubelets):
    tokens = cut(video, tubelet)
    return tokens.reshape(*tokens.shape[:2], 2, 4, 4, 3).swapaxes(3, 4).reshape(tokens.shape)


MUTANTS = {
    "tanh gelu": ("gelu", tanh_gelu),
    "epsilon 1e-5": (
        "layer_norm",
        lambda x, gamma, beta, epsilon, norm=reference.layer_norm: norm(x, gamma, beta, 1e-5),
    ),
    "positions one off": (
        "sinusoid_positions",
        lambda count, dim, table=reference.sinusoid_positions: table(count + 1, dim)[1:],
    ),
    "swapped tubelet axes": ("tubelets", swapped_tubelets),
}


@clause("BLOCK-2", "BLOCK-5", "POS-1", "TUBE-2")
@pytest.mark.parametrize(("name", "mutant"), MUTANTS.values(), ids=MUTANTS)
def test_weights_of_half_show_a_wrong_detail(monkeypatch, name, mutant):
    """BLOCK-2, BLOCK-5, POS-1, TUBE-2: each of these bugs moves a prediction by more than 1e-6."""
    config, batch = small_config(), small_batch()
    weights = weights_of(config)
    right = reference.forward(config, weights, batch)
    monkeypatch.setattr(reference, name, mutant)
    assert np.abs(reference.forward(config, weights, batch) - right).max() > 1e-6


# Target and loss ---------------------------------------------------------------------------------


@clause("TARGET-1", "TARGET-2", "TARGET-3", "TARGET-4", "RECON-1")
def test_the_target_of_one_tubelet_by_hand():
    """TARGET-1 to TARGET-4, RECON-1: per channel, unbiased, epsilon outside the root; and back."""
    config, batch = small_config(), small_batch()
    batch["video"][0, :2, :4, :4] = 80  # token 0 of the first clip has one colour
    batch["decoded"][0, 0] = 0
    wanted = reference.target(config, batch["video"], batch["decoded"])
    assert np.isfinite(wanted).all() and np.abs(wanted[0, 0]).max() < 1e-9

    token = int(batch["decoded"][1, 3])
    ti, hi, wi = token // 6, token // 3 % 2, token % 3
    piece = batch["video"][1, 2 * ti : 2 * ti + 2, 4 * hi : 4 * hi + 4, 4 * wi : 4 * wi + 4] / 255
    for channel in range(3):
        pixels = piece[..., channel].ravel()
        spread = math.sqrt(((pixels - pixels.mean()) ** 2).sum() / (len(pixels) - 1))
        close(wanted[1, 3, channel::3], (pixels - pixels.mean()) / (spread + 1e-6), 1e-12)

    raw = reference.target(small_config(norm_pix=False), batch["video"], batch["decoded"])
    np.testing.assert_array_equal(raw[1, 3], piece.ravel())
    mean, variance = reference.statistics(config, batch["video"], batch["decoded"])
    close(reference.reconstruct(wanted, mean, variance), raw, 1e-12)


@clause("LOSS-1", "LOSS-2")
def test_v2_with_decoded_equal_to_masked_is_v1():
    """LOSS-1, LOSS-2: ones change nothing; a zero removes a token and its count."""
    generator = np.random.default_rng(8)
    predictions, wanted = generator.random((2, 2, 6, 96))
    plain = reference.loss(predictions, wanted)
    assert plain == pytest.approx(np.mean((predictions - wanted) ** 2), rel=1e-14)
    ids = masks.pretraining(GRID, generator)
    weight = reference.decoded_weight(ids["visible"][None], ids["decoded"][None])
    assert (weight == 1).all()
    assert reference.loss(predictions, wanted, np.ones((2, 6))) == plain

    weight = np.ones((2, 6))
    weight[0, :3] = 0
    rest = np.r_[predictions[0, 3:] - wanted[0, 3:], predictions[1] - wanted[1]]
    assert reference.loss(predictions, wanted, weight) == pytest.approx(np.mean(rest**2), rel=1e-14)


# Weights, initialisation, schedule ---------------------------------------------------------------


def variant(*sizes, patch=16):
    names = "dim depth heads mlp_dim decoder_dim decoder_heads decoder_mlp_dim decoder_depth"
    fields = dict(zip(names.split(), sizes, strict=True))
    return small_config(tubelet=(2, patch, patch), **fields)


@clause("COUNT-1", "COUNT-2", "CONFIG-2")
@pytest.mark.parametrize(
    ("sizes", "encoder", "classifier", "pretraining"),
    [
        ((384, 12, 6, 1536, 192, 3, 768, 4), 21.9, 22.0, 24.0),
        ((768, 12, 12, 3072, 384, 6, 1536, 4), 86.2, 86.5, 94.2),
        ((1024, 24, 16, 4096, 512, 8, 2048, 12), 303.9, 304.3, 343.0),
        ((1024, 24, 16, 4096, 512, 8, 2048, 4), 303.9, 304.3, 317.8),
        ((1280, 32, 16, 5120, 640, 8, 2560, 12), 631.6, 632.1, 692.5),
        ((1280, 32, 16, 5120, 512, 8, 2048, 4), 631.6, 632.1, 645.7),
        ((1408, 40, 16, 6144, 512, 8, 2234, 4), 1011.6, 1012.2, 1026.3),
    ],
    ids=["S", "B", "L V1", "L V2", "H V1", "H V2", "g"],
)
def test_parameter_counts(sizes, encoder, classifier, pretraining):
    """COUNT-1, COUNT-2: the published millions and the exact numbers of SPEC.md's table."""
    config = variant(*sizes, patch=14 if sizes[0] == 1408 else 16)
    total, seen = training.count_parameters(config), training.count_encoder_parameters(config)
    assert round(total / 1e6, 1) == pretraining
    assert round(seen / 1e6, 1) == encoder
    assert round((seen + 400 * (config.dim + 1)) / 1e6, 1) == classifier
    assert f"| {seen:,} | {total:,} |" in SPECIFICATION.read_text(encoding="utf-8")
    assert (int(1408 * 48 / 11), int(512 * 48 / 11)) == (6144, 2234)


@clause("WEIGHT-1")
def test_the_forward_needs_every_weight():
    """WEIGHT-1: no weight of the table is unused, none is missing from it."""
    config = small_config(layer_scale=0.1, cosine_attention=True)
    weights, batch = weights_of(config), small_batch()
    right = reference.forward(config, weights, batch)
    generator = np.random.default_rng(
        9
    )  # a constant added to a kernel would vanish in the next norm
    for name, value in weights.items():
        changed = {**weights, name: value + 0.1 * generator.standard_normal(value.shape)}
        moved = reference.forward(config, changed, batch)
        assert np.abs(moved - right).max() > 1e-9, name


@clause("INIT-1", "INIT-2", "INIT-3", "INIT-4")
def test_the_initialisation_names_every_weight():
    """INIT-1 to INIT-4: bounds of the base model's weights."""
    rules = training.initialisation(variant(768, 12, 12, 3072, 384, 6, 1536, 4))
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


@clause("OPT-2")
def test_weight_decay_touches_kernels_only():
    """OPT-2."""
    shapes = training.weight_shapes(small_config(layer_scale=0.1, cosine_attention=True))
    decayed = {name for name, shape in shapes.items() if training.decayed(name, shape)}
    assert decayed == {name for name in shapes if name.endswith("kernel")}


@clause("OPT-3", "OPT-4")
def test_the_learning_rate_schedule():
    """OPT-3, OPT-4: against upstream's list, built from linspace and a cosine."""
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
    np.testing.assert_allclose(rates, upstream, rtol=1e-14)
    assert rates[4] == rates[5] == peak and rates[-1] > floor
    assert all(a > b for a, b in pairwise(rates[5:]))


# The specification itself ------------------------------------------------------------------------


def test_clause_ids_are_unique_and_every_clause_named_here_exists():
    """Ids of SPEC.md: no duplicate, none invented by this file, and each clause binds."""
    lines = re.findall(r"(?m)^- \*\*([A-Z]+-\d+)\*\* (.*)$", SPECIFICATION.read_text("utf-8"))
    ids = [name for name, _ in lines]
    assert len(ids) == len(set(ids)) > 50
    named = set(re.findall(r'"([A-Z]+-\d+)"', Path(__file__).read_text("utf-8")))
    assert named and named <= set(ids)
    assert all(re.search(r"\*[^*]+\*$", text) for _, text in lines), "a clause without a source"
    assert all("MUST" in text or "SHOULD" in text for _, text in lines), (
        "a clause that binds nobody"
    )
