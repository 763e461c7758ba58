"""Tests of malicious presets and `.keras` files: refused before anything is built, at little cost.

The valid files are written with h5py and zipfile, in the layout that `each_backend/test_presets.py` and
`test_saving.py` compare with Keras's own.
"""

import json
import zipfile

import h5py
import numpy as np
import pytest

from backends_tests.upstream_files import keras_file
from vmae_keras import VideoMAEConfig
from vmae_keras.runs.model_files import read_stored
from vmae_keras.weights import keras_archives
from vmae_keras.weights.tensor_files import WeightsError

CONFIG = VideoMAEConfig.variant("tiny", depth=2, decoder_depth=1)
FORMS = ["folder", "archive"]


def refused(path, message):
    with pytest.raises(WeightsError, match=message) as caught:
        for tensor in read_stored(path, {}).tensors.values():
            tensor.read()
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model", ["pretraining", "classifier mean", "classifier first"])
@pytest.mark.parametrize("form", FORMS)
def test_the_files_made_here_are_honest_but_for_what_a_test_adds(form, model, tmp_path):
    path, weights = keras_file(tmp_path / "x", CONFIG, model, form)
    found = read_stored(path, {})
    assert (found.config, found.kind) == (CONFIG, model.split()[0])
    assert found.tensors.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(found.tensors[name].read(), value)


# Settings

DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 4 * 10**8}}
LAMBDA = {
    "class_name": "function",
    "config": {"name": "system", "module": "os"},
    "module": "builtins",
}
CLASSES = {
    "Dense": DENSE,
    "Sequential": {"module": "keras", "class_name": "Sequential", "config": {"layers": [DENSE]}},
    "StringLookup": {"module": "keras.layers", "class_name": "StringLookup", "config": {}},
    "ours by class alone": {"class_name": "VideoMAE", "registered_name": "VideoMAE"},
    "ours by name alone": {"class_name": "Dense", "registered_name": "vmae_keras>VideoMAE"},
    "of ours, no model": {"class_name": "Block", "registered_name": "vmae_keras>Block"},
    "nothing": {},
    "a list": {"class_name": [], "registered_name": []},
}


@pytest.mark.parametrize("which", CLASSES)
def test_other_classes_are_refused(which, tmp_path):
    path, _ = keras_file(tmp_path / "x", CONFIG, form="archive", replace=CLASSES[which])
    refused(path, r"x holds a .*Known are VideoClassifier, VideoEncoder, VideoMAE of this library")


ARGUMENTS = {
    "an argument of another class": {"units": 3},
    "a layer": {"remat": DENSE},
    "a function": {"remat": LAMBDA},
    "dtype of a layer": {"dtype": DENSE},
    "dtype of a function": {"dtype": LAMBDA},
    "dtype unknown": {"dtype": "int8"},
    "dtype of a list": {"dtype": []},
    "a path as name": {"name": "a/b"},
    "a number as name": {"name": 1},
    "trainable of text": {"trainable": "yes"},
    "dropout of NaN": {"head_dropout": float("nan")},
    "dropout of 1": {"head_dropout": 1.0},
    "scale without end": {"init_scale": float("inf")},
    "classes of text": {"classes": "5"},
    "no class": {"classes": 0},
    "classes without end": {"classes": 10**12},
    "labels of numbers": {"labels": [1, 2, 3, 4, 5]},
    "labels of others": {"labels": ["a"]},
    "labels of one number": {"labels": 3},
    "pooling of a list": {"pooling": []},
    "pooling unknown": {"pooling": "max"},
    "no configuration": {"config": None},
    "a configuration of text": {"config": "tiny"},
    "an unknown field": {"config": {**CONFIG.to_dict(), "no_such": 1}},
    "heads that do not divide": {"config": {**CONFIG.to_dict(), "heads": 5}},
    "endless depth": {"config": {**CONFIG.to_dict(), "depth": 10**6}},
    "endless width": {"config": {**CONFIG.to_dict(), "dim": 10**5}},
    "endless channels": {"config": {**CONFIG.to_dict(), "channels": 10**9, "mean": None}},
    "NaN": {"config": {**CONFIG.to_dict(), "layer_scale": float("nan")}},
}


@pytest.mark.parametrize("which", ARGUMENTS)
@pytest.mark.parametrize("form", FORMS)
def test_settings_that_make_no_sense_are_refused(form, which, tmp_path):
    path, _ = keras_file(tmp_path / "x", CONFIG, "classifier mean", form, **ARGUMENTS[which])
    refused(path, r"its config\.json describes no VideoClassifier")


