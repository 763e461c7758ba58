"""Tests of contracts, cards and metrics of exported models, of invalid artifacts and of refusals."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from backends_tests.once.test_command_line import vmae
from vmae_keras.data.files import VideoFile
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.data.view_dataset import views_dataset
from vmae_keras.export import FORMATS, card, formats
from vmae_keras.export.artifact import Artifact
from vmae_keras.export.comparison import Comparison, Row, compared, first_deviating
from vmae_keras.export.contract import ArtifactError, Contract

CONTRACT = Contract(
    kind="classifier",
    format="onnx",
    quantize=None,
    dtype="uint8",
    batch=None,
    frames=4,
    height=16,
    width=16,
    channels=3,
    size=(16, 16),
    visible=0,
    decoded=0,
    labels=("à", "b"),
    sampling="dense",
    stride=4,
    clips=5,
    crops=3,
    source="run",
    version="0",
)
ROW = Row("noise", 4, 1e-6, 1e-7, 1.0)
COMPARISON = Comparison((ROW,), 1e-4, 10**6, 4 * 10**6, 0.1, 0.2, 1, "torch")


@pytest.mark.clause("EXPORT-3", "EXPORT-4")
def test_a_contract_says_what_goes_in_and_comes_back_from_json():
    pretrain = dataclasses.replace(
        CONTRACT, kind="pretraining", visible=8, decoded=24, batch=2, labels=None, dtype="float32"
    )
    assert pretrain.inputs == {
        "video": ("float32", (2, 4, 16, 16, 3)),
        "visible": ("int32", (2, 8)),
        "decoded": ("int32", (2, 24)),
    }
    assert CONTRACT.inputs == {"video": ("uint8", (None, 4, 16, 16, 3))}
    for contract in (CONTRACT, pretrain):
        assert Contract.from_json(contract.to_json()) == contract
    for text in ("", "[]", "{}", CONTRACT.to_json().replace("onnx", "pmml")):
        with pytest.raises(ArtifactError, match="contract cannot be read"):
            Contract.from_json(text)


@pytest.mark.parametrize(
    ("kind", "earlier"), [("classifier", "classifier"), ("pretraining", "pretrain")]
)
def test_contracts_of_earlier_versions_are_read(kind, earlier):
    contract = dataclasses.replace(CONTRACT, kind=kind)
    values = json.loads(contract.to_json())
    del values["kind"]
    assert Contract.from_json(json.dumps(values | {"what": earlier})) == contract
    with pytest.raises(ArtifactError, match="contract cannot be read"):
        Contract.from_json(json.dumps(values | {"what": ["decoder"]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pmml"}, "`format` must be one of savedmodel, litert, onnx, openvino"),
        ({"kind": "decoder"}, "`kind` must be one of pretraining, encoder, classifier"),
        ({"dtype": "float64"}, "`dtype` must be one of uint8, float32"),
        ({"quantize": "int8"}, "litert to fp16, int8-dynamic, int8; openvino to fp16"),
        (
            {"kind": "pretraining", "format": "litert", "quantize": "int8"},
            "'int8-dynamic' or 'fp16'",
        ),
        ({"batch": 0}, "`batch` must be 1 or more"),
    ],
)
def test_contracts_that_cannot_be_kept_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONTRACT, **change)


@pytest.mark.clause("EXPORT-4")
def test_a_batch_that_does_not_fit_is_refused():
    video = np.zeros((7, 4, 16, 16, 3), "uint8")
    CONTRACT.check({"video": video})
    for wrong in (video[0], video[:, :2], video.astype("float32"), video[..., :1]):
        with pytest.raises(
            ValueError, match=r"`video` must be uint8 of the shape \(B, 4, 16, 16, 3"
        ):
            CONTRACT.check({"video": wrong})
    with pytest.raises(ValueError, match=r"inputs are \['video'\]"):
        CONTRACT.check({"clip": video})


@pytest.mark.parametrize("kind", ["classifier", "pretraining"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_cards_program_is_short_and_asks_for_what_the_contract_says(format, kind, tmp_path):
    dtype = "uint8" if kind == "classifier" else "float32"
    contract = dataclasses.replace(
        CONTRACT, format=format, kind=kind, dtype=dtype, visible=8, decoded=24
    )
    card.write_card(tmp_path / "README.md", tmp_path / "model", contract, COMPARISON)
    text = (tmp_path / "README.md").read_text("utf-8")
    program = text.split("```python\n")[1].split("```")[0]
    compile(program, "card", "exec")
    assert len([line for line in program.splitlines() if line]) <= 16
    assert ("visible" in program) == (kind == "pretraining")
    assert f'"video": np.zeros((1, 4, 16, 16, 3), "{dtype}")' in program
    assert (
        "(B, 4, 16, 16, 3)" in text
        and "1.0 MB" in text
        and "keras" not in program.replace("vmae_keras", "")
    )


@pytest.mark.clause("EXPORT-6")
def test_differences_are_shares_of_the_largest_output():
    wanted = np.array([[1.0, -4.0], [2.0, 0.0]])
    row = compared("noise", wanted + np.array([[0, 0.2], [0, 0]]), wanted, True)
    assert (row.count, row.clips, row.agreement) == (2, "noise", 1.0)
    assert row.largest == pytest.approx(0.05) and row.mean == pytest.approx(0.0125)
    assert compared("", wanted[:, ::-1], wanted, True).agreement == 0.0
    assert compared("", wanted * np.nan, wanted, False).largest == np.inf
    passing = dataclasses.replace(COMPARISON, rows=(row,), tolerance=0.06)
    assert passing.passes and not dataclasses.replace(passing, tolerance=0.04).passes


@pytest.mark.clause("EXPORT-6")
def test_the_first_stage_that_differs_is_found():
    wanted = {name: np.full(3, 2.0) for name in ("embedding", "block_0", "block_1", "head")}
    found = {**wanted, "block_0": wanted["block_0"] * 1.00001, "block_1": wanted["block_1"] * 1.5}
    assert first_deviating(found, wanted, 1e-3) == ("block_1", pytest.approx(0.5))
    assert first_deviating(found, wanted, 1e-6)[0] == "block_0"
    assert first_deviating(found, wanted, 1.0) is None


def test_what_is_no_artifact_is_said(tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="holds no artifact"):
        Artifact(tmp_path)
    (tmp_path / "model.tflite").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="damaged, or was not written by `vmae export`"):
        Artifact(tmp_path)
    monkeypatch.setattr(formats, "_RUNTIMES", dict.fromkeys(FORMATS, "no_such_package"))
    with pytest.raises(ArtifactError, match=r"no_such_package.*pip install 'vmae-keras\[litert\]'"):
        Artifact(tmp_path / "model.tflite")


@pytest.fixture
def artifact_of_two(tmp_path, monkeypatch):
    """Write an artifact for two clips at a time that returns first pixels; return it and its batches."""
    batches = []

    def run(inputs):
        batches.append(inputs["video"][:, 0, 0, 0, 0].tolist())
        return {"logits": inputs["video"][:, 0, 0, 0]}

    contract = dataclasses.replace(CONTRACT, batch=2)
    runtime = SimpleNamespace(
        NAME="model.onnx",
        read_contract=lambda path: contract.to_json(),
        open_artifact=lambda path: run,
    )
    monkeypatch.setattr(formats, "module", lambda name: runtime)
    monkeypatch.setattr(formats, "find", lambda path: ("onnx", tmp_path / "model.onnx"))
    monkeypatch.setattr(formats, "check_installed", lambda name, writing: None)
    return Artifact(tmp_path), batches


@pytest.mark.clause("EXPORT-4")
def test_clips_pass_in_batches_of_the_artifacts_size(artifact_of_two):
    artifact, batches = artifact_of_two
    video = (
        np.zeros((5, 4, 16, 16, 3), "uint8")
        + np.arange(5, dtype="uint8")[:, None, None, None, None]
    )
    found = artifact({"video": video})["logits"]
    np.testing.assert_array_equal(found, video[:, 0, 0, 0])
    assert batches == [[0, 1], [2, 3], [4, 4]]


def test_an_artifacts_size_is_that_of_all_its_files(artifact_of_two):
    artifact, _ = artifact_of_two
    for name, size in (("model.onnx", 10), ("model.onnx.data", 300), ("README.md", 5)):
        artifact.path.with_name(name).write_bytes(bytes(size))
    assert artifact.bytes == 310


def test_a_folder_of_several_artifacts_or_of_a_model_is_not_guessed_at(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"")
    assert formats.find(tmp_path) == ("litert", tmp_path / "model.tflite")
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model/saved_model.pb").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"several artifacts: saved_model, model.tflite"):
        formats.find(tmp_path)
    assert formats.find(tmp_path / "saved_model") == ("savedmodel", tmp_path / "saved_model")
    (tmp_path / "config.json").write_text("{}")
    assert formats.find(tmp_path) is None


def test_every_format_has_a_module_and_its_quantizations():
    names = [formats.module(name).NAME for name in FORMATS]
    assert names == ["saved_model", "model.tflite", "model.onnx", "model.xml"]


def test_whole_frames_are_given_as_they_are_or_refused(tmp_path):
    path = write_moving_shapes(tmp_path, 1, frames=12, size=(18, 26))[0]

    def views(height, skipped):
        sizes = dataclasses.replace(CONTRACT, height=height, width=26, size=(height, 26))
        return list(
            views_dataset(
                [VideoFile(str(path))],
                sizes,
                sampling="dense",
                stride=2,
                clips=2,
                crops=None,
                skipped=skipped,
            )
        )

    skipped = SkippedFiles(tmp_path / "skipped.jsonl")
    (element,) = views(18, skipped)
    assert element["views"].shape == (2, 4, 18, 26, 3) and element["views"].std() > 0
    assert views(20, skipped) == []
    assert json.dumps(skipped.report()).count("18 x 26 pixels, and 20 x 26 are taken") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "many"], "--batch must be `dynamic` or a number"),
        (["--frame-size", "360"], "--frame-size must be like 360x640"),
        ([], "nowhere does not exist"),
    ],
)
def test_the_commands_refusals(arguments, message):
    code, _, errors = vmae("export", "nowhere", "--format", "onnx", *arguments)
    assert code == 1 and message in errors and "Traceback" not in errors


def test_predict_wants_one_model_and_one_video():
    for arguments in (["clip.mp4"], ["--model", "a", "b", "clip.mp4"]):
        code, _, errors = vmae("predict", *arguments)
        assert code == 2 and "vmae predict MODEL CLIP" in errors
