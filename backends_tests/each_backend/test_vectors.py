"""Tests that the library reproduces the golden vectors of spec/vectors, without the oracle."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from backends_tests.compare import assert_close
from backends_tests.support import compile_and_build
from vmae_keras import VideoMAE, masks, positions
from vmae_keras.classifier import VideoClassifier
from vmae_keras.config import Stack
from vmae_keras.data import sampling, views
from vmae_keras.layers import Transformer
from vmae_keras.training.optimizer import AdamW, WarmupCosine, decayed, layer_scales

FOLDER = Path(__file__).resolve().parents[2] / "spec" / "vectors"


def read(name):
    """Return a file's metadata and its tensors by name."""
    path = FOLDER / f"{name}.safetensors"
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["about"]), load_file(path)


def under(prefix, tensors):
    """Return the tensors below a prefix, by the rest of their names."""
    start = f"{prefix}/"
    return {
        key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)
    }


def cases(file, function):
    """Return a pytest parameter for each call of a function: its arguments and results, arrays included."""
    about, tensors = read(file)
    return [
        pytest.param({**values, **under(key, tensors)}, id=key)
        for key, values in about["cases"].items()
        if key.startswith(f"{function}/")
    ]


def variables(model):
    """Return the trainable variables by the specification's names."""
    return {v.path.removeprefix(f"{model.name}/"): v for v in model.trainable_variables}


def load(model, weights):
    for path, variable in variables(model).items():
        variable.assign(weights[path])


def pretraining(name):
    """Return the metadata, the tensors, the model with the file's weights, and the batch."""
    about, tensors = read(name)
    model = VideoMAE(about["config"])
    load(model, under("weights", tensors))
    keys = ("video", "visible", "decoded", "weight")
    return about, tensors, model, {key: tensors[key] for key in keys if key in tensors}


def wide(variable):
    return keras.ops.convert_to_numpy(variable.value).astype("float64")


@pytest.mark.clause(
    *("INPUT-1", "INPUT-2", "TUBE-1", "TUBE-2", "POS-1", "EMBED-1", "EMBED-2", "BLOCK-1"),
    *("BLOCK-2", "BLOCK-3", "BLOCK-4", "BLOCK-5", "ENC-1", "ENC-2", "DEC-1", "DEC-2", "DEC-3"),
    "DUAL-2",
)
@pytest.mark.parametrize("name", ["v1", "v2", "odd_grid"])
def test_predictions(name):
    _, tensors, model, batch = pretraining(name)
    assert_close(model.predict(batch, verbose=0), tensors["forward/predictions"], "prediction")


@pytest.mark.clause("TARGET-1", "TARGET-2", "TARGET-3")
@pytest.mark.parametrize("name", ["v1", "v2", "odd_grid", "options"])
def test_target(name):
    _, tensors, model, batch = pretraining(name)
    got = keras.ops.convert_to_numpy(model.target(batch))
    contrast = "target_of_low_contrast" if name == "odd_grid" else "target"
    assert_close(got, tensors["target"], contrast)


@pytest.mark.clause("DUAL-3")
@pytest.mark.parametrize("name", ["v2", "odd_grid"])
def test_weight(name):
    _, tensors, model, batch = pretraining(name)
    del batch["weight"]  # the model derives it
    got = keras.ops.convert_to_numpy(model.weight(batch))
    np.testing.assert_array_equal(got, tensors["weight"])


@pytest.mark.clause("LOSS-1", "BLOCK-6", "BLOCK-8", "TARGET-1", "TARGET-3", "WEIGHT-1")
def test_loss_and_gradients():
    """Check gradients by one gradient-descent step of rate 1, which subtracts them from the weights."""
    _, tensors, model, batch = pretraining("options")
    model.compile(keras.optimizers.SGD(1.0))
    loss = model.train_on_batch(batch)
    assert_close(float(loss), float(tensors["loss"]), "loss")
    expected = under("gradients", tensors)
    assert variables(model).keys() == expected.keys()
    for path, variable in variables(model).items():
        gradient = tensors[f"weights/{path}"] - wide(variable)
        assert_close(gradient, expected[path], "gradient", what=path)


