"""Tests of identifying Hugging Face's ViT and ViTMAE files: contents, ignored tensors, refusals."""

import numpy as np
import pytest

from backends_tests.once.test_recognise import faults, holds
from backends_tests.upstream_files import hugging_face_settings, small, tensors, write
from spec.position_reference import planar_positions
from vmae_keras import VideoMAEConfig
from vmae_keras.runs.model_files import read_stored
from vmae_keras.weights.tensor_files import WeightsError
from vmae_keras.weights.write import write_hugging_face, write_official

CONFIG = small(
    frames=1,
    height=32,
    width=48,
    tubelet=(1, 16, 16),
    class_token=True,
    learned_positions=True,
    decoder_dim=8,
    layer_norm_epsilon=1e-12,
)
MAE = {"planar_positions": True, "bridge_bias": True, "mae_target": True, "norm_pix": False}
TABLES = ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed")
WIDTH = 8  # of encoder and decoder
PREPROCESSING = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}


def settings(model_type, **changes):
    """Return a `config.json`, which has neither frames nor tubelets."""
    values = hugging_face_settings(CONFIG, model_type=model_type, **changes)
    return {
        key: value for key, value in values.items() if "frames" not in key and "tubelet" not in key
    }


def key_biases(stored):
    """Return a random key bias for each query bias."""
    return {
        name.replace("query", "key"): np.random.default_rng(0)
        .normal(size=value.shape)
        .astype("float32")
        for name, value in stored.items()
        if name.endswith("query.bias")
    }


def table():
    """Return a position table (1, 1 + N, D) as MAE stores it."""
    return np.pad(planar_positions(2, 3, WIDTH), ((1, 0), (0, 0)))[None].astype("float32")


def mae(dtype="float32"):
    """Return the tensors of a pretrained MAE, with both of its tables, and our weights."""
    config = small(**{**vars(CONFIG), **MAE, "learned_positions": False})
    stored, expected = tensors(config, "pretraining", "vit")
    stored = {**stored, **key_biases(stored), **dict.fromkeys(TABLES, table())}
    expected = {path: value.astype(dtype).astype("float32") for path, value in expected.items()}
    return {name: value.astype(dtype) for name, value in stored.items()}, expected


@pytest.mark.clause("IMAGE-7", "WEIGHT-3", "IMAGE-1", "IMAGE-4", "IMAGE-5")
@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_pretrained_mae_has_every_weight_and_computed_positions(dtype, wrapper, tmp_path):
    stored, expected = mae(dtype)
    stored = {wrapper + name: value for name, value in stored.items()}
    told = settings("vit_mae", norm_pix_loss=False)
    found = read_stored(write(tmp_path / "x", stored, told, PREPROCESSING), {})
    assert (found.kind, found.pooling, found.origin, found.notes) == (
        "pretraining",
        None,
        "vit",
        (),
    )
    wanted = {**vars(CONFIG), **MAE, "learned_positions": False}
    wanted |= {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)}
    assert found.config == VideoMAEConfig(**wanted)
    assert holds(found, expected)


@pytest.mark.clause("IMAGE-7", "FT-2")
def test_a_classifier_has_learned_positions_and_its_labels(tmp_path):
    stored, expected = tensors(CONFIG, "classifier first", "vit")
    names = {str(i): f"thing {i}" for i in range(5)}
    path = write(
        tmp_path / "x", stored | key_biases(stored), settings("vit", id2label=names), PREPROCESSING
    )
    found = read_stored(path, {})
    assert (found.kind, found.pooling, found.classes) == ("classifier", "first", 5)
    assert found.labels == tuple(names.values()) and found.notes == ()
    assert found.config.learned_positions and not found.config.planar_positions
    assert holds(found, expected)


@pytest.mark.clause("IMAGE-7")
def test_a_bare_model_is_an_encoder_without_its_pooler(tmp_path):
    stored, expected = tensors(CONFIG, "classifier first", "vit")
    bare = {
        name.removeprefix("vit."): value
        for name, value in (stored | key_biases(stored)).items()
        if not name.startswith("classifier.")
    }
    bare |= {"pooler.dense.weight": np.ones((8, 8), "f"), "pooler.dense.bias": np.ones(8, "f")}
    found = read_stored(write(tmp_path / "x", bare, settings("vit")), {})
    assert (found.kind, found.pooling) == ("encoder", None)
    assert found.config.mean == found.config.std == (0.5, 0.5, 0.5)
    assert found.notes == (
        "there is no preprocessor_config.json beside the file, so mean and std are assumed to be .5",
    )
    assert holds(found, {p: value for p, value in expected.items() if not p.startswith("head/")})


@pytest.mark.clause("IMAGE-7", "POS-5")
@pytest.mark.parametrize("wrong", [lambda t: t + 1e-4, lambda t: t[:, ::-1], lambda t: 0 * t])
def test_other_positions_are_learned_by_the_encoder_and_refused_by_the_decoder(wrong, tmp_path):
    stored, expected = mae()
    name, of_decoder = TABLES
    other = np.ascontiguousarray(wrong(table()))
    path = write(tmp_path / "x", {**stored, name: other}, settings("vit_mae"))
    found = read_stored(path, {})
    assert found.config.learned_positions and found.config.planar_positions
    assert holds(found, expected | {"tubelet_embedding/positions": other[0]})
    path = write(tmp_path / "y", {**stored, of_decoder: other}, settings("vit_mae"))
    with pytest.raises(WeightsError) as caught:
        read_stored(path, {})
    assert faults(caught) == {f"not the fixed positions of (1, 2, 3) tokens: {of_decoder}"}


@pytest.mark.clause("IMAGE-7", "WEIGHT-3")
def test_tensors_that_are_missing_or_of_another_model_are_listed(tmp_path):
    stored, _ = mae()
    del (
        stored["decoder.decoder_norm.bias"],
        stored["vit.encoder.layer.1.attention.attention.key.weight"],
    )
    stored["vit.embeddings.distillation_token"] = np.ones((1, 1, 8), "f")
    with pytest.raises(WeightsError) as caught:
        read_stored(write(tmp_path / "x", stored, settings("vit_mae")), {})
    assert faults(caught) == {
        "missing: decoder.decoder_norm.bias",
        "missing: vit.encoder.layer.1.attention.attention.key.weight",
        "unexpected: vit.embeddings.distillation_token",
    }


def test_no_format_of_videomae_can_hold_an_image_model(tmp_path):
    stored, _ = mae()
    found = read_stored(write(tmp_path / "x", stored, settings("vit_mae")), {})
    for written in (write_official, write_hugging_face):
        with pytest.raises(
            WeightsError, match="class_token=True, planar_positions=True, bridge_bias"
        ):
            written(found, tmp_path / "out")
    assert not (tmp_path / "out").exists()
