"""Tests of probes: heads against the oracle's and against single heads, features on disk, whole probes."""

import json
import math
from collections import namedtuple

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.each_backend.test_pretrain import run
from backends_tests.support import by_path, compile_and_build, numpy
from spec import probe_reference, training_reference
from vmae_keras import VideoEncoder, VideoMAE, VideoMAEConfig, backend
from vmae_keras.data.files import VideoFile
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.evaluation.frozen_encoder import FrozenEncoder
from vmae_keras.evaluation.probes import encoded
from vmae_keras.evaluation.probes.encoded import Encoding
from vmae_keras.evaluation.probes.heads import Probes, SweptAdamW, summed_losses
from vmae_keras.evaluation.probes.probing import probe_features
from vmae_keras.recipes.pretraining import RECIPES
from vmae_keras.runs.run import Run, RunError
from vmae_keras.runs.settings import PretrainingSettings
from vmae_keras.training import checkpoint

CONFIG = VideoMAEConfig.variant("tiny", depth=1, width=16)
VIEWS = {"sampling": "dense", "stride": 2, "clips": 2, "crops": 1, "batch_views": 4}
HEADS, CLASSES = 2, 5


@pytest.mark.clause("PROBE-2")
@pytest.mark.parametrize("dim", [64, 12])
def test_attentive_logits_equal_the_oracles(dim):
    """Check heads with two attention heads, and with one where 32 does not divide the width."""
    generator = np.random.default_rng(0)
    model = Probes(HEADS, dim, CLASSES, attentive=True)
    weights = {}
    for path, variable in by_path(model).items():
        if path.endswith("kernel"):  # scaled by the size of one head; classes start alike
            limit = (6 / sum(variable.shape[1:])) ** 0.5 * (0.01 if path == "head/kernel" else 1)
            assert 0.9 * limit < np.abs(numpy(variable)).max() <= limit
        scale = 1 if path.endswith("bias") else variable.shape[1] ** -0.5
        weights[path] = generator.standard_normal(variable.shape) * scale
        variable.assign(weights[path])
    tokens = 2 + 3 * generator.standard_normal((3, 7, dim))
    got = model.predict(tokens.astype("float32"), verbose=0)
    assert got.shape == (3, HEADS, CLASSES)
    for head in range(HEADS):
        one = {
            name: (weights[f"{name}/kernel"][head], weights[f"{name}/bias"][head])
            for name in ("value", "projection", "wide", "narrow", "head")
        }
        one["query"] = weights["pooling/q_bias"][head]
        one["key"] = weights["key/kernel"][head]
        expected = probe_reference.attentive_logits(one, tokens, 2 if dim == 64 else 1)
        assert_close(got[:, head], expected, "probe.logits")


