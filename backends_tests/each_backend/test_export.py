"""Tests of exported models: the graph against the oracle, artifacts in their own runtimes, refusals."""

import contextlib
import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from keras import ops
from typer.testing import CliRunner

from backends_tests.compare import assert_close, assert_within
from backends_tests.conversions import Conversions
from backends_tests.each_backend.test_classifier import random_classifier
from backends_tests.profiles import NIGHTLY
from backends_tests.support import (
    BACKEND,
    by_path,
    numpy,
    random_batch,
    with_random_weights,
)
from spec import augment_reference, evaluation_reference, reference
from spec import layers_reference as layers
from spec.tolerances import TOLERANCES
from vmae_keras import VideoClassifier, VideoMAEConfig
from vmae_keras.backend.internals import recorded
from vmae_keras.cli.app import app
from vmae_keras.data.pretraining import read_clip
from vmae_keras.data.synthetic import moving_shapes, write_moving_shapes
from vmae_keras.export import formats, onnx
from vmae_keras.export.artifact import Artifact
from vmae_keras.export.comparison import InexactArtifact
from vmae_keras.export.contract import OUTPUTS, ArtifactError, Contract
from vmae_keras.export.exporter import export_model
from vmae_keras.export.samples import sample
from vmae_keras.export.serving import resized, serve, stages

CONFIG = VideoMAEConfig.variant("tiny", depth=2, width=16)
CONTRACT = Contract(
    kind="classifier",
    format="onnx",
    quantize=None,
    dtype="uint8",
    batch=None,
    frames=CONFIG.frames,
    height=CONFIG.height,
    width=CONFIG.width,
    channels=3,
    size=(CONFIG.height, CONFIG.width),
    visible=0,
    decoded=0,
    labels=None,
    sampling="dense",
    stride=1,
    clips=2,
    crops=3,
    source="here",
    version="0",
)
LABELS = ("falling", "ruhend", "à côté", "up", "down")
# Formats that each backend writes: JAX by way of TensorFlow, the others in the same process. Each model is
# written to each format on at least one backend.
KINDS = tuple(OUTPUTS)
WRITTEN = {
    "jax": [("classifier", "litert"), ("encoder", "savedmodel"), ("pretraining", "litert")],
    "tensorflow": [(kind, format) for kind in KINDS for format in ("litert", "savedmodel")],
    "torch": [(kind, format) for kind in KINDS for format in ("onnx", "openvino")],
}
SETTINGS = {
    "classifier": {},
    "encoder": {"batch": 2, "dtype": "float32"},
    "pretraining": {"frame_size": (18, 27)},  # resized and cropped inside
}
# Sources of an encoder: the classifier's features are pooled, the other model's are per token.
ENCODER_OF = {"jax": "pretraining", "tensorflow": "classifier", "torch": "pretraining"}[BACKEND]
traced = pytest.mark.skipif(BACKEND == "jax", reason="artifacts are traced by the others")


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
    write_moving_shapes(folder, 10, frames=12, size=(CONFIG.height, CONFIG.width))
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module", autouse=True)
def conversions():
    """Keep conversions from starting a process each."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        standing_in = Conversions()
        stack.enter_context(standing_in.servers)
        patch.setattr("vmae_keras.export.exporter.run_worker", standing_in)
        yield standing_in
        for server in standing_in.started.values():
            server.kill()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Return a preset of a pretraining model, and its weights."""
    folder = tmp_path_factory.mktemp("pretrained")
    model, weights = with_random_weights(CONFIG)
    model.save_to_preset(folder)
    return folder, weights


@pytest.fixture(scope="module")
def artifact(preset, videos, tmp_path_factory):
    """Return the folder of the classifier in the first of this backend's formats, and the results."""
    out = tmp_path_factory.mktemp("artifact")
    return out, export_model(preset, out, WRITTEN[BACKEND][0][1], videos=videos, clips=5)


