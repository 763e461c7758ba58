"""Tests of the oracle's class token, positions and target of images, against transformers and by hand."""

import math

import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.oracle.small_model import small_config
from spec import (
    cost_reference,
    gradient_reference,
    masks_reference,
    position_reference,
    reference,
    training_reference,
)
from spec import layers_reference as layers
from spec.config import Config
from spec.conformance.cases import MAE, Case
from spec.weight_table import TABLE, expand

clause = pytest.mark.clause


@pytest.fixture(scope="module")
def files():
    """Return the helpers that build models of transformers; skip the tests if it is not installed."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from backends_tests.peers import hugging_face_image_files

    return hugging_face_image_files


def config_of(theirs, **changes):
    """Return the specification's configuration of a small model of transformers."""
    side, patch = theirs.image_size, theirs.patch_size
    decoder = (
        {}
        if theirs.model_type == "vit"
        else {
            "decoder_dim": theirs.decoder_hidden_size,
            "decoder_depth": theirs.decoder_num_hidden_layers,
            "decoder_heads": theirs.decoder_num_attention_heads,
            "norm_pix": theirs.norm_pix_loss,
            "decoder_mlp_dim": theirs.decoder_intermediate_size,
            "bridge_bias": True,
            "planar_positions": True,
            "mae_target": True,
        }
    )
    return Config(
        frames=1,
        height=side,
        width=side,
        tubelet=(1, patch, patch),
        dim=theirs.hidden_size,
        depth=theirs.num_hidden_layers,
        heads=theirs.num_attention_heads,
        mlp_dim=theirs.intermediate_size,
        layer_norm_epsilon=theirs.layer_norm_eps,
        class_token=True,
        **decoder,
        **changes,
    )


def weights_of(folder, config, model):
    """Return our weights of a file, by the table, and the names of its unused tensors."""
    from safetensors.numpy import load_file

    stored = load_file(folder / "model.safetensors")
    for start, released in TABLE["vit_alias"].items():
        stored = {name.replace(start, released): value for name, value in stored.items()}
    weights = {
        path: weight.from_upstream([stored.pop(name) for name in weight.names["vit"]])
        for path, weight in expand(config, model, classes=5).items()
    }
    return weights, set(stored)


def left_out(blocks):
    """Return the key biases of parts of the model, with one block each."""
    return {f"{part}.attention.attention.key.bias" for part in blocks}


@clause("IMAGE-1", "IMAGE-2", "IMAGE-4", "IMAGE-5", "IMAGE-6", "IMAGE-7")
@pytest.mark.parametrize("norm_pix", [True, False])
def test_a_mae_of_transformers_in_float64_is_the_oracles(files, norm_pix, tmp_path):
    settings = {**files.SMALL, **files.DECODER, "num_hidden_layers": 1, "norm_pix_loss": norm_pix}
    theirs = files.build("MAE", **settings).double()
    theirs.vit.embeddings.position_embeddings.data = files.table(4, 32).double()
    theirs.save_pretrained(tmp_path)
    config = config_of(theirs.config)
    weights, rest = weights_of(tmp_path, config, "pretraining")
    keys = left_out(["vit.encoder.layer.0", "decoder.decoder_layers.0"])
    assert rest - keys == {"vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"}
    video = files.random_images(theirs.config)
    generator = np.random.default_rng(0)
    ids = [
        masks_reference.pretraining(config.grid, generator, kind="random", ratio=0.75)
        for _ in video
    ]
    batch = {name: np.stack([one[name] for one in ids]) for name in ids[0]} | {"video": video}
    expected, expected_loss = files.run(theirs, video, batch["visible"])
    expected = reference.take(expected, batch["decoded"])
    # Its tables are rounded to float32.
    assert_close(reference.forward(config, weights, batch), expected, "float32")
    assert_close(reference.pretraining_loss(config, weights, batch), expected_loss, "float32")


