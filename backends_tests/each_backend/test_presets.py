"""Tests of presets: official files, our folders, the hub; other model kinds, sizes, class counts."""

import json
import sys
import zipfile
from functools import partial

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.each_backend.test_classifier import random_classifier, random_video
from backends_tests.hub_server import HubServer, reach_loopback
from backends_tests.support import (
    TRIES_ALL_FILES,
    by_path,
    compile_and_build,
    numpy,
    with_random_weights,
)
from spec import reference
from vmae_keras import VideoClassifier, VideoEncoder, VideoMAE, VideoMAEConfig, load
from vmae_keras.conversion.verification import verify
from vmae_keras.conversion.weight_files import convert
from vmae_keras.initializers import leave_zeros
from vmae_keras.positions import resize
from vmae_keras.presets import by_path as by_all_paths
from vmae_keras.presets import preset_config, stored_model
from vmae_keras.recipes.overrides import config_changes
from vmae_keras.runs.model_files import read_stored
from vmae_keras.weights.hub import HubError, fetch
from vmae_keras.weights.tensor_files import WeightsError, read_tensors, write_safetensors
from vmae_keras.weights.write import write_official

CONFIG = VideoMAEConfig.variant("tiny", depth=1)
UNSAID = {  # settings missing from official files
    "frames": CONFIG.frames,
    "height": CONFIG.height,
    "width": CONFIG.width,
    "position_grid": CONFIG.grid,
    "heads": CONFIG.heads,
    "decoder_heads": CONFIG.decoder_heads,
}
LABELS = ["push", "pull", "lift", "drop", "turn"]


def values(model):
    return {path: numpy(variable.value) for path, variable in by_path(model).items()}


def same_weights(model, expected):
    got = values(model)
    assert got.keys() == expected.keys()
    for path, value in got.items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


def random_encoder(config, **kwargs):
    model = VideoEncoder(config, **kwargs)
    generator = np.random.default_rng(0)
    for variable in by_all_paths(model).values():
        variable.assign(generator.normal(size=variable.shape))
    return model


def published(name, **changes):
    """Return a published variant's widths with one block in each stack and few tokens."""
    p0, p1, p2 = VideoMAEConfig.variant(name).tubelet
    return VideoMAEConfig.variant(
        name, depth=1, decoder_depth=1, frames=p0, height=2 * p1, width=2 * p2, **changes
    )


# Official files ----------------------------------------------------------------------------------


@pytest.mark.clause("WEIGHT-4", "WEIGHT-6")
@pytest.mark.parametrize(
    "name", ["v1-s", "v1-b", "v1-l", "v1-h", "v2-h"] if TRIES_ALL_FILES else ["v1-s"]
)
def test_pretraining_weights_survive_an_official_file_to_the_bit(name, tmp_path):
    config = published(name)
    model = VideoMAE(config, fill=leave_zeros)  # drawing by the backend is slower
    generator = np.random.default_rng(0)
    for variable in by_path(model).values():
        variable.assign(generator.standard_normal(variable.shape, np.float32))
    notes = write_official(stored_model(model), tmp_path / "official.pth")
    assert len(notes) == 1 and notes[0].startswith("clips of 2 x 32 x 32")
    sizes = {"frames": config.frames, "height": config.height, "width": config.width}
    again = VideoMAE.from_preset(tmp_path / "official.pth", **sizes, position_grid=config.grid)
    assert again.config == config.replace(position_grid=config.grid)
    same_weights(again, values(model))


@pytest.mark.clause("WEIGHT-4", "POS-5", "BLOCK-6")
@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"layer_scale": 0.1, "cosine_attention": True, "query_value_bias": False}],
    ids=["plain", "options"],
)
def test_classifiers_survive_an_official_file_to_the_bit(pooling, changes, tmp_path):
    model, weights = random_classifier(CONFIG.replace(**changes), pooling)
    write_official(stored_model(model), tmp_path / "official.pth")
    again = load(tmp_path / "official.pth", **UNSAID)
    assert (type(again), again.pooling, again.classes) == (VideoClassifier, pooling, 5)
    same_weights(again, weights)
    video = random_video(CONFIG)
    expected = reference.classify(again.config, weights, video, pooling=pooling)
    assert_close(again.predict(video, verbose=0), expected, "logits")