@pytest.mark.clause("OPT-2", "OPT-4", "OPT-5")
def test_each_head_follows_the_oracles_adamw_at_its_own_rate(monkeypatch):
    """Check each rate's decay to 0 by half a cosine, with the requested weight decay and b2 = .999."""
    generator = np.random.default_rng(0)
    rates, steps, sizes = (1e-3, 3e-2), 3, {"head/kernel": (2, 3, 2), "head/bias": (2, 2)}
    start = {name: generator.standard_normal(size) / 100 for name, size in sizes.items()}
    gradients = [
        {name: generator.standard_normal(size) for name, size in sizes.items()}
        for _ in range(steps)
    ]
    with keras.name_scope("probes"), keras.name_scope("head"):
        weights = [keras.Variable(start[f"head/{name}"], name=name) for name in ("kernel", "bias")]
    optimizer = SweptAdamW(rates, steps, 0.1)
    optimizer.build(weights)
    for each in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in each.values()], weights)
    monkeypatch.setattr(
        training_reference, "pretraining_gradients", lambda config, weights, batch: (0.0, batch)
    )
    for head, rate in enumerate(rates):
        of_head = [{name: value[head] for name, value in each.items()} for each in gradients]
        moved = [rate * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
        expected = training_reference.adamw_steps(
            None,
            {name: value[head] for name, value in start.items()},
            of_head,
            moved,
            weight_decay=0.1,
            beta_2=0.999,
        )
        for weight, wanted in zip(weights, expected.values(), strict=True):
            assert_close(numpy(weight)[head], wanted, "adamw_step", sum(moved))


@pytest.mark.clause("PROBE-1", "PROBE-2")
def test_heads_side_by_side_train_as_each_would_alone():
    """Check eight steps: each head has its own rate and does not affect the others."""
    generator = np.random.default_rng(0)
    features = generator.standard_normal((16, 4, 12)).astype("float32")
    labels = generator.integers(0, CLASSES, 16)
    rates = (3e-4, 3e-3)

    def trained(rates, start):
        model = Probes(len(rates), 12, CLASSES, attentive=True)
        for path, variable in by_path(model).items():
            variable.assign(start[path])
        compile_and_build(model, SweptAdamW(rates, 8, 0.05), summed_losses)
        model.fit(features, labels, batch_size=8, epochs=4, shuffle=False, verbose=0)
        return {path: numpy(variable.value) for path, variable in by_path(model).items()}

    backend.set_seed(0)
    model = Probes(len(rates), 12, CLASSES, attentive=True)
    start = {path: numpy(variable.value) for path, variable in by_path(model).items()}
    together = trained(rates, start)
    for head, rate in enumerate(rates):
        alone = trained([rate], {path: value[head : head + 1] for path, value in start.items()})
        for path, value in alone.items():
            moved = np.abs(value - start[path][head : head + 1]).max()
            # half a cosine over eight steps: a sum of 4.5 rates
            assert rate / 2 < moved < 6 * rate, path
            assert_close(together[path][head : head + 1], value, "probe.weight", what=path)


# Features on disk --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write six files, the second of which is not a video."""
    folder = tmp_path_factory.mktemp("videos")
    paths = write_moving_shapes(folder, 6, frames=12, size=(16, 24))
    paths[1].write_bytes(b"no video")
    return [VideoFile(str(path), "ab"[place % 2]) for place, path in enumerate(paths)]


@pytest.fixture(scope="module")
def encoder():
    backend.set_seed(0)
    return FrozenEncoder(VideoEncoder(CONFIG), None)


@pytest.fixture
def sets(files):
    return {"train": files[:4], "test": files[4:]}


@pytest.fixture
def skipped(tmp_path):
    return SkippedFiles(tmp_path / "skipped.jsonl")


class Killed(BaseException):
    pass


def test_each_video_is_encoded_once_through_kills(encoder, sets, skipped, tmp_path, monkeypatch):
    whole = Encoding(encoder, sets, tmp_path / "whole", **VIEWS)
    whole.run(skipped)
    asked, dataset = [], encoded.views_dataset

    def recorded(files, *rest, **settings):
        asked.append([file.path for file in files])
        return dataset(files, *rest, **settings)

    monkeypatch.setattr(encoded, "views_dataset", recorded)
    calls = []

    def kill(*counts):
        calls.append(counts)
        if len(calls) == 2:
            raise Killed

    with pytest.raises(Killed):
        Encoding(encoder, sets, tmp_path / "killed", **VIEWS).run(skipped, progress=kill)
    again = Encoding(encoder, sets, tmp_path / "killed", **VIEWS)
    again.run(skipped)
    paths = {name: [file.path for file in files] for name, files in sets.items()}
    assert calls == [(1, 6), (3, 6)]  # the second is broken
    assert asked == [paths["train"], [paths["train"][1], paths["train"][3]], paths["test"]]
    for name, places in (("train", [0, 2, 3]), ("test", [0, 1])):
        features, found = again.read(name)
        expected, _ = whole.read(name)
        assert (
            features.shape == (len(sets[name]), 2, 32, CONFIG.dim) and features.dtype == "float16"
        )
        assert found.tolist() == places
        # The last bit of float16 may depend on the views in a batch.
        np.testing.assert_allclose(features[places], expected[places], rtol=2e-3, atol=2e-3)
    assert whole.bytes == 6 * 2 * 32 * CONFIG.dim * 2


def test_a_run_of_uniform_sampling_is_probed_by_as_many_clips_as_that_has(sets, tmp_path):
    made = Run(tmp_path / "run")
    recipe = RECIPES.choose("demo", {"sampling": "uniform"})
    made.save(PretrainingSettings("", "", CONFIG, recipe, 0, keras.backend.backend()))
    checkpoint.save(made.checkpoints, 1, VideoMAE(CONFIG))
    for name, files in sets.items():
        rows = "".join(f"{file.path},a\n" for file in files)
        (tmp_path / f"{name}.csv").write_text(rows)
    code, text = run(
        "probe",
        made.folder,
        tmp_path / "train.csv",
        tmp_path / "test.csv",
        "--kind",
        "knn",
        "--out",
        tmp_path / "probe",
    )
    assert code == 0 and "4 + 2 videos, 2 x 1 views each" in text, text


def test_other_views_and_full_disks_are_refused(encoder, sets, skipped, tmp_path, monkeypatch):
    Encoding(encoder, sets, tmp_path / "run", **VIEWS)
    with pytest.raises(RunError, match=r"of another probe. Received: another clips, test. Give"):
        changed = {"train": sets["train"], "test": sets["test"][:1]}
        Encoding(encoder, changed, tmp_path / "run", **{**VIEWS, "clips": 1})
    usage = namedtuple("usage", "total used free")(0, 0, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(RunError, match=r"need 0.1 MB on the disk. Received: .* 0.0 MB are free"):
        Encoding(encoder, sets, tmp_path / "full", **{**VIEWS, "clips": 6})


def test_features_beyond_float16_are_refused(sets, skipped, tmp_path):
    """Check the refusal of overflowing features, which a few channels of large models produce."""
    model = VideoEncoder(CONFIG)
    by_path(model)["encoder/norm/gamma"].assign(np.full(CONFIG.dim, 1e6))
    encoding = Encoding(FrozenEncoder(model, None), sets, tmp_path, **VIEWS)
    with pytest.raises(ArithmeticError, match="not finite in float16"):
        encoding.run(skipped)
    assert not len(encoding.read(next(iter(sets)))[1])  # no video is marked done, with zeros


# Whole probes ------------------------------------------------------------------------------------


class Known:
    """Encoding whose features reveal the class."""

    views = 2

    def __init__(self, kind, share=1.0):
        generator = np.random.default_rng(0)
        self.sets, self.features = {}, {}
        self.settings = {"model": "known"}
        self.encoder = namedtuple("Encoder", "pooling")(None if kind == "attentive" else "mean")
        for name, count in (("train", 36), ("test", 12)):
            numbers = np.arange(count) % 3
            shape = (count, self.views, 12) if kind != "attentive" else (count, self.views, 5, 12)
            x = generator.standard_normal(shape) * 0.3
            x[..., 0] += 100 if kind == "linear" else 0  # large, but uninformative
            for place, number in enumerate(numbers):
                x[place, ..., 1 + number] += 2 * share
            self.features[name] = x.astype("float16" if kind == "attentive" else "float32")
            self.sets[name] = [
                VideoFile(f"/{name}/{i}.mp4", "xyz"[n]) for i, n in enumerate(numbers)
            ]

    def read(self, name):
        # The first video of each set could not be read.
        return self.features[name], np.arange(1, len(self.sets[name]))


@pytest.mark.clause("PROBE-1", "PROBE-2", "PROBE-3", "PROBE-4", "EVAL-4")
@pytest.mark.parametrize("kind", ["linear", "attentive", "knn"])
def test_a_probe_finds_what_the_features_tell(kind, tmp_path):
    calls = []
    trained = {} if kind == "knn" else {"epochs": 8, "rates": (1e-6, 3e-2)}
    found = probe_features(
        Known(kind),
        kind=kind,
        progress=lambda *counts: calls.append(counts),
        skipped={"/train/0.mp4": "broken"},
        **trained,
    )
    assert found.videos == 11 and found.top_1 == 1
    if kind != "knn":
        assert found.sweep.values == (1e-6, 3e-2) and found.sweep.best == 1
        assert found.sweep.top_1[0] < found.sweep.top_1[1] == 1
        # 28 and 35 videos of two views, batches of 32.
        assert calls[-1] == (40, 40) and len(calls) == 40
    found.write(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["top_1"] == found.top_1 and metrics["skipped"] == {"/train/0.mp4": "broken"}
    assert metrics["sweep"]["chosen"] == found.sweep.values[found.sweep.best]
    assert metrics["sweep"]["top_1"] == list(found.sweep.top_1)
    names = ["confusion.png", "metrics.json", "results.csv", "sweep.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_the_seed_decides_everything():
    one, same, other = (
        probe_features(Known("linear", 0.2), kind="linear", epochs=2, rates=[1e-2], seed=seed)
        for seed in (0, 0, 1)
    )
    assert one == same and one.results != other.results
