"""Tests of VideoMAE checkpoints: transformers' files read by us, and ours read by transformers."""

import json

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.peers.hugging_face_files import (
    SMALL,
    build,
    masks,
    published,
    random_video,
    run,
)
from backends_tests.support import TRIES_ALL_FILES, numpy
from vmae_keras import VideoClassifier, VideoEncoder, VideoMAE, load
from vmae_keras.presets import stored_model
from vmae_keras.weights.write import write_hugging_face

CLASSES = {"pretraining": VideoMAE, "classifier": VideoClassifier, "encoder": VideoEncoder}
VARIANTS = {
    "S": published(384, 6, 192, 3),
    "B": published(768, 12, 384, 6),
    "L": published(1024, 16, 512, 8),
    "H": published(1280, 16, 640, 8),
}
OPTIONS = {
    "defaults": {},
    "encoder norm": {"use_mean_pooling": False},
    "no biases": {"qkv_bias": False},
    "tanh GELU": {"hidden_act": "gelu_new"},
    "swish": {"hidden_act": "swish"},
    "epsilon": {"layer_norm_eps": 0.01},
    "pixels": {"norm_pix_loss": False},
    "one channel": {"num_channels": 1},
    "not square": {"image_size": [16, 40]},
    "tubelets of one frame": {"tubelet_size": 1, "num_frames": 3},
    "dropout": {"hidden_dropout_prob": 0.1},
}


def saved(folder, kind, **settings):
    model = build(kind, **settings)
    model.save_pretrained(folder)
    if model.config.num_channels == 1:  # transformers normalises with the processor's values
        values = {"image_mean": [0.0], "image_std": [1.0]}
        (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return model


def outputs(model, video, visible, decoded):
    """Return (outputs, loss) of one of our models. The loss is None except in pretraining."""
    if not isinstance(model, VideoMAE):
        return model.predict(video, verbose=0), None
    batch = {"video": video, "visible": visible, "decoded": decoded}
    predictions = model.predict(batch, verbose=0)
    model.compile()
    loss = model.compute_loss(batch, y_pred=keras.ops.convert_to_tensor(predictions))
    return predictions, float(numpy(loss))


def all_equal(ours, *theirs):
    video = random_video(theirs[0].config)
    visible, decoded = masks(ours.config.num_tokens)
    got, our_loss = outputs(ours, video, visible, decoded)
    for model in theirs:
        expected, loss = run(model, video, None if our_loss is None else visible)
        assert_close(got, expected, "hugging_face.output")
        if loss is not None:
            assert_close(our_loss, loss, "hugging_face.loss")


@pytest.mark.clause("WEIGHT-3", "WEIGHT-5")
@pytest.mark.parametrize("kind", ["pretraining", "classifier"])
@pytest.mark.parametrize("name", VARIANTS if TRIES_ALL_FILES else ["S"])
def test_published_widths_compute_the_same_there_and_back(name, kind, tmp_path):
    theirs = saved(tmp_path / "theirs", kind, **VARIANTS[name])
    ours = CLASSES[kind].from_preset(tmp_path / "theirs")
    write_hugging_face(stored_model(ours), tmp_path / "back")
    back = type(theirs).from_pretrained(tmp_path / "back").eval()
    all_equal(ours, theirs, back)
    values = theirs.state_dict()
    assert back.state_dict().keys() == values.keys()
    for key, value in back.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), values[key].numpy(), err_msg=key)


@pytest.mark.clause("WEIGHT-3", "WEIGHT-5", "OPTION-1", "OPTION-2", "OPTION-3", "OPTION-4")
@pytest.mark.filterwarnings("ignore:.*no dropout inside of blocks:UserWarning")
@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "pretraining") for name in OPTIONS]
    # The blocks are equal. The parts after them differ.
    + [(name, "classifier") for name in ("defaults", "encoder norm", "epsilon", "not square")]
    + [(name, "encoder") for name in ("defaults", "encoder norm")]
    if TRIES_ALL_FILES
    else [("not square", "pretraining"), ("encoder norm", "classifier"), ("defaults", "encoder")],
)
def test_options_compute_the_same_there_and_back(name, kind, tmp_path):
    theirs = saved(tmp_path / "theirs", kind, **{**SMALL, **OPTIONS[name]})
    ours = load(tmp_path / "theirs", heads=2)
    assert type(ours) is CLASSES[kind]
    assert write_hugging_face(stored_model(ours), tmp_path / "back") == []
    all_equal(ours, theirs, type(theirs).from_pretrained(tmp_path / "back").eval())
