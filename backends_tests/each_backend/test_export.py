"""Exported models: the graph against the oracle, artifacts in their own runtimes, what is refused."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from keras import ops
from typer.testing import CliRunner

from backends_tests.each_backend.test_classifier import random_classifier
from backends_tests.support import BACKEND, by_path, numpy, random_batch, with_random_weights
from spec import augment_reference, evaluation_reference, reference
from vmae_keras import VideoClassifier, VideoEncoder, VideoMAEConfig
from vmae_keras.cli import app
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.export import formats
from vmae_keras.export.artifact import Artifact
from vmae_keras.export.comparison import InexactArtifact
from vmae_keras.export.contract import Contract
from vmae_keras.export.export import export
from vmae_keras.export.serving import recorded, resized, serve

CONFIG = VideoMAEConfig.variant("tiny", depth=2, width=16)
CONTRACT = Contract(
    what="classifier", format="onnx", quantize=None, dtype="uint8", batch=None,
    frames=CONFIG.frames, height=CONFIG.height, width=CONFIG.width, channels=3,
    size=(CONFIG.height, CONFIG.width), visible=0, decoded=0, labels=None, sampling="dense", stride=1,
    clips=2, crops=3, source="here", version="0",
)  # fmt: skip
LABELS = ("falling", "ruhend", "à côté", "up", "down")
# float32 graphs of one layer more; measured 5e-7.
TOLERANCE = 5e-6
# Each backend goes through others, and each format is written from some backend.
WAYS = {"jax": ["litert"], "tensorflow": ["onnx"], "torch": ["savedmodel", "openvino"]}


def random_levels(contract, clips=2):
    shape = (clips, contract.frames, contract.height, contract.width, contract.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def classifier():
    return random_classifier(CONFIG, labels=LABELS)


@pytest.fixture(scope="module")
def preset(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("preset")
    classifier[0].save_to_preset(folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_moving_shapes(folder, 3, frames=12, size=(CONFIG.height, CONFIG.width))
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def artifact(preset, videos, tmp_path_factory):
    """Of the first format of this backend's ways: its folder, and what was found."""
    out = tmp_path_factory.mktemp("artifact")
    return out, export(preset, out, WAYS[BACKEND][0], videos=videos, clips=5)


@pytest.mark.clause("EXPORT-2", "EVAL-5")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", [(18, 27), (40, 16)], ids=str)
@pytest.mark.parametrize("crop", [(16, 16), (8, 24)], ids=str)
def test_frames_are_resized_and_cropped_as_in_evaluation(size, crop, dtype):
    contract = dataclasses.replace(CONTRACT, dtype=dtype, height=size[0], width=size[1], size=crop)
    levels = random_levels(contract)
    resized_size = evaluation_reference.fitted_size(*size, crop)
    y, x = evaluation_reference.fitted_crops(*resized_size, crop, 1)[0]
    box = (0, 0, size[1], size[0])
    exact = np.stack([augment_reference.resize_crop(clip, box, resized_size) for clip in levels])
    exact = exact[:, :, y : y + crop[0], x : x + crop[1]]
    got = numpy(resized(ops.convert_to_tensor(contract.pixels(levels)), contract))
    assert got.dtype == np.float32 and got.shape == exact.shape
    if dtype == "float32":
        assert np.abs(got - exact).max() < 1e-6
        return
    np.testing.assert_allclose(got * 255, np.floor(exact * 255 + 0.5007), atol=1e-4)


@pytest.mark.clause("EXPORT-1", "EXPORT-2", "EXPORT-3")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", [(CONFIG.height, CONFIG.width), (18, 27)], ids=str)
def test_the_graph_gives_the_oracles_logits(classifier, dtype, size):
    model, weights = classifier
    contract = dataclasses.replace(CONTRACT, dtype=dtype, height=size[0], width=size[1])
    given = ops.convert_to_tensor(contract.pixels(random_levels(contract)))
    seen = numpy(resized(given, contract) if contract.resizes else given)
    expected = reference.classify(CONFIG, weights, seen, pooling="mean")
    got = serve(model, contract, {"video": given})
    assert tuple(got) == contract.outputs
    assert np.abs(numpy(got["logits"]) - expected).max() < 1e-5 * np.abs(expected).max()
    shares = reference.softmax(expected)
    assert np.abs(numpy(got["probabilities"]) - shares).max() < 1e-4