def test_what_official_models_cannot_be_is_refused(tmp_path):
    model = VideoMAE(CONFIG.replace(activation="relu", encoder_norm=False))
    with pytest.raises(WeightsError, match="activation='relu', encoder_norm=False"):
        write_official(stored_model(model), tmp_path / "official.pth")
    assert list(tmp_path.iterdir()) == []


# Folders of our own ------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [VideoMAE, VideoClassifier, VideoEncoder])
def test_a_preset_of_ours_comes_back_whole(cls, tmp_path):
    arguments = {
        VideoMAE: {"remat": True},
        VideoClassifier: {"classes": 5, "labels": LABELS, "head_dropout": 0.3, "init_scale": 1.0},
        VideoEncoder: {"pooling": "mean"},
    }[cls]
    keras.utils.set_random_seed(0)
    model = cls(CONFIG.replace(drop_path=0.2), dtype="mixed_bfloat16", **arguments)
    model.save_to_preset(tmp_path / "preset")
    for again in (cls.from_preset(tmp_path / "preset"), load(str(tmp_path / "preset"))):
        assert type(again) is cls
        assert again.get_config() == model.get_config()
        same_weights(again, values(model))
    names = {path.name for path in (tmp_path / "preset").iterdir()}
    assert names == {"config.json", "metadata.json", "model.weights.h5"}
    metadata = json.loads((tmp_path / "preset" / "metadata.json").read_text())
    assert metadata["parameter_count"] == model.count_params()


def test_changes_keep_the_rest_of_a_preset(tmp_path):
    model, weights = random_classifier(CONFIG, head_dropout=0.3)
    model.save_to_preset(tmp_path)
    again = VideoClassifier.from_preset(tmp_path, frames=6, drop_path=0.1)
    assert again.config == CONFIG.replace(frames=6, drop_path=0.1)
    assert again.head_dropout == 0.3
    same_weights(again, weights)


def test_fresh_weights_of_a_preset(tmp_path):
    model, weights = random_classifier(CONFIG)
    model.save_to_preset(tmp_path)
    fresh = VideoClassifier.from_preset(tmp_path, load_weights=False)
    kernel = values(fresh)["encoder/block_0/mlp/hidden/kernel"]
    assert kernel.std() == pytest.approx(0.02, rel=0.1)  # 2048 draws
    assert values(fresh).keys() == weights.keys()