SIZES = {
    "depth": {"depth": 1024},
    "width": {"dim": 2**16, "heads": 1},
    "hidden width": {"mlp_dim": 2**16},
    "decoder": {"decoder_depth": 1024, "decoder_dim": 2**15},
    "positions": {"learned_positions": True, "frames": 2**12, "height": 64, "width": 64},
    "tubelets": {"tubelet": (1, 2**12, 2**12), "height": 2**12, "width": 2**12, "frames": 1},
}


@pytest.mark.parametrize("which", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_sizes_beyond_the_weights_are_refused_before_anything_is_listed(
    form, which, tmp_path, monkeypatch
):
    config = {**CONFIG.to_dict(), **SIZES[which]}
    path, _ = keras_file(tmp_path / "x", CONFIG, form=form, config=config)
    monkeypatch.setattr("vmae_keras.weights.keras_files._places", None)
    refused(path, r"describes \d+ weights of [\d.]+ M numbers, more than the \d+ bytes")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 16, "mlp_dim": 64}, r"shape \(32,\), wanted \(16,\): encoder/block_0/norm1/gamma"),
        ({"depth": 1}, "unexpected: 2 blocks of the encoder, 1 are wanted"),
        ({"depth": 3}, r"missing: encoder/block_2/mlp/output/bias"),
        ({"encoder_norm": False}, r"unexpected: encoder/norm/vars holds 2, 0 are wanted"),
        (
            {"query_value_bias": False},
            r"unexpected: encoder/blocks/block/attention/vars holds 2, 0",
        ),
        ({"cosine_attention": True}, r"missing: encoder/block_0/attention/log_scale"),
        ({"layer_scale": 0.1}, r"missing: encoder/block_0/scale1"),
        ({"class_token": True}, r"missing: tubelet_embedding/class_token"),
        ({"bridge_bias": True}, r"missing: bridge/bias"),
    ],
)
def test_settings_and_weights_that_differ_are_refused(change, message, tmp_path):
    config = {**CONFIG.to_dict(), **change}
    path, _ = keras_file(tmp_path / "x", CONFIG, form="folder", config=config)
    refused(path, f"(?s)its config.json does not fit its weights.*{message}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b"[]", b'{"a":' * 100_000, b" " * 5 * 2**20, b'{"a":1' + b"0" * 5000],
)
def test_settings_that_are_no_json_object_are_refused(text, form, tmp_path):
    path, _ = keras_file(tmp_path / "x", CONFIG, form=form, settings=text)
    refused(path, "cannot be read|must hold a JSON object|too large for settings")


# Weights

BLOCK = "encoder/blocks/block_1/mlp/hidden/vars"


def compressed(file, group, value):
    group.create_dataset("0", data=np.zeros_like(value), compression="gzip")


def bomb(file, group, value):
    group.create_dataset(
        "0", shape=(2**20, 2**10), chunks=(2**10, 2**10), dtype="f4", compression=9
    )


def never_written(file, group, value):
    group.create_dataset("0", shape=value.shape, dtype="f4")


def elsewhere(file, group, value):
    group.create_dataset("0", value.shape, "f4", external=[("/etc/passwd", 0, value.nbytes)])


def virtual(file, group, value):
    layout = h5py.VirtualLayout(value.shape, "f4")
    layout[:] = h5py.VirtualSource("other.h5", "0", value.shape)
    group.create_virtual_dataset("0", layout)


def soft_link(file, group, value):
    group["0"] = h5py.SoftLink("/head/vars/0")


def external_link(file, group, value):
    group["0"] = h5py.ExternalLink("/etc/passwd", "/")


def a_group(file, group, value):
    group.create_group("0")


def itself(file, group, value):
    group["0"] = file["/"]


def texts(file, group, value):
    group.create_dataset("0", data=np.full(value.shape, b"x" * 4))


def whole_numbers(file, group, value):
    group.create_dataset("0", data=np.ones(value.shape, "i4"))


def records(file, group, value):
    group.create_dataset("0", data=np.zeros(value.shape, [("a", "f2"), ("b", "f2")]))


def references(file, group, value):
    group.create_dataset("0", value.shape, h5py.ref_dtype)


def not_finite(file, group, value):
    group.create_dataset("0", data=np.full_like(value, np.inf))


def another_shape(file, group, value):
    group.create_dataset("0", data=value.T)


def too_many(file, group, value):
    group["0"] = value
    for number in range(2, 5):
        group[str(number)] = value


def nothing(file, group, value):
    pass