@pytest.mark.clause("EXPORT-1", "EXPORT-3")
def test_the_graphs_of_encoder_and_pretraining_give_what_the_models_do(classifier):
    encoder = VideoEncoder(CONFIG, pooling="mean")
    encoder.load_encoder(classifier[0])
    video = random_levels(CONTRACT)
    contract = dataclasses.replace(CONTRACT, what="encoder")
    got = serve(encoder, contract, {"video": ops.convert_to_tensor(video)})
    assert list(got) == ["features"]
    np.testing.assert_array_equal(numpy(got["features"]), numpy(encoder(video)))

    model, weights = with_random_weights(CONFIG)
    batch = random_batch(CONFIG)
    contract = dataclasses.replace(
        CONTRACT,
        what="pretrain",
        visible=batch["visible"].shape[1],
        decoded=batch["decoded"].shape[1],
    )
    assert contract.inputs.keys() == batch.keys()
    got = serve(model, contract, {name: ops.convert_to_tensor(a) for name, a in batch.items()})
    assert list(got) == ["prediction"]
    expected = reference.forward(CONFIG, weights, batch)
    assert np.abs(numpy(got["prediction"]) - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.clause("EXPORT-5")
def test_the_head_that_stays_in_float_gives_the_same_logits(classifier):
    video = {"video": ops.convert_to_tensor(random_levels(CONTRACT))}
    contract = dataclasses.replace(CONTRACT, format="litert", quantize="int8-dynamic")
    logits = [numpy(serve(classifier[0], each, video)["logits"]) for each in (CONTRACT, contract)]
    assert np.abs(logits[0]).max() > 0
    np.testing.assert_allclose(*logits, atol=1e-6 * np.abs(logits[0]).max())


@pytest.mark.clause("EXPORT-6")
def test_stages_are_recorded_in_order_and_leave_the_model_as_it_was(classifier):
    model, video = classifier[0], random_levels(CONTRACT)
    before = numpy(model(video))
    with recorded(model) as outputs:
        model(video)
    assert list(outputs) == [
        "tubelet_embedding", "encoder/block_0", "encoder/block_1", "encoder/norm", "fc_norm", "head",
    ]  # fmt: skip
    np.testing.assert_array_equal(numpy(outputs["head"]), before)
    outputs.clear()
    np.testing.assert_array_equal(numpy(model(video)), before)
    assert outputs == {}


@pytest.mark.clause("EXPORT-1", "EXPORT-3", "EXPORT-4")
def test_an_artifact_computes_what_its_model_does_for_any_number_of_clips(artifact, classifier):
    out, comparison = artifact
    exported = Artifact(out)
    contract = exported.contract
    assert (contract.labels, contract.batch, contract.what) == (LABELS, None, "classifier")
    for clips in (1, 3):
        levels = random_levels(CONTRACT, clips)
        got = exported({"video": levels})
        expected = reference.classify(CONFIG, classifier[1], levels, pooling="mean")
        assert set(got) == {"logits", "probabilities"} and got["logits"].shape == (clips, 5)
        assert np.abs(got["logits"] - expected).max() < 1e-5 * np.abs(expected).max()
    assert [row.count for row in comparison.rows] == [3, 2]
    assert comparison.passes and comparison.largest < TOLERANCE
    assert json.loads((out / "comparison.json").read_text())["tolerance"] == 1e-4
    assert [row.agreement for row in comparison.rows] == [1.0, 1.0]


@pytest.mark.clause("EXPORT-4")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda video: video[:, :2], r"must be uint8 of the shape \(B, 4, .*Received"),
        (lambda video: video.astype("float32"), "Received: float32"),
    ],
)
def test_wrong_shapes_and_dtypes_are_refused(artifact, change, message):
    with pytest.raises(ValueError, match=message):
        Artifact(artifact[0])({"video": change(random_levels(CONTRACT))})


@pytest.mark.clause("EXPORT-1", "EXPORT-3")
def test_the_card_runs_the_artifact_without_this_library(artifact):
    out = artifact[0]
    card = (out / "README.md").read_text("utf-8")
    assert "labels" in card and "allowed are 0.0001" in card
    program = card.split("```python\n")[1].split("```")[0]
    assert "vmae_keras." not in program.replace("vmae_keras.json", "")
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program],
        cwd=out,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in LABELS


