"""Tests of the classifier's evaluation: metrics against the oracle's, broken files, and kills."""

import csv
import json

import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.each_backend.test_classifier import random_classifier
from backends_tests.once.test_view_dataset import oracle_views
from backends_tests.support import numpy
from spec import evaluation_reference, reference
from vmae_keras import VideoMAEConfig, backend
from vmae_keras.data.batches import NoReadableVideo
from vmae_keras.data.files import VideoFile
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.spreadsheets import unguarded
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.evaluation import classification
from vmae_keras.evaluation.classification import Evaluation
from vmae_keras.evaluation.results import Result, ResultsTable
from vmae_keras.runs.run import RunError

CONFIG = VideoMAEConfig.variant("tiny", depth=1, width=16)
LABELS = ('=HYPERLINK("x")', "run, fast", 'say "go"', "sit", "swim", "throw", "'-turn")
VIEWS = {"sampling": "dense", "stride": 2, "clips": 2, "crops": 3}
BROKEN = 2
BATCH = 4  # six videos of six views: batches span videos, and all are full


@pytest.fixture(scope="module")
def classifier():
    return random_classifier(CONFIG, classes=len(LABELS))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write seven files, the third of which is not a video. One file name is not valid UTF-8."""
    folder = tmp_path_factory.mktemp("videos")
    # Not resized: values that round to either of two levels would hide differences of the model.
    paths = write_moving_shapes(folder, 6, frames=14, size=(16, 24))
    paths[-1] = paths[-1].rename(folder / "caf\udce9, 5.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")
    paths.insert(BROKEN, folder / "broken.mp4")
    classes = (0, 1, 1, 2, 0, 3, 1)
    return [
        VideoFile(str(path), LABELS[number]) for path, number in zip(paths, classes, strict=True)
    ]


@pytest.fixture
def run(classifier, files, tmp_path):
    def evaluated(files=files, **changes):
        settings = {
            "labels": LABELS,
            **VIEWS,
            "skipped": SkippedFiles(tmp_path / "skipped.jsonl"),
            "batch_views": BATCH,
            **changes,
        }
        return classification.evaluate(classifier[0], files, **settings)

    return evaluated


@pytest.fixture(scope="module")
def expected(classifier, files):
    """Return the probabilities of each readable file, (K,) float64."""
    probabilities = {}
    for index, file in enumerate(files):
        if index != BROKEN:
            views = np.rint(oracle_views(file.path, CONFIG, **VIEWS)).astype("uint8")
            logits = reference.classify(CONFIG, classifier[1], views)
            probabilities[file.path] = evaluation_reference.average_views(logits)
    return probabilities


def rows(folder):
    with open(folder / "results.csv", newline="", errors="surrogateescape") as file:
        table = list(csv.DictReader(file))
    assert not any(field[0] in "=+-@" for row in table for field in row.values())  # no formulas
    return [{name: unguarded(field) for name, field in row.items()} for row in table]


def assert_same(one, other):
    """Compare results up to the last bits, which depend on the views in a batch."""
    assert (one.skipped, one.settings) == (other.skipped, other.settings)
    for mine, theirs in zip(one.results, other.results, strict=True):
        assert (mine.path, mine.label) == (theirs.path, theirs.label)
        assert mine.predicted == theirs.predicted
        assert_close(mine.probabilities, theirs.probabilities, "class_probability")


@pytest.mark.clause("EVAL-1", "EVAL-3", "EVAL-4")
@pytest.mark.parametrize("batch_views", [BATCH, 7])
def test_probabilities_equal_the_oracles(run, files, expected, monkeypatch, batch_views):
    shapes = []
    predict = backend.predict

    def recorded(model, batch):
        shapes.append(batch.shape)
        return predict(model, batch)

    monkeypatch.setattr(backend, "predict", recorded)
    evaluation = run(batch_views=batch_views)
    assert [result.path for result in evaluation.results] == list(expected)
    for result in evaluation.results:
        probabilities = expected[result.path]
        best = np.argsort(-probabilities)[:5]
        assert result.predicted == tuple(best)
        assert_close(result.probabilities, probabilities[best], "class_probability")
    # JAX compiles only one shape.
    assert shapes == [(batch_views, 4, 16, 16, 3)] * -(-36 // batch_views)


def test_the_broken_file_is_named_and_counts_nowhere(run, files, expected):
    evaluation = run()
    broken = files[BROKEN].path
    assert evaluation.skipped == {broken: "Invalid data found when processing input"}
    assert evaluation.videos == len(evaluation.results) == len(files) - 1
    labels = [LABELS.index(file.label) for file in files if file.path != broken]
    ranks = [
        int((values > values[label]).sum())
        for label, values in zip(labels, expected.values(), strict=True)
    ]
    assert evaluation.top_1 == pytest.approx(np.mean([rank < 1 for rank in ranks]))
    assert evaluation.top_5 == pytest.approx(np.mean([rank < 5 for rank in ranks]))
    confusion = np.zeros((7, 7))
    for label, values in zip(labels, expected.values(), strict=True):
        confusion[label, values.argmax()] += 1
    np.testing.assert_array_equal(evaluation.confusion, confusion)


def evaluation_of(*videos, classes=4):
    """Return, for each video, its class and the predicted classes."""
    results = [
        Result(
            f"{place}.mp4", label, predicted, tuple(0.5**i for i in range(1, 1 + len(predicted)))
        )
        for place, (label, predicted) in enumerate(videos)
    ]
    return Evaluation(results, {}, classes, None, {})


def test_accuracies_by_hand():
    evaluation = evaluation_of(
        (0, (0, 1, 2, 3, 4)),
        (0, (0, 5, 2, 3, 4)),
        (0, (1, 2, 3, 4, 0)),
        (0, (1, 2, 3, 4, 5)),
        (2, (2, 1, 0, 3, 4)),
        (5, (1, 2, 5, 3, 4)),
        classes=7,
    )
    assert evaluation.videos == 6
    assert evaluation.top_1 == pytest.approx(3 / 6)
    assert evaluation.top_5 == pytest.approx(5 / 6)
    # Classes 0, 2 and 5 occur; nothing is known of the others.
    assert evaluation.mean_class == pytest.approx((2 / 4 + 1 + 0) / 3)
    expected = np.zeros((7, 7))
    expected[0, 0], expected[0, 1], expected[2, 2], expected[5, 1] = 2, 2, 1, 1
    np.testing.assert_array_equal(evaluation.confusion, expected)


def test_what_is_written(run, files, tmp_path):
    evaluation = run()
    folder = tmp_path / "new" / "folder"
    evaluation.write(folder)
    written = rows(folder)
    assert [row["path"] for row in written] == [result.path for result in evaluation.results]
    for row, result in zip(written, evaluation.results, strict=True):
        assert row["label"] == LABELS[result.label]
        for place in range(5):
            assert row[f"predicted_{place + 1}"] == LABELS[result.predicted[place]]
            assert float(row[f"probability_{place + 1}"]) == result.probabilities[place]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["skipped"] == evaluation.skipped and metrics["videos"] == 6
    for name in ("top_1", "top_5", "mean_class"):
        assert metrics[name] == getattr(evaluation, name)
    assert VIEWS.items() <= metrics["settings"].items()
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == [
        "confusion.png",
        "metrics.json",
        "results.csv",
    ]


class Killed(BaseException):
    pass


def test_a_killed_evaluation_goes_on_after_the_videos_that_are_done(run, tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    unbroken = run(folder=tmp_path / "unbroken")
    opened = []
    dataset = classification.views_dataset

    def recorded(files, *rest, **settings):
        opened.append([file.path for file in files])
        return dataset(files, *rest, **settings)

    monkeypatch.setattr(classification, "views_dataset", recorded)
    all_paths = [result.path for result in unbroken.results]
    for attempt in range(4):
        folder, calls = tmp_path / str(attempt), []
        last = int(generator.integers(1, len(all_paths)))

        def kill(done, total, calls=calls, last=last):
            calls.append((done, total))
            if len(calls) == last:
                raise Killed

        with pytest.raises(Killed):
            run(folder=folder, progress=kill)
        assert len(rows(folder)) == last
        # within the row that was being written
        content = (folder / "results.csv").read_bytes()
        row = len(content.splitlines(keepends=True)[-1])
        (folder / "results.csv").write_bytes(content[: -int(generator.integers(1, row))])
        opened.clear()
        calls.clear()
        again = run(folder=folder, progress=lambda *counts, calls=calls: calls.append(counts))
        assert [path for path in opened[0] if path in all_paths] == all_paths[last - 1 :]
        assert calls == [
            (all_files, 7) for all_files in [1, 2, 4, 5, 6, 7][last - 1 :]
        ]  # the third is broken
        assert_same(again, unbroken)
        again.write(folder)
        assert [row["path"] for row in rows(folder)] == all_paths


def test_nothing_is_left_to_run_after_the_last_video(run, files, tmp_path, monkeypatch):
    readable = files[:BROKEN]
    first = run(readable, folder=tmp_path / "done")
    first.write(tmp_path / "done")
    monkeypatch.setattr(classification, "views_dataset", None)
    assert run(readable, folder=tmp_path / "done") == first


def test_a_row_counts_only_when_whole(classifier, tmp_path):
    """Check that a table truncated anywhere gives the complete rows before the cut."""
    settings = {"model": "a"}
    labels = ["+a", "b,\nc", "'=d"]
    results = [
        Result("=x, y.mp4", 0, (0, 2, 1), (0.75, 0.125, 0.1)),
        Result("caf\udce9.mp4", 1, (1, 0, 2), (1 / 3, 0.25, 0.2)),
        Result("new\nline.mp4", 1, (2, 1, 0), (1.0, 1e-9, 0.0)),
    ]
    table = ResultsTable(tmp_path, 3, labels)
    table.begin(settings)
    ends = [len(table.path.read_bytes())]
    for result in results:
        table.append(result)
        ends.append(len(table.path.read_bytes()))
    content = table.path.read_bytes()
    assert b"'=x, y.mp4" in content and b"'+a" in content and b"''=d" in content  # no formulas
    for cut in range(len(content) + 1):
        table.path.write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends[1:])
        assert list(table.begin(settings).values()) == results[:whole], cut
        assert table.path.read_bytes() == content[: ends[whole]], cut


@pytest.mark.parametrize(
    "change, differing",
    [
        ({"clips": 1}, "clips"),
        ({"sampling": "uniform"}, "sampling"),
        ({"labels": tuple(reversed(LABELS))}, "videos, labels"),
        ({"files": slice(3)}, "videos"),
        ({"model": True}, "model"),
    ],
)
def test_results_of_another_evaluation_are_not_mixed_in(
    run, classifier, files, tmp_path, change, differing
):
    run(files[:2], folder=tmp_path / "run")
    before = (tmp_path / "run" / "results.csv").read_bytes()
    change = {**change, "files": files[change.get("files", slice(2))]}
    bias = classifier[0].head.bias
    kept = numpy(bias.value)
    if change.pop("model", False):
        bias.assign(kept + 1)
    try:
        message = f"results of another evaluation. Received: another {differing}. Give another"
        with pytest.raises(RunError, match=message):
            run(folder=tmp_path / "run", **change)
    finally:
        bias.assign(kept)
    assert (tmp_path / "run" / "results.csv").read_bytes() == before


def test_a_refused_setting_does_not_spoil_the_folder(run, files, tmp_path):
    with pytest.raises(ValueError, match="`sampling` must be one of"):
        run(files[:1], folder=tmp_path / "run", sampling="sparse")
    assert run(files[:1], folder=tmp_path / "run").videos == 1


def test_a_video_that_is_listed_twice_counts_twice(run, files, tmp_path):
    """Check that each copy counts, with two classes too, and after a kill."""
    one = files[0]
    listed = [one, VideoFile(one.path, LABELS[4]), one]
    first = run(listed, folder=tmp_path / "run")
    assert [result.label for result in first.results] == [0, 4, 0]
    assert run(listed, folder=tmp_path / "run") == first


def test_labels_may_be_numbers(run, files):
    numbered = [VideoFile(file.path, str(LABELS.index(file.label))) for file in files]
    assert run(numbered, labels=None).results == run().results


@pytest.mark.parametrize(
    "labels, changed, message",
    [
        (
            LABELS,
            {1: "run", 3: None},
            "one of `labels`. Received: 2 of 7 files without.*: run; .*: None",
        ),
        (None, {}, "a number from 0 to 6. Received: 7 of 7 files without"),
        (None, {i: "7" for i in range(7)}, "a number from 0 to 6. Received: 7 of 7"),
        (LABELS[:6], {}, "each of the model's 7 classes.*Received: 6 labels, 6 different"),
        ((*LABELS[:6], "sit"), {}, "no two alike. Received: 7 labels, 6 different"),
    ],
)
def test_labels_are_checked_before_any_work(run, files, tmp_path, labels, changed, message):
    listed = [
        VideoFile(file.path, changed.get(index, file.label)) for index, file in enumerate(files)
    ]
    with pytest.raises(ValueError, match=message):
        run(listed, labels=labels, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists() and not (tmp_path / "skipped.jsonl").exists()


def test_without_a_readable_file_there_is_a_clear_error(run, files):
    message = "None of the 2 files can be read, so there is nothing to evaluate.*broken.mp4: Inv"
    with pytest.raises(NoReadableVideo, match=message):
        run(files[BROKEN : BROKEN + 1] * 2)


def test_logits_that_are_not_finite_end_the_evaluation(run, classifier, files):
    bias = classifier[0].head.bias
    kept = numpy(bias.value)
    bias.assign(np.full_like(kept, np.nan))
    try:
        with pytest.raises(ArithmeticError, match=r"logits of .* are not finite"):
            run(files[:1])
    finally:
        bias.assign(kept)
