"""Tests that our weights and their upstream names match spec/weights.toml, for every model and upstream."""

import numpy as np
import pytest

from backends_tests.upstream_files import small
from spec import cost_reference, training_reference
from spec.config import VARIANTS, Config
from spec.weight_table import MODELS, UPSTREAMS, expand
from vmae_keras import VideoMAEConfig
from vmae_keras.weights import names

CLASSES = 7
OPTIONS = {
    "plain": {},
    "layer scale": {"layer_scale": 0.1},
    "cosine attention": {"cosine_attention": True},
    "no biases": {"query_value_bias": False},
    "learned positions": {"learned_positions": True},
    "no encoder norm": {"encoder_norm": False},
    "one channel": {"channels": 1, "mean": (0.5,), "std": (0.25,)},
    "unlike sides": {"tubelet": (1, 7, 16)},
    "ViT": {"frames": 1, "tubelet": (1, 16, 16), "class_token": True, "learned_positions": True},
    "MAE": {
        "frames": 1,
        "tubelet": (1, 7, 16),
        "decoder_dim": 8,
        "class_token": True,
        "planar_positions": True,
        "bridge_bias": True,
        "mae_target": True,
    },
    "all": {
        "layer_scale": 0.1,
        "cosine_attention": True,
        "query_value_bias": False,
        "learned_positions": True,
        "encoder_norm": False,
    },
}
CONFIGS = {
    **{name: Config.variant(name) for name in VARIANTS},
    **{name: small(**changes) for name, changes in OPTIONS.items()},
}
KINDS = {  # model in the table -> kind, pooling
    "pretraining": ("pretraining", None),
    "classifier mean": ("classifier", "mean"),
    "classifier first": ("classifier", "first"),
}
# Models of each upstream. The official names depend on the model.
UPSTREAM_MODELS = [
    ("official", "pretraining"),
    ("huggingface", "pretraining"),
    ("vit", "pretraining"),
    *(
        (upstream, model)
        for upstream in ("official_classifier", "huggingface", "mmaction2", "vit")
        for model in ("classifier mean", "classifier first")
    ),
]


def ours(config):
    return VideoMAEConfig(**vars(config))


@pytest.mark.clause(
    *("WEIGHT-1", "POS-5", "OPTION-2", "OPTION-3", "BLOCK-6", "BLOCK-8", "IMAGE-1", "IMAGE-5")
)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_pretraining_weights_are_the_specifications(name):
    config = CONFIGS[name]
    found = names.shapes(ours(config), "pretraining")
    assert found == training_reference.weight_shapes(config)
    assert names.count(found) == cost_reference.count_parameters(config)


@pytest.mark.clause("FT-4")
@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_classifiers_weights_are_the_specifications(name, pooling):
    config = CONFIGS[name]
    found = names.shapes(ours(config), "classifier", pooling, CLASSES)
    expected = training_reference.classifier_weight_shapes(config, CLASSES, pooling)
    assert found == expected
    without_head = {path: s for path, s in expected.items() if not path.startswith("head/")}
    assert names.shapes(ours(config), "encoder", pooling) == without_head


@pytest.mark.clause("WEIGHT-1")
@pytest.mark.parametrize("name", CONFIGS)
def test_an_encoder_without_pooling_is_the_encoder_of_pretraining(name):
    config = CONFIGS[name]
    expected = training_reference.weight_shapes(config)
    behind = ("bridge/", "mask_token", "decoder/", "head/")
    expected = {path: s for path, s in expected.items() if not path.startswith(behind)}
    assert names.shapes(ours(config), "encoder") == expected


@pytest.mark.clause("WEIGHT-4")
@pytest.mark.parametrize(("upstream", "model"), UPSTREAM_MODELS)
@pytest.mark.parametrize("name", CONFIGS)
def test_names_and_shapes_upstream_are_those_of_the_table(name, model, upstream):
    config, (kind, pooling) = ours(CONFIGS[name]), KINDS[model]
    column = upstream.removesuffix("_classifier")
    found, expected = {}, {}
    for path, weight in expand(CONFIGS[name], model, CLASSES).items():
        expected[path] = weight.names.get(upstream, ()), weight.shape_in(upstream)
        own = names.upstream_names(path, column, kind, pooling)
        found[path] = own, names.upstream_shape(path, weight.shape, config, column)
    assert found == expected


def test_every_upstream_and_model_of_the_table_is_compared():
    upstreams, models = zip(*UPSTREAM_MODELS, strict=True)
    assert (set(upstreams), set(models)) == (set(UPSTREAMS), set(MODELS))


@pytest.mark.clause("WEIGHT-2", "EMBED-1", "IMAGE-7")
def test_a_convolution_without_time_is_one_of_a_single_frame():
    weight = expand(CONFIGS["MAE"], "pretraining")["tubelet_embedding/kernel"]
    upstream = np.random.default_rng(0).normal(size=weight.upstream_shape).astype("float32")
    flat = upstream.reshape(weight.shape_in("vit"))
    assert flat.ndim == 4 and upstream.ndim == 5
    value = names.from_upstream("tubelet_embedding/kernel", flat)
    np.testing.assert_array_equal(value, weight.from_upstream([upstream]))


@pytest.mark.clause("WEIGHT-2", "WEIGHT-4", "EMBED-1", "POS-5")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OPTIONS)
def test_layouts_are_those_of_the_table_and_are_inverted_to_the_bit(name, model):
    config, generator = ours(CONFIGS[name]), np.random.default_rng(0)
    for path, weight in expand(CONFIGS[name], model, CLASSES).items():
        upstream = generator.normal(size=weight.upstream_shape).astype("float32")
        value = names.from_upstream(path, upstream)
        assert value.shape == weight.shape and value.dtype == np.float32
        np.testing.assert_array_equal(value, weight.from_upstream([upstream]), err_msg=path)
        back = names.to_upstream(path, value, config)
        assert back.shape == upstream.shape
        np.testing.assert_array_equal(back, upstream, err_msg=path)