@pytest.mark.clause("LOSS-1", "LOSS-2", "OPT-2", "OPT-5", "FT-6", "FT-7", "WEIGHT-1")
@pytest.mark.parametrize("name", ["v1", "v2"])
def test_loss_and_three_updates(name):
    about, tensors, model, batch = pretraining(name)
    rates = about["adamw"].pop("rates")
    compile_and_build(model, AdamW(rates[0], **about["adamw"]))
    losses = []
    for rate in rates:
        model.optimizer.learning_rate = rate
        losses.append(float(model.train_on_batch(batch)))
    assert_close(losses[0], float(tensors["loss"]), "loss")
    assert variables(model).keys() == under("updated", tensors).keys()
    for path, variable in variables(model).items():
        before, expected = tensors[f"weights/{path}"], tensors[f"updated/{path}"]
        moved = np.abs(expected - before).max()
        assert_close(wide(variable), expected, "three_adamw_steps", moved, path)


@pytest.mark.clause("FT-1", "FT-2", "FT-4")
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_logits(pooling):
    about, tensors = read("classifier")
    model = VideoClassifier(about["config"], about["classes"], pooling=pooling)
    load(model, under("weights", tensors))
    got = model.predict(tensors["video"], verbose=0)
    assert_close(got, tensors[f"{pooling}/logits"], "logits")


class Given:
    """Generator of masks and sampling that replays the draws of the file."""

    def __init__(self, drawn):
        self.drawn = drawn

    def integers(self, high):
        return self.drawn

    def choice(self, of, count, replace):
        return self.drawn[:count] if isinstance(of, int) else of[:count]


@pytest.mark.clause("CELL-1", "CELL-2", "CELL-4")
@pytest.mark.parametrize("case", cases("masks", "running_cell"))
def test_running_cells(case):
    got = masks.running_cell(case["grid"], case["ratio"], Given(case["pointer"]))
    np.testing.assert_array_equal(got, case["decoded"][: case["count"]])


@pytest.mark.clause("MASK-2", "MASK-4")
@pytest.mark.parametrize("case", cases("masks", "tube") + cases("masks", "frame"))
def test_masks_of_given_draws(case):
    draw, drawn = (masks.tube, "places") if "places" in case else (masks.frame, "slots")
    visible, masked = draw(case["grid"], case["ratio"], Given(case[drawn]))
    np.testing.assert_array_equal(visible, case["visible"])
    np.testing.assert_array_equal(masked, case["masked"])


@pytest.mark.clause("MASK-1", "MASK-2", "MASK-3", "MASK-4", "MASK-5")
@pytest.mark.parametrize("case", cases("masks", "count"))
def test_counts_of_masks(case):
    generator = np.random.default_rng(0)
    visible, masked = masks.MASKS[case["kind"]](case["grid"], case["ratio"], generator)
    assert (len(visible), len(masked)) == (case["visible"], case["masked"])


@pytest.mark.clause("DUAL-3", "DUAL-4")
@pytest.mark.parametrize("case", cases("masks", "dual"))
def test_counts_of_dual_masks(case):
    ids = masks.pretraining(
        case["grid"],
        np.random.default_rng(0),
        ratio=case["ratio"],
        decoder_ratio=case["decoder_ratio"],
    )
    assert (len(ids["visible"]), len(ids["decoded"])) == (case["visible"], case["decoded"])
    assert ids["weight"].sum() == case["weight_sum"]


@pytest.mark.clause("POS-1")
@pytest.mark.parametrize("case", cases("positions", "sinusoid"))
def test_positions(case):
    table = positions.sinusoid(case["count"], case["dim"])[case["ids"]]
    assert_close(table, case["rows"], "position")


