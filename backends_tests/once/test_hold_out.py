"""Tests of the held-out videos, and of the lists that a run recognises as its own."""

import itertools
import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends_tests.chi_square import assert_distribution, assert_uniform
from backends_tests.recorded import RecordedGenerator
from backends_tests.stages import begun
from vmae_keras.data.files import VideoFile
from vmae_keras.data.splits import distinct, hold_out
from vmae_keras.runs.run import Run, RunError
from vmae_keras.runs.settings import digest
from vmae_keras.training.session import Session

LISTS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=60)


def divided(files, share=0.1, most=128, seed=0, by_class=True):
    return hold_out(files, share, most, np.random.default_rng(seed), by_class)


@pytest.mark.clause("HOLD-2", "HOLD-3")
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    share=st.floats(0, 0.9),
    most=st.integers(1, 60),
    seed=st.integers(0, 9),
)
def test_each_class_has_its_share_and_one_video_to_train_on(counts, share, most, seed):
    files = [
        VideoFile(f"{c}/{n}.mp4", str(c)) for c, count in enumerate(counts) for n in range(count)
    ]
    training, held = divided(files, share, most, seed)
    wanted = min(int(len(files) * share), most) if len(files) >= 10 else 0
    others = len(files) - len(counts)
    assert len(held) == min(wanted, others)
    assert sorted(map(files.index, training + held)) == list(range(len(files)))
    assert [file for file in files if file in held] == held
    found = Counter(file.label for file in held)
    for number, count in enumerate(counts):
        exact = (count - 1) * len(held) / max(others, 1)
        assert int(exact) <= found[str(number)] <= -int(-exact // 1)
        assert found[str(number)] < count
    assert (training, held) == divided(files, share, most, seed)
    alone = divided(files, share, most, seed, by_class=False)
    assert len(alone[1]) == wanted
    unlabelled = [VideoFile(file.path) for file in files]
    assert [f.path for f in alone[1]] == [
        f.path for f in divided(unlabelled, share, most, seed, False)[1]
    ]


@pytest.mark.clause("HOLD-1", "HOLD-2")
@given(rows=LISTS, by_class=st.booleans(), seed=st.integers(0, 9))
def test_rows_of_one_file_stay_together_however_they_are_spelled(
    tmp_path_factory, rows, by_class, seed
):
    folder = tmp_path_factory.getbasetemp() / "spellings"
    if not folder.exists():
        (folder / "real").mkdir(parents=True)
        (folder / "linked").symlink_to(folder / "real")
        for number in range(31):
            (folder / "real" / f"{number}.mp4").touch()
            (folder / "real" / f"also {number}.mp4").symlink_to(folder / "real" / f"{number}.mp4")
    ways = ["real/{}.mp4", "real/../real//{}.mp4", "linked/{}.mp4", "linked/./also {}.mp4"]
    files = [VideoFile(str(folder) + "/" + ways[way].format(n), str(n % 3)) for n, way in rows]
    training, held = divided(files, 0.3, seed=seed, by_class=by_class)
    sides = [{os.path.realpath(file.path) for file in side} for side in (training, held)]
    assert not sides[0] & sides[1]
    assert len(held) == len(sides[1])
    assert len(training) == sum(os.path.realpath(file.path) in sides[0] for file in files)
    numbers = list(dict.fromkeys(number for number, _ in rows))
    if not by_class:
        assert len(held) == (int(len(numbers) * 0.3) if len(numbers) >= 10 else 0)
    assert [os.path.basename(os.path.realpath(file.path)) for file in distinct(files)] == [
        f"{number}.mp4" for number in numbers
    ]


def held_places(files, draws, share, by_class):
    """Return which of `files` are held out, in each of `draws` draws."""
    generator = np.random.default_rng(0)
    for _ in range(draws):
        held = hold_out(files, share, 128, generator, by_class)[1]
        yield tuple(files.index(file) for file in held)


@pytest.mark.clause("HOLD-2", "MASK-6")
def test_every_choice_of_files_is_equally_likely():
    files = [VideoFile(f"{n}.mp4") for n in range(10)]
    cells = itertools.combinations(range(10), 2)
    assert_uniform(held_places(files, 1000, 0.2, by_class=False), cells)


@pytest.mark.clause("HOLD-3", "MASK-6")
def test_every_choice_of_a_share_of_each_class_is_equally_likely():
    """Keep one of six and one of four files, and hold out two of the other eight.

    The second class's expected number is 3 / 4, so it has none in a quarter of the draws.
    """
    files = [VideoFile(f"{n}.mp4", "ab"[n // 6]) for n in range(10)]
    shares = dict.fromkeys(itertools.product(range(6), range(6, 10)), 0.75 / 24)
    shares |= dict.fromkeys(itertools.combinations(range(6), 2), 0.25 / 15)
    assert_distribution(held_places(files, 1500, 0.2, by_class=True), shares)


@pytest.mark.clause("HOLD-3")
@pytest.mark.parametrize("seed", range(10))
def test_held_out_are_at_the_places_that_the_clause_names(seed):
    files = [VideoFile(f"{n}.mp4", "aaaaaabbbbbcccc"[n]) for n in range(15)]
    generator = RecordedGenerator(seed)
    held = hold_out(files, 0.3, 128, generator, by_class=True)[1]
    order, start = (draw.value for draw in generator.draws)
    assert generator.draws[1].arguments == (12,)  # one file of each class stays
    row = []
    for label in dict.fromkeys(files[place].label for place in order):
        row += [place for place in order if files[place].label == label][1:]
    expected = sorted(row[(i * 12 + start) // 4] for i in range(4))
    assert [files.index(file) for file in held] == expected


def test_a_digest_tells_orders_names_and_where_they_matter_labels():
    files = [VideoFile("a.mp4", "0"), VideoFile("caf\udce9 \u00e9.mp4", "1")]
    relabelled = [VideoFile(file.path, "1") for file in files]
    assert digest(files, True) != digest(relabelled, True)
    assert digest(files, False) == digest(relabelled, False)
    assert digest(files, False) != digest(files[::-1], False)
    # The second is written as in another locale: by the bytes of the file system.
    respelled = [files[0], VideoFile("caf\udce9 \udcc3\udca9.mp4", "1")]
    assert digest(files, True) == digest(respelled, True)


@pytest.mark.parametrize("stage", ["pretraining", "fine-tuning", "distillation"])
def test_a_run_continues_only_with_the_list_that_it_began_with(stage, tmp_path, monkeypatch):
    rows = [(f"{number}.mp4", "ab"[number % 2]) for number in range(12)]
    for name, _ in rows:
        (tmp_path / name).touch()

    def continued(rows):
        text = "".join(f"{name},{label}\n" for name, label in rows)
        (tmp_path / "list.csv").write_text(f"path,label\n{text}", "utf-8")
        if not (tmp_path / "run").exists():
            begun(monkeypatch, stage, tmp_path / "list.csv", tmp_path / "run", {}, {}, 0)
        settings = Run(tmp_path / "run").settings()
        session = Session(settings, Run(tmp_path / "run"), display=None)
        return session.training, session.held_out

    first = continued(rows)
    assert first[1] and len(first[0] + first[1]) == len(rows)
    for changed in (rows[::-1], rows[:-1], [*rows, rows[0]]):
        with pytest.raises(RunError, match="has changed since this run began"):
            continued(changed)
    relabelled = [("0.mp4", "b"), *rows[1:]]
    if stage == "fine-tuning":
        with pytest.raises(RunError, match="its files, their order or labels"):
            continued(relabelled)
    else:  # labels are not read
        assert [f.path for f in continued(relabelled)[1]] == [f.path for f in first[1]]
    assert continued(rows) == first
