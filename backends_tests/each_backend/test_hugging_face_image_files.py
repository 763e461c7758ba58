"""Tests of loading the ViT and ViTMAE checkpoints that transformers writes."""

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.peers.hugging_face_image_files import (
    BASE,
    BASE_DECODER,
    DECODER,
    SMALL,
    build,
    random_images,
    rename,
    run,
    save,
)
from backends_tests.support import TRIES_ALL_FILES, numpy
from vmae_keras import VideoClassifier, VideoEncoder, VideoMAE, load, masks

OPTIONS = {
    "pixels": {**SMALL, **DECODER},
    "normalised pixels, widths of B": {**BASE, **BASE_DECODER, "norm_pix_loss": True},
}


@pytest.mark.clause("IMAGE-1", "IMAGE-2", "IMAGE-4", "IMAGE-5", "IMAGE-6", "IMAGE-7", "WEIGHT-3")
@pytest.mark.parametrize("name", OPTIONS if TRIES_ALL_FILES else ["pixels"])
def test_a_pretrained_mae_predicts_the_same(name, tmp_path):
    theirs = build("MAE", **OPTIONS[name])
    save(theirs, tmp_path)
    if name == "pixels":  # as in released files; transformers 5.23 writes others
        rename(tmp_path, "decoder.decoder_encoder.layer.", "decoder.decoder_layers.")
    ours = load(tmp_path)
    assert type(ours) is VideoMAE and ours.config.planar_positions
    assert not ours.config.learned_positions
    video, generator = random_images(theirs.config), np.random.default_rng(0)
    ids = [masks.pretraining(ours.config.grid, generator, kind="random", ratio=0.75) for _ in video]
    batch = {key: np.stack([one[key] for one in ids]) for key in ids[0]} | {"video": video}
    expected, expected_loss = run(theirs, video, batch["visible"])
    expected = np.take_along_axis(expected, batch["decoded"][..., None], axis=1)
    predictions = ours.predict(batch, verbose=0)
    assert_close(predictions, expected, "hugging_face.output")
    ours.compile()
    loss = ours.compute_loss(batch, y_pred=keras.ops.convert_to_tensor(predictions))
    assert_close(numpy(loss), expected_loss, "hugging_face.loss")


@pytest.mark.clause("IMAGE-1", "IMAGE-3", "IMAGE-4", "IMAGE-7", "WEIGHT-3")
@pytest.mark.parametrize("name", ["ViT", "MAE encoder"])
def test_features_are_the_same_of_the_class_token_too(name, tmp_path):
    theirs = build(name, **SMALL)
    save(theirs, tmp_path)
    ours = VideoEncoder.from_preset(tmp_path)
    assert ours.config.learned_positions == (name == "ViT")
    video = random_images(theirs.config)
    expected, _ = run(theirs, video)
    assert expected.shape == (2, 17, 32)
    assert_close(ours.predict(video, verbose=0), expected, "hugging_face.output")


@pytest.mark.clause("POS-3", "POS-5", "IMAGE-1", "IMAGE-7")
def test_learned_positions_are_resized_as_transformers_does_and_the_class_tokens_stays(tmp_path):
    theirs = build("ViT", **SMALL)
    save(theirs, tmp_path)
    ours = VideoEncoder.from_preset(tmp_path, height=48, width=64)
    theirs.config.image_size = (48, 64)
    video = random_images(theirs.config)
    expected, _ = run(theirs, video, interpolate_pos_encoding=True)
    assert_close(ours.predict(video, verbose=0), expected, "hugging_face.output")


@pytest.mark.clause("IMAGE-3", "IMAGE-7", "FT-2", "WEIGHT-3")
def test_logits_are_the_same_and_classes_have_their_names(tmp_path):
    names = {i: f"thing {i}" for i in range(5)}
    theirs = build("ViT classifier", **{**SMALL, "image_size": [16, 40]}, id2label=names)
    save(theirs, tmp_path)
    ours = VideoClassifier.from_preset(tmp_path)
    assert (ours.pooling, ours.labels) == ("first", tuple(names.values()))
    assert (ours.config.mean, ours.config.std) == ((0.5,) * 3, (0.5,) * 3)
    video = random_images(theirs.config)
    expected, _ = run(theirs, video)
    assert_close(ours.predict(video, verbose=0), expected, "hugging_face.output")