def test_predict_takes_an_artifact_for_its_model(artifact, preset, videos):
    clip = str(sorted(videos.glob("*.mp4"))[1])
    ways = [[str(preset), clip], [str(artifact[0]), clip], ["--model", str(artifact[0]), clip]]
    printed = [CliRunner().invoke(app, ["predict", *each]).output for each in ways]
    assert printed[0] == printed[1] == printed[2]
    assert any(label in printed[0] for label in LABELS)


@pytest.mark.parametrize("format", WAYS[BACKEND][1:])
def test_other_formats_of_other_models(format, tmp_path, videos):
    """Clips are no squares, and frames of another size are resized and cropped inside."""
    model, _ = with_random_weights(CONFIG.replace(width=32))
    model.save_to_preset(tmp_path / "model")
    out = tmp_path / "out"
    comparison = export(
        tmp_path / "model", out, format, videos=videos, clips=3, batch=2, frame_size=(18, 27)
    )
    exported = Artifact(out)
    assert (exported.contract.what, exported.contract.batch) == ("pretrain", 2)
    assert comparison.largest < TOLERANCE and comparison.rows[0].agreement is None


@pytest.mark.clause("EXPORT-6")
@pytest.mark.skipif(BACKEND != "tensorflow", reason="one backend shows it; its processes take long")
def test_a_layer_that_half_precision_breaks_is_named(tmp_path, videos):
    model = VideoClassifier(CONFIG, 5)
    kernel = by_path(model)["encoder/block_1/mlp/hidden/kernel"]
    kernel.assign(numpy(kernel.value) * 1e7)  # beyond the largest number of 16 bits
    model.save_to_preset(tmp_path / "model")
    with pytest.raises(InexactArtifact, match=r"differs by more is encoder/block_1: by ") as caught:
        export(
            tmp_path / "model", tmp_path / "out", "litert", quantize="fp16", videos=videos, clips=2
        )
    assert not caught.value.comparison.passes
    assert "differ too much" in (tmp_path / "out/README.md").read_text("utf-8")


@pytest.mark.clause("EXPORT-4", "EXPORT-5")
@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow writes LiteRT")
@pytest.mark.parametrize(
    ("quantize", "changes"),
    [
        ("int8-dynamic", {}),
        ("int8", {}),
        ("int8", {"cosine_attention": True, "activation": "mish"}),
    ],
    ids=str,
)
def test_dense_layers_alone_are_quantized(quantize, changes, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model, _ = random_classifier(CONFIG.replace(**changes))
    contract = dataclasses.replace(
        CONTRACT, format="litert", quantize=quantize, height=18, width=27
    )
    levels, path = random_levels(contract), tmp_path / "model.tflite"
    formats.module("litert").write(
        lambda inputs: serve(model, contract, inputs), model, contract, path, levels
    )
    interpreter = Interpreter(str(path))
    kinds = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    operators = [
        (each["op_name"], [kinds[i] for i in (*each["inputs"], *each["outputs"]) if i >= 0])
        for each in interpreter._get_ops_details()
    ]
    dense = [tensors for name, tensors in operators if name == "FULLY_CONNECTED"]
    assert len(dense) == 1 + 4 * CONFIG.depth  # neither the head nor the resizing
    inside = np.int8 if quantize == "int8" else np.float32
    assert all(tensors[:2] == [inside, np.int8] for tensors in dense)
    converting = ("FULLY_CONNECTED", "QUANTIZE", "DEQUANTIZE", "DELEGATE")
    others = [tensors for name, tensors in operators if name not in converting]
    assert len(others) > 20 and all(np.int8 not in tensors for tensors in others)
    got = Artifact(path)({"video": levels})["logits"]
    expected = numpy(model(numpy(resized(ops.convert_to_tensor(levels), contract))))
    assert np.abs(got - expected).max() < 0.2 * np.abs(expected).max()


def test_int8_without_real_clips_is_refused(preset, tmp_path):
    with pytest.raises(ValueError, match="int8 measures its ranges on real clips"):
        export(preset, tmp_path, "litert", quantize="int8")