def test_a_keras_file_is_a_preset_too(tmp_path):
    model, weights = with_random_weights(CONFIG)
    model.save(tmp_path / "any name.keras")
    again = load(tmp_path / "any name.keras", frames=6)
    assert (type(again), again.config.frames) == (VideoMAE, 6)
    same_weights(again, weights)


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [
        ("sgd", 0),
        (
            keras.optimizers.AdamW(
                keras.optimizers.schedules.CosineDecay(1e-3, 10), weight_decay=0.1
            ),
            0,
        ),
        (keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), 1),
    ],
    ids=["by name", "with a schedule", "around another, after a step"],
)
def test_a_keras_file_comes_back_compiled(optimizer, steps, tmp_path):
    model, _ = random_classifier(CONFIG)
    if not isinstance(optimizer, str):
        optimizer = type(optimizer).from_config(optimizer.get_config())
    accuracy = keras.metrics.SparseTopKCategoricalAccuracy(2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy", accuracy])
    for _ in range(steps):
        model.train_on_batch(random_video(CONFIG), np.array([0, 1]))
    model.save(tmp_path / "x.keras")
    again = VideoClassifier.from_preset(tmp_path / "x.keras")
    assert again.get_compile_config() == model.get_compile_config()
    for mine, theirs in zip(again.optimizer.variables, model.optimizer.variables, strict=False):
        np.testing.assert_array_equal(numpy(mine.value), numpy(theirs.value))
    changed = VideoClassifier.from_preset(tmp_path / "x.keras", drop_path=0.1)
    assert getattr(changed, "optimizer", None) is None


IOU = {"module": "keras.metrics", "class_name": "MeanIoU", "config": {"num_classes": 10**6}}
FUNCTION = {"module": "builtins", "class_name": "function", "config": "system"}
LAMBDA = {"class_name": "__lambda__", "config": {"value": "gASVAAAA"}}
DEEP = json.loads("[" * 700 + "]" * 700)
OF_OURS = {"registered_name": "vmae_keras>Block", "class_name": "Block", "config": {}}


@pytest.mark.parametrize(
    ("key", "value", "unknown"),
    [
        ("metrics", [IOU], "MeanIoU"),
        ("loss", FUNCTION, "function"),
        ("loss", LAMBDA, "__lambda__"),
        ("loss", OF_OURS, "Block"),
        ("metrics", DEEP, "lists within lists"),
    ],
)
def test_a_keras_file_compiled_with_something_else_is_not_compiled(
    key, value, unknown, tmp_path, monkeypatch
):
    model, weights = random_classifier(CONFIG)
    model.compile("sgd", "mse")
    model.save(tmp_path / "x.keras")
    with zipfile.ZipFile(tmp_path / "x.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    settings = json.loads(parts["config.json"])
    settings["compile_config"][key] = value
    parts["config.json"] = json.dumps(settings)
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    monkeypatch.setattr(keras.saving, "load_model", None)
    with pytest.warns(UserWarning, match=rf"was compiled with {unknown}, which is not"):
        again = load(tmp_path / "x.keras")
    assert getattr(again, "optimizer", None) is None
    same_weights(again, weights)


def test_the_module_of_a_class_in_a_file_is_not_imported(tmp_path):
    """Check that no module is imported. Keras imports the named module; here each class has a fixed one."""
    model, _ = random_classifier(CONFIG)
    model.compile("sgd", "mse")
    model.save(tmp_path / "x.keras")
    content = (tmp_path / "x.keras").read_bytes()
    stored = read_stored(tmp_path / "x.keras", {})
    module = stored.saved.compiled["optimizer"]["module"]
    strange = ("antigravity" + " " * len(module))[: len(module)]
    (tmp_path / "x.keras").write_bytes(content.replace(module.encode(), strange.encode()))
    again = load(tmp_path / "x.keras")
    assert type(again.optimizer).__name__ == "SGD" and "antigravity" not in sys.modules


@pytest.mark.parametrize("changes", [{}, {"drop_path": 0.1}])
def test_a_frozen_model_keeps_its_weights(changes, tmp_path):
    model = random_encoder(CONFIG, trainable=False)
    model.save_to_preset(tmp_path)
    again = VideoEncoder.from_preset(tmp_path, **changes)
    assert not again.trainable and not again.trainable_variables
    for path, variable in by_all_paths(again).items():
        np.testing.assert_array_equal(numpy(variable.value), numpy(by_all_paths(model)[path].value))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX computes in float32 by default")
def test_a_model_of_float64_loses_no_digit(tmp_path):
    model = random_encoder(CONFIG, dtype="float64")
    model.save_to_preset(tmp_path)
    value = values(VideoEncoder.from_preset(tmp_path))["encoder/block_0/mlp/hidden/kernel"]
    assert value.dtype == np.float64
    np.testing.assert_array_equal(value, values(model)["encoder/block_0/mlp/hidden/kernel"])


def test_a_preset_that_was_not_written_to_its_end_is_none(tmp_path, monkeypatch):
    model, _ = with_random_weights(CONFIG)
    model.save_to_preset(tmp_path / "preset")
    monkeypatch.setattr(type(model), "count_params", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_to_preset(tmp_path / "preset")
    with pytest.raises(WeightsError, match="holds no model"):
        load(tmp_path / "preset")


def test_a_preset_holds_no_optimizer(tmp_path):
    model, _ = random_classifier(CONFIG)
    model.save_to_preset(tmp_path / "before")
    compile_and_build(model, "adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.train_on_batch(random_video(CONFIG), np.eye(5, dtype="float32")[[0, 1]])
    model.save_to_preset(tmp_path / "after")
    sizes = [(tmp_path / name / "model.weights.h5").stat().st_size for name in ("before", "after")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)  # an optimizer would treble the size
    same_weights(load(tmp_path / "after"), values(model))
    model.train_on_batch(random_video(CONFIG), np.eye(5, dtype="float32")[[0, 1]])  # can train


def test_damaged_presets_are_refused(tmp_path):
    model, _ = random_classifier(CONFIG)
    by_path(model)["head/bias"].assign(np.full(5, np.nan))
    model.save_to_preset(tmp_path)
    with pytest.raises(WeightsError, match=r"head/bias. holds values that are NaN or infinite"):
        load(tmp_path)
    file = tmp_path / "model.weights.h5"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="damaged or incomplete"):
        load(tmp_path)
    file.unlink()
    with pytest.raises(WeightsError, match="damaged or incomplete"):
        load(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["config"]["config"]["heads"] = "many"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="`heads` must be a positive integer"):
        load(tmp_path)


def test_a_preset_of_a_strange_class_is_refused(tmp_path):
    model, _ = with_random_weights(CONFIG)
    model.save_to_preset(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["class_name"] = "data"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="holds a 'data'"):
        load(tmp_path)


# Another kind of model ---------------------------------------------------------------------------


def test_a_classifier_starts_from_a_pretrained_model(tmp_path):
    pretrained, theirs = with_random_weights(CONFIG)
    pretrained.save_to_preset(tmp_path)
    with pytest.raises(WeightsError, match=r"has no head.*classes="):
        VideoClassifier.from_preset(tmp_path)
    model = VideoClassifier.from_preset(tmp_path, labels=LABELS, drop_path=0.1)
    assert (model.classes, model.labels, model.config.drop_path) == (5, tuple(LABELS), 0.1)
    by_hand = VideoClassifier(CONFIG, 5)
    by_hand.load_encoder(pretrained)
    got = values(model)
    for path, value in values(by_hand).items():
        if path.startswith("head/kernel"):
            assert 0 < np.abs(got[path]).max() < 1e-3  # drawn, not blank
        else:
            np.testing.assert_array_equal(got[path], value, err_msg=path)
            assert path not in theirs or not path.startswith("head") or value.any() == 0


def test_a_classifier_of_other_classes_gets_a_new_head(tmp_path):
    model, weights = random_classifier(CONFIG)
    model.save_to_preset(tmp_path)
    other = values(VideoClassifier.from_preset(tmp_path, classes=7))
    assert other["head/kernel"].shape == (CONFIG.dim, 7)
    for path in weights.keys() - {"head/kernel", "head/bias"}:
        np.testing.assert_array_equal(other[path], weights[path], err_msg=path)
    same_weights(VideoClassifier.from_preset(tmp_path, classes=5), weights)


def test_as_many_classes_of_other_names_are_other_classes(tmp_path):
    model, weights = random_classifier(CONFIG, labels=LABELS)
    model.save_to_preset(tmp_path)
    assert VideoClassifier.from_preset(tmp_path).labels == tuple(LABELS)
    named = VideoClassifier.from_preset(tmp_path, labels=["a", "b", "c", "d", "e"])
    assert np.abs(values(named)["head/kernel"] - weights["head/kernel"]).max() > 0.1


def test_encoders_come_out_of_every_model(tmp_path):
    pretrained, theirs = with_random_weights(CONFIG)
    classifier, its = random_classifier(CONFIG)
    video = random_video(CONFIG)
    pretrained.save_to_preset(tmp_path / "pretrained")
    classifier.save_to_preset(tmp_path / "classifier")
    tokens = VideoEncoder.from_preset(tmp_path / "pretrained")
    every = {"video": video, "visible": np.tile(np.arange(CONFIG.num_tokens), (2, 1))}
    every["decoded"] = every["visible"]
    expected = reference.forward(CONFIG, theirs, every, named=True)["encoder/norm"]
    assert_close(numpy(tokens(video)), expected, "features")
    pooled = VideoEncoder.from_preset(tmp_path / "classifier")
    expected = reference.classify(CONFIG, its, video, named=True)["fc_norm"]
    assert_close(numpy(pooled(video)), expected, "features")
    raw = VideoEncoder.from_preset(tmp_path / "classifier", pooling=None)
    expected = reference.classify(CONFIG, its, video, named=True)["encoder/block_0"]
    assert_close(numpy(raw(video)), expected, "features")


def test_a_model_of_another_kind_says_what_it_is(tmp_path):
    model, _ = random_classifier(CONFIG)
    model.save_to_preset(tmp_path)
    with pytest.raises(WeightsError, match=r"no decoder.*'classifier'"):
        VideoMAE.from_preset(tmp_path)
    with pytest.raises(
        WeightsError, match=r"a VideoClassifier \(.* 5 classes\).*\n  missing: encoder/norm"
    ):
        VideoClassifier.from_preset(tmp_path, pooling="first")
    with pytest.raises(WeightsError, match=r"shape \(32,\), wanted \(64,\): encoder/block_0/norm1"):
        VideoClassifier.from_preset(tmp_path, dim=64)


@pytest.mark.clause("WEIGHT-7")
def test_classes_are_gathered_by_rows():
    model, weights = random_classifier(CONFIG, labels=LABELS, head_dropout=0.3)
    other = model.with_classes([4, 0, 4])
    assert (other.classes, other.labels) == (3, ("turn", "push", "turn"))
    assert other.head_dropout == 0.3
    video = random_video(CONFIG)
    expected = model.predict(video, verbose=0)[:, [4, 0, 4]]
    assert_close(other.predict(video, verbose=0), expected, "same_model")
    np.testing.assert_array_equal(
        values(other)["head/kernel"], weights["head/kernel"][:, [4, 0, 4]]
    )
    for rows in ([5], [-1], [], [[0]]):
        with pytest.raises(ValueError, match="0 to 4"):
            model.with_classes(rows)


# Another size ------------------------------------------------------------------------------------


@pytest.mark.clause("POS-2", "POS-4")
def test_other_sizes_keep_the_places_of_tokens(tmp_path):
    model, weights = random_classifier(CONFIG)
    model.save_to_preset(tmp_path)
    longer = VideoClassifier.from_preset(tmp_path, frames=8)
    assert longer.config.position_grid is None  # the same table, extended
    wider = VideoClassifier.from_preset(tmp_path, frames=8, height=24, width=16)
    assert wider.config.position_grid == (4, 4, 6)
    video = random_video(wider.config)
    expected = reference.classify(wider.config, weights, video)
    assert_close(wider.predict(video, verbose=0), expected, "logits")
    wider.save_to_preset(tmp_path / "wider")
    assert load(tmp_path / "wider", height=40).config.position_grid == (4, 4, 6)


@pytest.mark.clause("POS-4")
@pytest.mark.parametrize("official", [False, True])
def test_a_position_grid_of_none_is_the_models_own(official, tmp_path):
    """Check that None means the model's own grid, as for official models trained at another size."""
    model, weights = random_classifier(CONFIG.replace(height=24, width=16))
    if official:
        write_official(stored_model(model), tmp_path / "x.pth")
    else:
        VideoClassifier(CONFIG, 5).save_to_preset(tmp_path / "x.pth")
    size = {**UNSAID, "height": 24, "width": 16}
    size.pop("position_grid")
    (path,) = tmp_path.iterdir()
    kept = preset_config(path, **size)
    assert kept.position_grid == ((2, 56, 56) if official else (2, 4, 6))
    own = load(path, **size, position_grid=None)
    assert own.config.position_grid is preset_config(path, **size, position_grid=None).position_grid
    assert own.config.position_grid is None
    convert(str(path), tmp_path / "out", "keras", **size, **config_changes(["position_grid=None"]))
    assert load(tmp_path / "out").config == own.config
    if official:
        video = random_video(own.config)
        expected = reference.classify(model.config, weights, video)
        assert_close(own.predict(video, verbose=0), expected, "logits")


@pytest.mark.clause("POS-3", "POS-5")
def test_learned_positions_are_resized(tmp_path):
    config = CONFIG.replace(learned_positions=True)
    model, weights = random_classifier(config)
    model.save_to_preset(tmp_path)
    same_weights(VideoClassifier.from_preset(tmp_path, drop_path=0.1), weights)
    wider = VideoClassifier.from_preset(tmp_path, frames=8, height=24, width=16)
    name = "tubelet_embedding/positions"
    expected = resize(weights[name], (2, 4, 6), (4, 6, 4))
    np.testing.assert_array_equal(values(wider)[name], expected)


# The hub, conversion, and what it costs ----------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    reach_loopback(monkeypatch)
    with HubServer(tmp_path / "served") as server:
        # The effect of $HF_ENDPOINT and $HF_HUB_CACHE, had they been set when Python started.
        local = partial(fetch, endpoint=server.endpoint, cache=tmp_path / "cache")
        monkeypatch.setattr("vmae_keras.weights.hub.fetch", local)
        yield server


def test_a_model_comes_from_the_hub_in_one_line(hub, tmp_path):
    model, weights = random_classifier(CONFIG)
    model.save_to_preset(tmp_path / "served" / "someone" / "model")
    same_weights(VideoClassifier.from_preset("hf://someone/model"), weights)
    same_weights(load("hf://someone/model"), weights)
    assert len(hub.gets("*/model.weights.h5")) == 1
    with pytest.raises(HubError, match="someone/nothing"):
        load("hf://someone/nothing")


@pytest.mark.parametrize(
    ("to", "name"), [("keras", "out"), ("keras", "x.keras"), ("official", "x.pth"), ("hf", "out")]
)
def test_conversions_compute_the_same(to, name, tmp_path):
    model, _ = random_classifier(CONFIG.replace(width=16), labels=LABELS)
    model.save_to_preset(tmp_path / "in")
    out = tmp_path / name
    notes = convert(str(tmp_path / "in"), out, to)
    assert out.is_dir() == (name == "out")
    assert bool(notes) == (to != "keras")
    rows = verify(str(tmp_path / "in"), out)
    assert rows[0].name == "weights, read again" and rows[0].difference == 0
    assert all(row.passes for row in rows)
    assert any("transformers: outputs" in row.name for row in rows) == (to == "hf")
    assert load(out, **(UNSAID if to == "official" else {})).labels == (
        None if to == "official" else tuple(LABELS)
    )


def test_a_wrong_conversion_is_noticed(tmp_path):
    model, _ = random_classifier(CONFIG.replace(width=16))
    model.save_to_preset(tmp_path / "in")
    convert(str(tmp_path / "in"), tmp_path / "out", "hf")
    file = tmp_path / "out" / "model.safetensors"
    tensors = {name: tensor.read() for name, tensor in read_tensors(file).tensors.items()}
    tensors["classifier.bias"] = tensors["classifier.bias"] + np.float32(1)
    write_safetensors(file, tensors, {"format": "pt"})
    failed = [row.name for row in verify(str(tmp_path / "in"), tmp_path / "out") if not row.passes]
    assert failed == [
        "weights, read again",
        "result, read again: outputs",
        "result, in transformers: outputs",
    ]


def test_a_conversion_never_writes_over_its_source(tmp_path):
    model, weights = random_classifier(CONFIG)
    model.save_to_preset(tmp_path / "in")
    for to in ("keras", "hf", "official"):
        with pytest.raises(WeightsError, match="Give another place"):
            convert(str(tmp_path / "in"), tmp_path / "in", to)
    same_weights(load(tmp_path / "in"), weights)
