"""The Python examples of README.md and docs/ run as they stand, only shorter.

`once/test_documentation.py` checks that none is left out.
"""

import numpy as np
import pytest
from PIL import Image

from backends_tests.examples import example, replaced
from vmae_keras import VideoClassifier, VideoEncoder, VideoMAE, VideoMAEConfig
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.presets import stored_model
from vmae_keras.weights.write import write_official


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = write_moving_shapes(tmp_path / "clips", 2)
    for clip, name in zip(clips, ("jump.mp4", "run.mp4"), strict=True):
        clip.rename(tmp_path / name)
    VideoMAE(VideoMAEConfig.variant("tiny")).save_to_preset("pretrained")
    changes = {
        "hf://MCG-NJU/videomae-base": "pretrained",
        "frames=16, size=224": "frames=4, size=(16, 24)",
        "epochs=20": "epochs=2",
    }
    found = {}
    exec(replaced(example("README.md"), **changes), found)
    assert found["videos"].shape == (2, 4, 16, 24, 3) and found["features"].shape[0] == 2
    labels = VideoClassifier.from_preset("fine-tuned").labels
    assert labels == found["classifier"].labels == ("jump", "run")


def test_examples_of_pretraining_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = write_moving_shapes(tmp_path / "clips", 9)
    clips[0].rename(tmp_path / "clip.mp4")
    short = {
        "steps_per_epoch=100, epochs=10": "steps_per_epoch=2, epochs=1",
        'variant("demo")': 'variant("demo", depth=1, decoder_depth=1)',
    }
    exec(
        replaced(example("docs/guides/own-videos.md", "from vmae_keras import AdamW"), **short), {}
    )
    exec(example("docs/guides/own-videos.md", "from vmae_keras import load"), {})
    with Image.open(tmp_path / "rebuilt.png") as picture:
        assert picture.width > 500


def test_examples_of_published_weights_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = VideoMAEConfig.variant("v1-s", dim=128, heads=2, mlp_dim=8, depth=1, decoder_depth=1)
    VideoMAE(small).save_to_preset("pretrained")
    write_official(stored_model(VideoEncoder(small, pooling="mean")), tmp_path / "official.pth")
    names = {
        "hf://MCG-NJU/videomae-base": "pretrained",
        "vit_b_k710_dl_from_giant.pth": "official.pth",
        "run-b": "pretrained",
    }
    found = {}
    with pytest.warns(UserWarning, match="heads=2 is assumed"):
        text = example("docs/guides/published-weights.md", "from vmae_keras import VideoClassifier")
        exec(replaced(text, **names), found)
    assert found["classifier"].classes == 10 and found["encoder"].config.frames == 32
    assert isinstance(found["model"], VideoMAE) and (tmp_path / "mine" / "config.json").is_file()
    k710 = VideoClassifier(small, 3, labels=["Tai Chi", "abseiling", "yoga"])
    found = {"k710": k710, "k400_names": ["yoga", "tai_chi"]}
    exec(example("docs/guides/published-weights.md", "from vmae_keras.weights.classes"), found)
    assert found["k400"].labels == ("yoga", "tai_chi")


def test_examples_of_image_models_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"dim": 32, "heads": 2, "mlp_dim": 8, "depth": 1}
    decoder = {"decoder_dim": 16, "decoder_heads": 2, "decoder_depth": 1}
    VideoMAE(VideoMAEConfig.variant("mae-b", **small, **decoder)).save_to_preset("mae")
    VideoClassifier(
        VideoMAEConfig.variant("vit-b", **small), 2, pooling="first", labels=["cat", "dog"]
    ).save_to_preset("vit")
    found = {}
    names = {"hf://facebook/vit-mae-base": "mae", "hf://google/vit-base-patch16-224": "vit"}
    exec(replaced(example("docs/guides/image-models.md"), **names), found)
    assert found["mae"].config.mae_target and found["vit"].labels == ("cat", "dog")
    images = np.zeros((1, 1, 224, 224, 3), "uint8")
    assert tuple(found["features"](images).shape) == (1, 1 + 196, 32)


def test_the_example_of_features_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (clip,) = write_moving_shapes(tmp_path / "videos", 1)
    VideoMAE(VideoMAEConfig.variant("tiny")).save_to_preset("run")
    found = {}
    exec(example("docs/guides/features-and-probes.md"), found)
    (features,) = found["found"].files.values()
    assert features.stem == clip.stem
    windows, width = np.load(features).shape
    assert windows > 1 and width == found["encoder"].config.dim