ABUSES = {
    compressed: "mlp/hidden/kernel is compressed, lies elsewhere or is cut short",
    bomb: r"shape \(1048576, 1024\), wanted \(32, 128\)",
    never_written: "mlp/hidden/kernel is compressed, lies elsewhere or is cut short",
    elsewhere: "mlp/hidden/kernel is compressed, lies elsewhere or is cut short",
    virtual: "mlp/hidden/kernel is compressed, lies elsewhere or is cut short",
    soft_link: "missing: encoder/block_1/mlp/hidden/kernel",
    external_link: "missing: encoder/block_1/mlp/hidden/kernel",
    a_group: "missing: encoder/block_1/mlp/hidden/kernel",
    itself: "missing: encoder/block_1/mlp/hidden/kernel",
    texts: "mlp/hidden/kernel holds no numbers",
    whole_numbers: "mlp/hidden/kernel. holds no floats. Received: int32",
    records: "mlp/hidden/kernel holds no numbers",
    references: "mlp/hidden/kernel holds no numbers",
    not_finite: "mlp/hidden/kernel. holds values that are NaN or infinite",
    another_shape: r"shape \(128, 32\), wanted \(32, 128\)",
    too_many: "unexpected: encoder/blocks/block_1/mlp/hidden/vars holds 5, 2 are wanted",
    nothing: "missing: encoder/block_1/mlp/hidden/kernel",
}


@pytest.mark.parametrize("abuse", ABUSES, ids=lambda abuse: abuse.__name__)
@pytest.mark.parametrize("form", FORMS)
def test_weights_that_are_not_what_they_should_be_are_refused(form, abuse, tmp_path):
    def change(file):
        value = file[BLOCK]["0"][()]
        del file[BLOCK]["0"]
        abuse(file, file[BLOCK], value)

    path, _ = keras_file(tmp_path / "x", CONFIG, form=form, change=change)
    refused(path, f"(?s){ABUSES[abuse]}")


@pytest.mark.parametrize("what", ["encoder", "encoder/blocks", "encoder/blocks/block_1", BLOCK])
def test_links_in_place_of_groups_are_not_followed(what, tmp_path):
    def change(file):
        del file[what]
        file[what] = h5py.ExternalLink("other.h5", what)

    path, _ = keras_file(tmp_path / "x", CONFIG, form="folder", change=change)
    (tmp_path / "x" / "other.h5").write_bytes((tmp_path / "x" / "model.weights.h5").read_bytes())
    refused(path, "missing: encoder/block_[01]/mlp/hidden/kernel")


def test_one_block_in_place_of_many_is_refused(tmp_path):
    """Refuse 64 names of the same block: a file of 200 KB would become a model of any size."""

    def change(file):
        for number in range(2, 64):
            file[f"encoder/blocks/block_{number}"] = file["encoder/blocks/block_1"]

    config = {**CONFIG.to_dict(), "depth": 64}
    path, _ = keras_file(tmp_path / "x", CONFIG, form="folder", config=config, change=change)
    with open(path / "model.weights.h5", "ab") as file:
        file.write(bytes(2 * 2**20))  # enough for two bytes each
    refused(path, "its weights repeat the same values beyond its|more than the")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [0, 100, 0.5, -1])
def test_weights_cut_short_are_refused(kept, form, tmp_path):
    path, _ = keras_file(tmp_path / "x", CONFIG, form=form, kept=kept)
    refused(path, "damaged or incomplete|more than the|cut short|does not fit")


def test_every_changed_byte_of_the_weights_is_refused_or_harmless(tmp_path):
    path, weights = keras_file(tmp_path / "x", CONFIG, form="folder")
    file = path / "model.weights.h5"
    whole = file.read_bytes()
    generator, outcomes = np.random.default_rng(0), set()
    for place in generator.integers(0, len(whole), 60):
        changed = bytearray(whole)
        changed[place] ^= int(generator.integers(1, 256))
        file.write_bytes(changed)
        try:
            found = read_stored(path, {}).tensors
            assert {name: each.read().shape for name, each in found.items()} == {
                name: value.shape for name, value in weights.items()
            }
            outcomes.add("read")
        except WeightsError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


# Archives


def test_a_compressed_archive_is_not_unpacked(tmp_path):
    path, _ = keras_file(tmp_path / "x", CONFIG, form="archive", compression=zipfile.ZIP_DEFLATED)
    refused(path, r"is no archive as Keras writes them: '.*' is compressed or cut short")


def test_a_part_twice_is_refused(tmp_path):
    path, _ = keras_file(tmp_path / "x", CONFIG, form="archive")
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", json.dumps(DENSE))
    refused(path, "'config.json' is in it twice")


@pytest.mark.parametrize("lacking", ["config.json", "model.weights.h5"])
def test_an_archive_of_something_else_is_none(lacking, tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        for name in {"config.json", "model.weights.h5", "metadata.json"} - {lacking}:
            archive.writestr(name, b"{}")
    assert keras_archives.read_archive(tmp_path / "x", ["config.json", "model.weights.h5"]) is None
    refused(tmp_path / "x", "is no archive as torch writes them|it is a .keras file")