@pytest.fixture(scope="module", autouse=True)
def onnx_once(tmp_path_factory):
    """Write each model to ONNX only once: OpenVINO reads the same file, and PyTorch's exporter is slow."""
    written, write = {}, onnx.write

    def written_once(serve, model, contract, path, clips):
        key = dataclasses.replace(contract, format="onnx")
        if key not in written:
            written[key] = tmp_path_factory.mktemp("onnx") / onnx.NAME
            write(serve, model, contract, written[key], clips)
        shutil.copytree(written[key].parent, path.parent, dirs_exist_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "write", written_once)
        yield


def oracle_output(kind, weights, video, ids):
    """Return the oracle's output for the video that the model sees."""
    if kind == "pretraining":
        return reference.forward(CONFIG, weights, {"video": video, **ids})
    if kind == "classifier" or ENCODER_OF == "classifier":
        named = reference.classify(CONFIG, weights, video, named=True)
        return named["logits" if kind == "classifier" else "fc_norm"]
    every = np.tile(np.arange(CONFIG.num_tokens), (len(video), 1))
    batch = {"video": video, "visible": every, "decoded": every[:, :1]}
    return reference.forward(CONFIG, weights, batch, named=True)["encoder/norm"]


def as_seen(levels, contract):
    """Return levels in [0, 1], resized and cropped by the oracle to the model's input."""
    if not contract.resizes:
        return levels / 255
    size = evaluation_reference.fitted_size(*levels.shape[2:4], contract.size)
    y, x = evaluation_reference.fitted_crops(*size, contract.size, 1)[0]
    box = (0, 0, *levels.shape[3:1:-1])
    exact = np.stack([augment_reference.resize_crop(clip, box, size) for clip in levels])
    exact = exact[:, :, y : y + contract.size[0], x : x + contract.size[1]]
    return exact if contract.dtype == "float32" else np.floor(exact * 255 + 0.5007) / 255


@traced
@pytest.mark.clause("EXPORT-2", "EVAL-5")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", [(18, 27), (40, 16)], ids=str)
@pytest.mark.parametrize("crop", [(16, 16), (8, 24)], ids=str)
def test_frames_are_resized_and_cropped_as_in_evaluation(size, crop, dtype):
    contract = dataclasses.replace(CONTRACT, dtype=dtype, height=size[0], width=size[1], size=crop)
    levels = random_levels(contract)
    exact = as_seen(levels, contract)
    got = numpy(resized(ops.convert_to_tensor(contract.pixels(levels)), contract))
    assert got.dtype == np.float32 and got.shape == exact.shape
    assert_close(got, exact, "float32")


@traced
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
    assert_close(numpy(got["logits"]), expected, "logits")
    shares = layers.softmax(expected)
    assert_close(numpy(got["probabilities"]), shares, "class_probability")


@pytest.mark.clause("EXPORT-5")
def test_the_head_that_stays_in_float_gives_the_same_logits(classifier):
    video = {"video": ops.convert_to_tensor(random_levels(CONTRACT))}
    contract = dataclasses.replace(CONTRACT, format="litert", quantize="int8-dynamic")
    logits = [numpy(serve(classifier[0], each, video)["logits"]) for each in (CONTRACT, contract)]
    assert np.abs(logits[0]).max() > 0
    assert_close(logits[1], logits[0], "same_model")


@pytest.mark.clause("EXPORT-6")
def test_stages_are_recorded_in_order_and_leave_the_model_as_it_was(classifier):
    model, video = classifier[0], random_levels(CONTRACT)
    before = numpy(model(video))
    with recorded(stages(model)) as outputs:
        model(video)
    assert list(outputs) == [
        "tubelet_embedding",
        "encoder/block_0",
        "encoder/block_1",
        "encoder/norm",
        "fc_norm",
        "head",
    ]
    np.testing.assert_array_equal(numpy(outputs["head"]), before)
    outputs.clear()
    np.testing.assert_array_equal(numpy(model(video)), before)
    assert outputs == {}