@clause("IMAGE-1", "IMAGE-3", "IMAGE-7", "FT-2")
def test_a_vit_of_transformers_in_float64_is_the_oracles(files, tmp_path):
    theirs = files.build("ViT classifier", **files.SMALL, num_labels=5).double()
    theirs.save_pretrained(tmp_path)
    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    config = config_of(theirs.config, learned_positions=True, **half)
    weights, rest = weights_of(tmp_path, config, "classifier first")
    assert rest == left_out(["vit.encoder.layer.0", "vit.encoder.layer.1"])
    video = files.random_images(theirs.config)
    expected, _ = files.run(theirs, video)
    assert_close(reference.classify(config, weights, video, pooling="first"), expected, "float64")


@clause("IMAGE-4")
def test_planar_positions_by_hand_and_as_transformers_makes_them(files):
    assert position_reference.planar_positions(2, 3, 4)[5].tolist() == [
        math.sin(2),
        math.cos(2),
        math.sin(1),
        math.cos(1),
    ]
    row = position_reference.planar_positions(2, 3, 8)[2]
    np.testing.assert_allclose(row[[0, 1, 3]], [math.sin(2), math.sin(0.02), math.cos(0.02)])
    np.testing.assert_allclose(row[4:], [0, 0, 1, 1])
    made = files.table(14, 768)[0].numpy()
    assert not made[0].any()
    assert_close(made[1:], position_reference.planar_positions(14, 14, 768), "float32")


@clause("COUNT-1", "COUNT-2", "COUNT-5", "IMAGE-1", "IMAGE-5")
@pytest.mark.parametrize(
    ("name", "kind", "published"),
    [("mae-b", "MAE", 111_907_840), ("vit-b", "ViT classifier", 86_567_656)],
)
def test_counts_are_those_of_transformers_but_for_key_biases_and_tables(
    files, name, kind, published
):
    import torch

    model, settings = files.MODELS[kind]
    config = Config.variant(name)
    with torch.device("meta"):
        theirs = dict(model(settings(num_labels=1000)).named_parameters())
    assert sum(parameter.numel() for parameter in theirs.values()) == published
    extra = config.depth * config.dim
    if name == "mae-b":
        extra += config.decoder_depth * config.decoder_dim + 197 * (config.dim + config.decoder_dim)
        ours = cost_reference.count_parameters(config)
    else:
        ours = cost_reference.count_encoder_parameters(config) + 1000 * (config.dim + 1)
    assert ours + extra == published


@clause("COUNT-5")
def test_a_class_token_is_one_token_more_in_the_stacks_and_the_bridge():
    config = small_config(class_token=True)
    sizes = (config.dim, config.mlp_dim, config.depth)
    embedding, head = 12 * 96 * 8, 8 * 5
    assert cost_reference.view_multiply_accumulates(config, 5) == (
        embedding + cost_reference.stack_multiply_accumulates(13, *sizes) + head
    )
    decoder = (config.decoder_dim, config.decoder_mlp_dim, config.decoder_depth)
    assert cost_reference.pretraining_multiply_accumulates(config, 4, 6) == (
        4 * 96 * 8
        + cost_reference.stack_multiply_accumulates(5, *sizes)
        + 5 * 8 * 12
        + cost_reference.stack_multiply_accumulates(11, *decoder)
        + 6 * 12 * 96
    )
    view = cost_reference.view_multiply_accumulates(Config.variant("vit-b"), 1000)
    assert round(view / 1e9, 2) == 17.56


@clause("IMAGE-1", "OPT-2")
def test_a_class_token_starts_normal_and_does_not_decay():
    config = small_config(class_token=True)
    name = "tubelet_embedding/class_token"
    assert training_reference.weight_shapes(config)[name] == (1, 1, 8)
    for rules in (
        training_reference.initialisation(config),
        training_reference.classifier_initialisation(config, 5),
    ):
        assert rules[name] == ("normal", 0.02)
    assert not training_reference.decayed(name, (1, 1, 8))
    assert training_reference.layer_decay_scale(name, 2, 0.5) == 0.125