@pytest.mark.clause("POS-3")
@pytest.mark.parametrize("case", cases("positions", "resize"))
def test_resized_positions(case):
    resized = positions.resize(case["table"], tuple(case["grid"]), tuple(case["new_grid"]))
    assert_close(resized, case["resized"], "position")


@pytest.mark.clause("OPT-3", "OPT-4")
@pytest.mark.parametrize("case", cases("schedules", "learning_rate"))
def test_learning_rates(case):
    scale = case["videos_per_step"] / 256
    schedule = WarmupCosine(
        scale * case["base"], scale * case["minimum"], case["warmup_steps"], case["total_steps"]
    )
    rates = [float(keras.ops.convert_to_numpy(schedule(i))) for i in range(case["total_steps"])]
    assert_close(rates, case["rates"], "schedule")


@pytest.mark.clause("BLOCK-7")
@pytest.mark.parametrize("case", cases("schedules", "drop_path_rates"))
def test_drop_path_rates(case):
    stack = Transformer(
        Stack(dim=4, depth=case["depth"], heads=1, mlp_dim=4, drop_path=case["rate"])
    )
    assert_close(stack.rates, case["rates"], "schedule")


@pytest.mark.clause("FT-6")
@pytest.mark.parametrize("case", cases("schedules", "layer_decay"))
def test_layer_decay(case):
    assert_close(layer_scales(case["names"], case["decay"]), case["scales"], "schedule")


@pytest.mark.clause("OPT-2")
@pytest.mark.parametrize("case", cases("schedules", "weight_decay"))
def test_weight_decay(case):
    assert all(decayed(case["decayed"]))
    assert not any(decayed(case["spared"]))


@pytest.mark.clause("DATA-1", "DATA-2")
@pytest.mark.parametrize("case", cases("views", "dense"))
def test_dense_sampling(case):
    arguments = (case["count"], case["frames"], case["stride"])
    got = sampling.dense(*arguments, Given(case["start"]))
    np.testing.assert_array_equal(got, case["positions"])


@pytest.mark.clause("AUG-11")
@pytest.mark.parametrize("case", cases("views", "spread"))
def test_spread_sampling(case):
    arguments = (case["count"], case["frames"], case["stride"])
    got = sampling.spread(*arguments, Given(case["start"]))
    np.testing.assert_array_equal(got, case["positions"])


@pytest.mark.clause("DATA-3")
@pytest.mark.parametrize("case", cases("views", "uniform"))
def test_uniform_sampling(case):
    got = sampling.uniform(case["count"], case["frames"])
    np.testing.assert_array_equal(got, case["positions"])


@pytest.mark.clause("EVAL-1")
@pytest.mark.parametrize("case", cases("views", "dense_views"))
def test_dense_views(case):
    got = views.dense_views(case["count"], case["frames"], case["stride"], case["clips"])
    np.testing.assert_array_equal(got, case["positions"])


@pytest.mark.clause("EVAL-2")
@pytest.mark.parametrize("case", cases("views", "uniform_views"))
def test_uniform_views(case):
    got = views.uniform_views(case["count"], case["frames"], case["clips"])
    np.testing.assert_array_equal(got, case["positions"])


@pytest.mark.clause("EVAL-3")
@pytest.mark.parametrize("case", cases("views", "view_crops"))
def test_view_crops(case):
    assert_crops(case, (case["size"], case["size"]))


@pytest.mark.clause("EVAL-5")
@pytest.mark.parametrize("case", cases("views", "rectangular_crops"))
def test_rectangular_crops(case):
    assert_crops(case, tuple(case["size"]))


def assert_crops(case, size):
    resized = views.view_size(case["height"], case["width"], size)
    assert resized == tuple(case["resized"])
    corners = views.view_crops(*resized, size, case["crops"])
    np.testing.assert_array_equal(corners, case["corners"])


@pytest.mark.clause("EVAL-4")
@pytest.mark.parametrize("case", cases("views", "average_views"))
def test_average_of_views(case):
    got = views.average_views(case["logits"])
    assert_close(got, case["probabilities"], "probability")