def test_each_model_is_written_to_each_format():
    pairs = {pair for written in WRITTEN.values() for pair in written}
    assert pairs == {(kind, format) for kind in OUTPUTS for format in formats.BACKENDS}
    assert all({kind for kind, _ in written} == set(OUTPUTS) for written in WRITTEN.values())


@pytest.mark.clause("EXPORT-1", "EXPORT-2", "EXPORT-3", "EXPORT-4")
@pytest.mark.parametrize(("kind", "format"), WRITTEN[BACKEND])
def test_an_artifact_computes_what_its_model_does(
    kind, format, artifact, classifier, pretrained, preset, videos, tmp_path
):
    sources = {"classifier": (preset, classifier[1]), "pretraining": pretrained}
    source, weights = sources[ENCODER_OF if kind == "encoder" else kind]
    out, comparison = artifact
    if (kind, format) != WRITTEN[BACKEND][0]:
        out = tmp_path
        comparison = export_model(
            source, out, format, kind=kind, videos=videos, clips=2, **SETTINGS[kind]
        )
    exported = Artifact(out)
    contract = exported.contract
    assert (contract.kind, contract.format) == (kind, format)
    assert contract.batch == SETTINGS[kind].get("batch")
    assert contract.labels == (LABELS if kind == "classifier" else None)
    for clips in (1, 3):
        levels, ids = random_levels(contract, clips), {}
        if kind == "pretraining":
            batch = random_batch(CONFIG, clips, ratio=0.9)
            ids = {name: batch[name] for name in ("visible", "decoded")}
        found = exported({"video": contract.pixels(levels), **ids})
        expected = oracle_output(kind, weights, as_seen(levels, contract), ids)
        assert set(found) == set(contract.outputs)
        assert_close(found[contract.outputs[0]], expected, "artifact.float32")
        if kind == "classifier":
            shares = layers.softmax(expected)
            assert_close(found["probabilities"], shares, "class_probability")
    # With Keras on the same backend as the export's own check.
    assert_within(comparison.largest, "artifact.float32", "the export's own comparison")
    assert [row.agreement for row in comparison.rows] == [1.0 if kind == "classifier" else None] * 2
    assert json.loads((out / "comparison.json").read_text())["tolerance"] == 1e-4
    printed = io.StringIO()
    with contextlib.chdir(out), contextlib.redirect_stdout(printed):
        exec(program_of(out), {})
    shape = str((contract.batch or 1, *expected.shape[1:]))
    assert printed.getvalue().strip() in (LABELS if kind == "classifier" else [shape])


def program_of(out):
    """Return the program on an artifact's card."""
    return (out / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]


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
    assert "labels" in card and "tolerance is 0.0001" in card
    program = program_of(out)
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


@pytest.mark.clause("EXPORT-6")
@pytest.mark.skipif(BACKEND != "tensorflow", reason="one backend shows it; it takes long")
def test_a_layer_that_half_precision_breaks_is_named(tmp_path, videos):
    model = VideoClassifier(CONFIG, 5)
    kernel = by_path(model)["encoder/block_1/mlp/hidden/kernel"]
    kernel.assign(numpy(kernel.value) * 1e7)  # beyond the largest 16-bit number
    model.save_to_preset(tmp_path / "model")
    with pytest.raises(InexactArtifact, match=r"differs by more is encoder/block_1: by ") as caught:
        export_model(
            tmp_path / "model", tmp_path / "out", "litert", quantize="fp16", videos=videos, clips=2
        )
    assert not caught.value.comparison.passes
    assert "differ too much" in (tmp_path / "out/README.md").read_text("utf-8")


def shapes_of_any_brightness(contract, clips, seed):
    """Return levels of drawn shapes, from almost black to bright."""
    generator = np.random.default_rng(seed)
    size = contract.height, contract.width
    gains = np.linspace(0.1, 1, clips)
    drawn = [gain * moving_shapes(generator, contract.frames, size) for gain in gains]
    return np.round(drawn).astype("uint8")


