"""Tests of the axis on which each weight is split: against the oracle, for every weight of every model."""

import pytest

from spec.config import Config
from spec.memory_reference import part
from spec.weight_table import expand
from vmae_keras import VideoMAEConfig
from vmae_keras.backend import PARALLEL
from vmae_keras.distribution.layout import split_axis
from vmae_keras.variants import VARIANTS

OPTIONS = {
    name: True for name in ("learned_positions", "class_token", "bridge_bias", "cosine_attention")
} | {"layer_scale": 0.1}
MODELS = {
    **{name: VideoMAEConfig.variant(name) for name in VARIANTS if not name.startswith("vit")},
    "all options": VideoMAEConfig(**OPTIONS),
    "ViT": VideoMAEConfig.variant("vit-b"),
}


def lies(path, shape, parallel, devices):
    """Return the shape of the library's part."""
    axis = split_axis(path, shape, parallel, devices)
    return tuple(size // devices if i == axis else size for i, size in enumerate(shape))


@pytest.mark.clause("LAYOUT-1", "LAYOUT-2")
@pytest.mark.parametrize("name", MODELS)
def test_every_weight_lies_as_the_oracle_says(name):
    kinds = ["classifier first"] if name == "ViT" else ["pretraining", "classifier mean"]
    shapes = {
        path: weight.shape
        for kind in kinds
        for path, weight in expand(MODELS[name], kind, classes=174).items()
    }
    lora = {"encoder/block_0/mlp/hidden/lora_kernel_a": (768, 4), "x/lora_kernel_b": (4, 3072)}
    for devices in (1, 2, 4, 7, 8, 64):
        for parallel in PARALLEL:
            for path, shape in (shapes | lora).items():
                expected = part(path, shape, parallel, devices)
                # Paths in Keras start with the model's name.
                assert lies(f"video_mae/{path}", shape, parallel, devices) == expected, path


@pytest.mark.clause("LAYOUT-1")
def test_of_the_largest_model_only_small_weights_are_whole_on_64_devices():
    whole = {
        path
        for path, weight in expand(Config.variant("v2-g"), "pretraining").items()
        if split_axis(path, weight.shape, "fsdp", 64) is None
    }
    assert not [path for path in whole if path.endswith("kernel")]
    assert {path.rsplit("/", 1)[1] for path in whole - {"mask_token"}} == {
        "bias",
        "q_bias",
        "v_bias",
        "gamma",
        "beta",
    }
