"""The examples in the docstrings of the public names run as they stand, on small models and drawn clips.

`once/test_public_names.py` checks that each public name has one.
"""

import contextlib

import pytest

import vmae_keras
from backends_tests.conversions import Conversions
from backends_tests.examples import docstring_example
from backends_tests.support import in_suite_on_torch
from vmae_keras import VideoClassifier, VideoMAE, VideoMAEConfig
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.presets import stored_model
from vmae_keras.weights.write import write_official

EXPORT = ("export_model", "Artifact")  # the second opens what the first writes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write what the examples read: clips, lists, presets and a file of official weights."""
    folder = tmp_path_factory.mktemp("examples")
    names = ("clip", "a", "b", "c", "d", "e")
    for path, name in zip(write_moving_shapes(folder / "drawn", 6), names, strict=True):
        path.rename(folder / f"{name}.mp4")
    (long,) = write_moving_shapes(folder / "drawn", 1, frames=40)
    long.rename(folder / "long.mp4")
    write_moving_shapes(folder / "clips", 3)
    (folder / "train.csv").write_text("a.mp4,jump\nb.mp4,run\nc.mp4,jump\nclip.mp4,run\n")
    (folder / "test.csv").write_text("d.mp4,jump\ne.mp4,run\n")
    tiny = VideoMAEConfig.variant("tiny")
    VideoMAE(tiny).save_to_preset(folder / "pretrained")
    VideoClassifier(tiny, 2, labels=["jump", "run"]).save_to_preset(folder / "fine-tuned")
    small = {"dim": 128, "heads": 2, "mlp_dim": 8, "depth": 1, "decoder_depth": 1}
    official = VideoMAE(VideoMAEConfig.variant("v1-s", **small))
    write_official(stored_model(official), folder / "weights.pth")
    return folder


@pytest.mark.parametrize("name", [name for name in vmae_keras.__all__ if name not in EXPORT])
def test_the_example_of_a_public_name_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    told = contextlib.nullcontext()
    if name == "convert":  # weight shapes do not reveal it
        told = pytest.warns(UserWarning, match="heads=2 is assumed")
    with told:
        exec(docstring_example(name), {})


@in_suite_on_torch
def test_the_examples_of_exports_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("vmae_keras.export.exporter.run_worker", Conversions())
    found = {}
    for name in EXPORT:
        exec(docstring_example(name), found)
    assert found["comparison"].passes and found["logits"].shape == (1, 2)


def test_broken_files_are_warned_of_and_left_out(folder, tmp_path):
    classifier = VideoClassifier.from_preset(folder / "fine-tuned")
    broken = [str(tmp_path / name) for name in ("x.mp4", "y.mp4")]
    clip = str(folder / "clip.mp4")
    with pytest.warns(UserWarning, match="x.mp4 is broken: No such file"):
        found = vmae_keras.predict(classifier, [broken[0], clip], clips=1, crops=1)
    assert found.keys() == {clip} and found[clip].shape == (2,)
    with (
        pytest.warns(UserWarning, match=r"[xy].mp4 is broken"),
        pytest.raises(ValueError, match=r"x.mp4 cannot be read: No such file.* the other 1\."),
    ):
        vmae_keras.predict(classifier, broken)