def written_in_integers(quantize, changes, calibration, out):
    """Write a classifier to LiteRT; return its path and its logits' largest error against the oracle."""
    config = CONFIG.replace(**changes)
    model, weights = random_classifier(config)
    contract = dataclasses.replace(
        CONTRACT, format="litert", quantize=quantize, height=18, width=27
    )
    path = out / "model.tflite"
    formats.module("litert").write(
        lambda inputs: serve(model, contract, inputs), model, contract, path, calibration(contract)
    )
    levels = shapes_of_any_brightness(contract, 6, seed=1)
    expected = reference.classify(config, weights, as_seen(levels, contract))
    found = Artifact(path)({"video": levels})["logits"]
    return path, np.abs(found - expected).max() / np.abs(expected).max()


def calibration_of(clips=8):
    return lambda contract: shapes_of_any_brightness(contract, clips, seed=2)


OTHER_OPTIONS = {"cosine_attention": True, "activation": "mish"}
only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow writes LiteRT")


@only_tensorflow
@pytest.mark.clause("EXPORT-4", "EXPORT-5")
@pytest.mark.parametrize(
    ("quantize", "changes"),
    [("int8-dynamic", {}), ("int8", {}), ("int8", OTHER_OPTIONS)],
    ids=str,
)
def test_dense_layers_alone_are_quantized(quantize, changes, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    path, error = written_in_integers(quantize, changes, calibration_of(), tmp_path)
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
    assert_within(error, "artifact.int8", quantize)


@only_tensorflow
@pytest.mark.skipif(not NIGHTLY, reason="run with --nightly; its conversions take long")
@pytest.mark.clause("EXPORT-5")
@pytest.mark.parametrize(
    "calibration",
    [
        random_levels,
        lambda contract: np.zeros_like(random_levels(contract)),
        lambda contract: calibration_of()(contract)[:1],
        lambda contract: calibration_of()(contract)[-1:],
    ],
    ids=["noise", "black", "a dark clip", "a bright clip"],
)
def test_ranges_of_other_clips_are_noticed(calibration, tmp_path):
    _, error = written_in_integers("int8", OTHER_OPTIONS, calibration, tmp_path)
    assert error > 2 * TOLERANCES["artifact.int8"].value


@pytest.mark.clause("EXPORT-5")
@pytest.mark.skipif(BACKEND != "torch", reason="clips are chosen alike on all backends")
def test_int8_is_measured_on_real_clips_that_are_not_compared(
    preset, videos, tmp_path, monkeypatch
):
    measured, compared = [], []

    def conversion(module, arguments, name, errors, say):
        measured.extend(np.load(Path(arguments[0]) / "clips.npy"))
        errors.write_text("what the converter said")
        return "killed by SIGKILL"

    def recorded_sample(name, levels, ids, contract):
        compared.extend(levels if name != "noise" else [])
        return sample(name, levels, ids, contract)

    monkeypatch.setattr("vmae_keras.export.exporter.run_worker", conversion)
    monkeypatch.setattr("vmae_keras.export.exporter.sample", recorded_sample)
    with pytest.raises(ArtifactError, match="conversion to litert failed: killed by SIGKILL"):
        export_model(preset, tmp_path, "litert", quantize="int8", videos=videos, clips=3)
    assert (tmp_path / "errors.txt").read_text() == "what the converter said"
    sizes = {"frames": CONFIG.frames, "size": (CONFIG.height, CONFIG.width)}
    real = [read_clip(path, **sizes).tobytes() for path in sorted(videos.glob("shapes*.mp4"))]
    assert len(measured) == 8 and len(compared) == 2
    found = [clip.tobytes() for clip in (*measured, *compared)]
    assert sorted(found) == sorted(real)  # each once


def test_int8_without_real_clips_is_refused(preset, tmp_path):
    with pytest.raises(ValueError, match="int8 measures its ranges on real clips"):
        export_model(preset, tmp_path, "litert", quantize="int8")
