"""Tests around the training of probes: input features, combination of views, selection."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from backends_tests.chi_square import assert_uniform
from backends_tests.compare import assert_close
from spec import evaluation_reference, probe_reference
from vmae_keras.data.files import VideoFile
from vmae_keras.evaluation.probes import encoded, training
from vmae_keras.evaluation.probes import probing as probing
from vmae_keras.evaluation.probes.nearest import neighbour_votes
from vmae_keras.evaluation.probes.probing import check_sets, held_out_places, probe_features
from vmae_keras.evaluation.probes.sweep import Sweep

CLASSES = 3


class Encoded:
    """Encoding with random features (videos, 2 views, 4), whose first video could not be read."""

    def __init__(self, pooling="mean"):
        generator = np.random.default_rng(0)
        self.settings, self.encoder = {}, SimpleNamespace(pooling=pooling)
        self.sets, self.features = {}, {}
        for name, count in (("train", 12), ("test", 6)):
            self.sets[name] = [VideoFile(f"/{name}/{i}.mp4", "xyz"[i % 3]) for i in range(count)]
            self.features[name] = generator.standard_normal((count, 2, 4)).astype("float32")

    def read(self, name):
        return self.features[name], np.arange(1, len(self.sets[name]))


# Features ------------------------------------------------------------------------------------------


class Model:
    """Stub of `Probes` with two heads: the logits are the first features, and twice these."""

    def __init__(self, heads, dim, classes, attentive):
        assert (heads, dim, classes) == (2, 4, CLASSES)

    def compile(self, *_):
        pass

    def fit(self, *_, **__):
        pass

    def predict(self, x):
        assert len(x) == training.BATCH and x.dtype == np.float32
        x = x.reshape(len(x), -1, 4)[:, 0, :CLASSES]
        return np.stack([x, 2 * x], axis=1)


@pytest.mark.clause("PROBE-1", "PROBE-2", "PROBE-4", "EVAL-4")
@pytest.mark.parametrize("kind", ["linear", "attentive"])
def test_views_are_standardised_and_joined_as_the_oracle_does(kind, monkeypatch):
    """Check that views are standardised by the statistics of the training views, and tokens are not."""
    monkeypatch.setattr(training, "Probes", Model)
    optimizers, seeds = [], []
    monkeypatch.setattr(training, "SweptAdamW", lambda *settings: optimizers.append(settings))
    monkeypatch.setattr(
        training, "backend", SimpleNamespace(set_seed=seeds.append, predict=Model.predict)
    )
    monkeypatch.setattr(training, "BATCH", 4)  # six views fill one batch and part of another
    generator = np.random.default_rng(0)
    shape = (7, 2, 4) if kind == "linear" else (7, 2, 5, 4)
    features = (3 + 2 * generator.standard_normal(shape)).astype("float32")
    queries = generator.standard_normal(shape).astype("float32")
    known, where = np.array([0, 2, 3, 6]), np.array([1, 4, 5])
    judging = training.Training(kind, np.zeros(7, int), CLASSES, 3, 0.3, 5, None)
    found = judging.judge(features, known, (1e-3, 1e-2), queries, where)
    assert optimizers == [((1e-3, 1e-2), 3 * 2, 0.3)]  # three epochs of eight views
    assert seeds == [5]
    seen = queries[where].astype("float64")
    if kind == "linear":
        seen = probe_reference.standardised(features[known].reshape(8, 4), seen.reshape(6, 4))
    logits = seen.reshape(3, 2, -1, 4)[:, :, 0, :CLASSES]
    expected = [
        [evaluation_reference.average_views(scale * video) for video in logits] for scale in (1, 2)
    ]
    assert_close(found, expected, "float32")


def test_a_feature_that_never_changes_is_not_magnified():
    features = np.full((3, 2, 1), 5.0)
    views = training._Views(
        features + 1, np.arange(3), training._standardisation(features, np.arange(3))
    )
    assert views[np.arange(6)].tolist() == [[1.0]] * 6


@pytest.mark.parametrize(("pooling", "dtype"), [("mean", "float32"), (None, "float16")])
def test_tokens_are_kept_in_half_precision_and_pooled_features_are_not(
    pooling, dtype, tmp_path, monkeypatch
):
    shape = (16,) if pooling else (5, 16)
    predict = SimpleNamespace(predict=lambda _, views: np.zeros((len(views), *shape)))
    monkeypatch.setattr(encoded, "backend", predict)
    monkeypatch.setattr(encoded, "model_fingerprint", lambda _: "")
    sizes = SimpleNamespace(frames=2, height=4, width=4, channels=3)
    policy = SimpleNamespace(name="float32")
    encoder = SimpleNamespace(pooling=pooling, dtype_policy=policy, config=sizes)
    encoding = encoded.Encoding(
        encoder, Encoded().sets, tmp_path, sampling="dense", stride=1, clips=3, crops=2
    )
    found = [encoding._open(name)[0] for name in ("train", "test")]
    assert [(each.shape, each.dtype) for each in found] == [
        ((count, 6, *shape), np.dtype(dtype)) for count in (12, 6)
    ]
    assert encoding.bytes == sum(each.nbytes for each in found)


def test_every_view_is_trained_on_once_an_epoch_in_a_drawn_order(monkeypatch):
    monkeypatch.setattr(training, "BATCH", 2)
    features = np.arange(8.0).reshape(4, 2, 1)
    views = training._Views(features, np.array([1, 3]), (0.0, 1.0))
    order = training._Order(views, np.array([8, 6]), 1200, seed=0)
    seen = []
    for step in range(1200):
        x, numbers = order[step]
        assert numbers.tolist() == np.where(x[:, 0] < 4, 8, 6).tolist()
        seen += x[:, 0].tolist()
    epochs = list(zip(*[iter(seen)] * 4, strict=True))
    assert_uniform(epochs, itertools.permutations((2.0, 3.0, 6.0, 7.0)))
    pairs = itertools.pairwise(epoch[0] for epoch in epochs)
    assert_uniform(pairs, itertools.product((2.0, 3.0, 6.0, 7.0), repeat=2))


# Neighbours ----------------------------------------------------------------------------------------


@pytest.mark.clause("PROBE-3")
def test_votes_equal_the_oracles(monkeypatch):
    monkeypatch.setattr("vmae_keras.evaluation.probes.nearest._CHUNK", 3)
    generator = np.random.default_rng(0)
    known, queries = generator.standard_normal((20, 6)), generator.standard_normal((7, 6))
    numbers = generator.integers(0, 5, 20).tolist()
    found = neighbour_votes(known, numbers, queries, 5, (1, 5, 20))
    expected = [
        [probe_reference.neighbour_votes(known, numbers, q, 5, k) for q in queries]
        for k in (1, 5, 20)
    ]
    assert_close(found, expected, "float64")
    with pytest.raises(ValueError, match="There are 20 neighbours"):
        neighbour_votes(known, numbers, queries, 5, (21,))


def test_of_equally_near_videos_the_first_vote():
    known = np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 0.0], [5.0, 0.0]])
    votes = neighbour_votes(known, [0, 2, 1, 0], np.array([[4.0, 0.0]]), CLASSES, (1, 2))
    assert votes[:, 0].tolist() == [[0, 0, 1], [0, 0.5, 0.5]]


# The choice ----------------------------------------------------------------------------------------


@pytest.mark.clause("PROBE-3", "PROBE-4")
@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_a_choice_is_made_on_videos_held_out_and_all_are_trained_on_with_it(kind, monkeypatch):
    numbers, calls = np.arange(12) % 3, []
    held = held_out_places(np.arange(1, 12), numbers, 0.25, seed=5)
    kept = np.setdiff1d(np.arange(1, 12), held)

    def judged(known, known_numbers, queries, tried):
        calls.append((known, known_numbers, queries, tried))
        shares = np.full((len(tried), len(queries), CLASSES), 1 / CLASSES)
        if len(calls) == 1:
            shares[1] = np.eye(CLASSES)[numbers[held]]
        return shares

    class Training:
        def __init__(self, kind, numbers, *settings):
            assert settings == (CLASSES, 7, 0.3, 5, print)
            self.numbers = numbers

        def expect(self, *views):
            assert views == (16, 22)

        def judge(self, features, known, rates, queries, where):
            return judged(features[known], self.numbers[known], queries[where], rates)

    monkeypatch.setattr(probing, "Training", Training)
    monkeypatch.setattr(
        probing, "neighbour_votes", lambda known, own, queries, _, k: judged(known, own, queries, k)
    )
    encoding = Encoded()
    values, trained = (1, 5), {}
    if kind == "linear":
        values = (1e-3, 1e-2, 1e-1)
        trained = {"rates": values, "epochs": 7, "weight_decay": 0.3, "progress": print}
    found = probe_features(encoding, kind=kind, held_out=0.25, seed=5, **trained)
    assert found.sweep.values == values and found.sweep.best == 1
    assert found.sweep.quantity == ("neighbours" if kind == "knn" else "learning rate")
    train, test = encoding.features["train"], encoding.features["test"]
    if kind == "knn":
        train, test = train.mean(1), test.mean(1)
    for call, expected in zip(
        calls,
        [
            (train[kept], numbers[kept], train[held], values),
            (train[1:], numbers[1:], test[1:], [values[1]]),
        ],
        strict=True,
    ):
        for got, wanted in zip(call, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.clause("PROBE-4")
@pytest.mark.parametrize(
    ("top_1", "losses", "best"),
    [
        ((0.5, 0.7, 0.7), (0.1, 0.9, 0.8), 2),
        ((0.5, 0.7, 0.7), (0.1, 0.8, 0.9), 1),
        ((0.7, 0.7), (0.3, 0.3), 0),
    ],
)
def test_the_best_has_the_highest_top_1_then_the_lowest_loss(top_1, losses, best):
    assert Sweep("rate", (1.0, 2.0, 3.0)[: len(top_1)], top_1, losses).best == best


@pytest.mark.clause("PROBE-4")
def test_shares_and_losses_of_a_sweep_are_means_over_videos():
    shares = np.array([[[0.5, 0.5, 0], [0.25, 0.75, 0]], [[0.1, 0.8, 0.1], [1, 0, 0]]])
    sweep = probing._swept("rate", (1.0, 2.0), shares, np.array([0, 1]))
    assert (sweep.values, sweep.top_1) == ((1.0, 2.0), (1.0, 0.0))
    expected = [-np.log([0.5, 0.75]).mean(), -np.log([0.1, 1e-12]).mean()]
    np.testing.assert_allclose(sweep.losses, expected)


@pytest.mark.clause("PROBE-4")
def test_each_class_gives_its_share_and_keeps_a_video():
    numbers = np.array([0] * 10 + [1] * 3 + [2] + [3] * 2)
    places = np.delete(np.arange(16), 4)  # one video could not be read
    held = held_out_places(places, numbers, 0.25, seed=3)
    assert np.bincount(numbers[held], minlength=4).tolist() == [2, 1, 0, 1]
    assert set(held.tolist()) < set(places.tolist())
    assert held.tolist() == held_out_places(places, numbers, 0.25, seed=3).tolist()
    with pytest.raises(ValueError, match="No training video can be held out"):
        held_out_places(np.arange(2), np.arange(2), 0.5, seed=0)


@pytest.mark.clause("PROBE-4", "MASK-6")
def test_every_choice_of_held_out_videos_is_equally_likely():
    """Check two of four videos, of each of two classes."""
    numbers = np.arange(8) // 4
    drawn = [
        tuple(held_out_places(np.arange(8), numbers, 0.5, seed).tolist()) for seed in range(1000)
    ]
    two = [list(itertools.combinations(range(4 * n, 4 * n + 4), 2)) for n in range(2)]
    assert_uniform(drawn, (one + other for one, other in itertools.product(*two)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "svm"}, "`kind` must be one of linear, attentive, knn"),
        ({"kind": "attentive"}, "An attentive probe needs tokens"),
        ({"kind": "knn", "epochs": 3}, "Neighbours are not trained"),
        ({"rates": [0.0]}, "Rates must be above 0"),
        ({"held_out": 1.0}, "`held_out` between 0 and 1"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        probe_features(Encoded(), **{"kind": "linear", **change})


def test_videos_and_classes_of_the_test_are_checked():
    files = [VideoFile(f"{place}.mp4", "ab"[place % 2]) for place in range(6)]
    assert check_sets(files[:3], files[3:]) == ("a", "b")
    with pytest.raises(ValueError, match=r"training and test both. Received: 2 that are"):
        check_sets(files[:4], files[2:])
    with pytest.raises(ValueError, match=r"no class of the model. Received: c"):
        check_sets(files[:3], [VideoFile("x.mp4", "c")])