@clause("IMAGE-1", "IMAGE-3")
def test_the_class_token_has_the_first_position_and_stays_out_of_the_mean():
    config = small_config(class_token=True, learned_positions=True)
    shapes = training_reference.classifier_weight_shapes(config, 5)
    assert shapes["tubelet_embedding/positions"] == (13, 8)
    weights = training_reference.random_weights_of(shapes, np.random.default_rng(0))
    video = np.random.default_rng(1).integers(0, 256, (2, 4, 8, 12, 3), dtype=np.uint8)
    out = reference.classify(config, weights, video, named=True)
    first = (
        weights["tubelet_embedding/class_token"][0, 0] + weights["tubelet_embedding/positions"][0]
    )
    np.testing.assert_array_equal(out["embedded"][:, 0], [first, first])
    pooled = layers.norm(out["encoder/block_1"][:, 1:].sum(1) / 12, weights, "fc_norm", config)
    assert_close(out["fc_norm"], pooled, "float64")


@clause("IMAGE-6")
def test_maes_target_by_hand_and_back():
    config = small_config(mae_target=True)
    video = np.random.default_rng(0).integers(0, 256, (1, 4, 8, 12, 3), dtype=np.uint8)
    video[:, :2, :4, :4] = 77
    ids = np.array([[4, 0]])
    wanted = reference.target(config, video, ids)
    piece = (video[0, :2, 4:, 4:8] / 255 - config.mean) / config.std
    values = piece.ravel()
    spread = math.sqrt(((values - values.mean()) ** 2).sum() / (len(values) - 1) + 1e-6)
    assert_close(wanted[0, 0], (values - values.mean()) / spread, "float64")
    assert np.isfinite(wanted).all()
    raw = reference.target(small_config(mae_target=True, norm_pix=False), video, ids)
    assert_close(raw[0, 0], values, "float64")
    back = reference.reconstruct(config, wanted, *reference.statistics(config, video, ids))
    assert_close(back[0, 0], video[0, :2, 4:, 4:8].ravel() / 255, "float64")


@clause("IMAGE-1", "IMAGE-2", "IMAGE-5")
def test_derivatives_by_the_class_token_its_position_and_the_bridges_bias():
    config = small_config(class_token=True, learned_positions=True, bridge_bias=True)
    one = Case("image", config)
    _, gradients = gradient_reference.pretraining_gradients(config, one.weights, one.batch)
    assert gradients.keys() == one.weights.keys()
    seen = 1 + one.batch["visible"][0, 0]
    entries = [
        ("tubelet_embedding/class_token", (0, 0, 3)),
        ("tubelet_embedding/positions", (0, 5)),
        ("tubelet_embedding/positions", (seen, 3)),
        ("tubelet_embedding/kernel", (7, 2)),
        ("bridge/bias", (4,)),
        ("bridge/kernel", (1, 4)),
    ]
    slopes = training_reference.gradient(config, one.weights, one.batch, entries)
    analytic = np.array([gradients[name][index] for name, index in entries])
    assert np.abs(analytic).min() > 1e-6
    assert_close(analytic, slopes, "difference_quotient")


@clause("MASK-3", "MASK-5")
@pytest.mark.parametrize("kind", ["random", "agnostic"])
def test_maes_masks_leave_a_quarter_of_196_patches(kind):
    ids = masks_reference.pretraining((1, 14, 14), np.random.default_rng(0), kind=kind, ratio=0.75)
    assert (len(ids["visible"]), len(ids["decoded"])) == (49, 147)


@clause("IMAGE-2")
def test_no_prediction_is_of_the_class_token():
    """Check that the class token enters the decoder first, unchanged, but has no prediction."""
    out = reference.forward(MAE.config, MAE.weights, MAE.batch, named=True)
    np.testing.assert_array_equal(out["decoder/input"][:, 0], out["bridge"][:, 0])
    assert out["predictions"].shape[1] == MAE.batch["decoded"].shape[1]
    assert out["bridge"].shape[1] == 1 + MAE.batch["visible"].shape[1]
