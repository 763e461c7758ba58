"""Tests of merging several labelled data sets."""

import csv
import importlib.resources
import os
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends_tests.support import ROOT
from vmae_keras.data.class_names import named_aliases
from vmae_keras.data.files import VideoFile, list_videos
from vmae_keras.data.label_merging import merge_labelled, write_list
from vmae_keras.data.labelled import classes_of, list_labelled
from vmae_keras.data.spreadsheets import guarded, unguarded

MARKS = st.text(" _-'()\"", max_size=3)


@st.composite
def data_sets(draw):
    """Draw lists of (file number, label): the file determines the class, the row its spelling."""
    classes = draw(st.lists(st.text("abeß7É", min_size=1, max_size=4), min_size=1, max_size=4))
    classes = [name + "x" for name in classes]
    of_file = draw(st.lists(st.sampled_from(classes), min_size=6, max_size=6))

    def spelled(name):
        letters = [draw(st.sampled_from([c, c.upper()])) + draw(MARKS) for c in name]
        return draw(MARKS) + "".join(letters)

    rows = st.lists(st.integers(0, 5), min_size=1, max_size=6)
    sets = draw(st.lists(rows, min_size=1, max_size=3))
    return [[(number, spelled(of_file[number])) for number in numbers] for numbers in sets]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    for number in range(6):
        (folder / f"clip {number}.mp4").touch()
    return folder


def written(folder, sets):
    paths = []
    for place, rows in enumerate(sets):
        paths.append(folder / f"{place}.csv")
        with open(paths[-1], "w", newline="") as file:
            csv.writer(file).writerows(
                [
                    ("path", "label"),
                    *((f"clip {number}.mp4", guarded(label)) for number, label in rows),
                ]
            )
    return paths


def letters(label):
    """Return the letters of a label that the clause compares, by another method."""
    return "".join(each for each in label.casefold() if each.isalnum())


@pytest.mark.clause("LABEL-1", "LABEL-2", "LABEL-3")
@given(sets=data_sets())
def test_one_class_for_each_name_and_one_row_for_each_path(folder, sets):
    merged = merge_labelled(written(folder, sets))
    rows = [(f"clip {number}.mp4", label.strip()) for rows in sets for number, label in rows]
    first = {}
    for path, label in rows:
        first.setdefault(path, label)
    assert [os.path.basename(file.path) for file in merged.files] == list(first)
    assert merged.repeated == len(rows) - len(first)
    spelling = {}
    for each in sets:
        for label in sorted({label.strip() for _, label in each}):
            spelling.setdefault(letters(label), label)
    assert {file.label for file in merged.files} == set(spelling.values())
    for file in merged.files:
        assert file.label == spelling[letters(first[os.path.basename(file.path)])]
    out = folder / "merged.csv"
    write_list(out, merged.files)
    assert list_labelled(out) == merged.files
    assert classes_of(list_labelled(out)) == merged.classes
    again = merge_labelled([out])
    assert (again.files, again.repeated) == (merged.files, 0)


@pytest.mark.clause("LABEL-1", "LABEL-2")
def test_an_alias_says_that_two_names_are_one_class(folder):
    sets = written(
        folder,
        [
            [(0, "Tai_Chi"), (1, "yoga")],
            [(2, "tai chi"), (3, "Shadow-Boxing")],
            [(4, "shadow boxing")],
        ],
    )
    merged = merge_labelled(sets, {"shadow_boxing": "tai-chi", "zumba": "dance"})
    assert [file.label for file in merged.files] == ["tai-chi", "yoga", *["tai-chi"] * 3]
    assert merged.unused == ("zumba",)
    report = merged.report()
    assert "0.csv: 2 classes" in report and "1.csv: 2 classes" in report
    assert "merged: 2 classes, 1 of them out of several; 5 videos, 0 rows repeated" in report
    assert "  tai-chi: Shadow-Boxing, Tai_Chi, shadow boxing, tai chi" in report
    assert "yoga:" not in report


@pytest.mark.clause("LABEL-4")
def test_the_aliases_of_k710_are_those_of_the_specification(tmp_path):
    table = tomllib.loads((ROOT / "spec" / "aliases.toml").read_text("utf-8"))
    packaged = importlib.resources.files("vmae_keras.data") / "aliases"
    assert {f"{name}.toml" for name in table} == {path.name for path in packaged.iterdir()}
    aliases = table["k710"]
    assert named_aliases("k710") == aliases and len(aliases) == 15
    # Names of the two lists; "hugging baby" is a separate class.
    lists = [[*aliases, "hugging baby", "yoga"], [*aliases.values(), "opening wine bottle", "Yoga"]]
    paths = [tmp_path / "400.csv", tmp_path / "700.csv"]
    for path, names in zip(paths, lists, strict=True):
        path.write_text("".join(f"{path.stem} {n}.mp4,{name}\n" for n, name in enumerate(names)))
        for n, _ in enumerate(names):
            (tmp_path / f"{path.stem} {n}.mp4").touch()
    merged = merge_labelled(paths, "k710")
    apart = {"hugging baby", "opening wine bottle", "yoga"}
    assert set(merged.classes) == {*aliases.values(), *apart} and merged.unused == ()
    # LABEL-1 merges two of them: "passing american football (not in game)" differs in case.
    assert len(merge_labelled(paths).classes) == len(merged.classes) + 14
    assert len(merge_labelled(paths[1:], "k710").unused) == 14
    with pytest.raises(ValueError, match=r"one of the names k710.*Received: 'k70'"):
        merge_labelled(paths, "k70")


@pytest.mark.clause("LABEL-3")
def test_a_file_with_two_classes_is_named(folder):
    sets = written(folder, [[(0, "yoga"), (1, "zumba")], [(0, "Tai Chi"), (1, "Zumba")]])
    with pytest.raises(ValueError, match="1 files have two classes") as caught:
        merge_labelled(sets)
    assert f"{folder / 'clip 0.mp4'}: yoga, Tai Chi" in str(caught.value)
    assert len(merge_labelled(sets, {"tai chi": "yoga"}).files) == 2


@pytest.mark.clause("LABEL-1")
def test_numbers_are_no_names(folder):
    sets = written(folder, [[(0, "yoga"), (1, "zumba")], [(2, "0"), (3, "1")]])
    with pytest.raises(ValueError, match=r"1\.csv has numbers. Received: 0, 1"):
        merge_labelled(sets)
    merged = merge_labelled(sets, {"0": "yoga", "1": "dance"})
    assert [file.label for file in merged.files] == ["yoga", "zumba", "yoga", "dance"]
    assert merge_labelled(sets[1:]).classes == ("0", "1")


@pytest.mark.clause("LABEL-3")
def test_a_path_counts_once_however_its_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "set" / "yoga").mkdir(parents=True)
    (tmp_path / "set" / "yoga" / "clip.mp4").touch()
    monkeypatch.chdir(tmp_path)
    merged = merge_labelled(["set", "../" + tmp_path.name + "/set"])
    assert merged.files == [VideoFile(str(tmp_path / "set" / "yoga" / "clip.mp4"), "yoga")]
    assert merged.repeated == 1


def test_names_of_nothing_but_marks_are_not_alike(folder):
    sets = written(folder, [[(0, "+"), (1, "-")], [(2, "+")]])
    assert [file.label for file in merge_labelled(sets).files] == ["+", "-", "+"]


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ({"a": "b", "b": "c"}, "'b' is an alias and has one itself"),
        ({"a": "b", "A": "c"}, "contradict each other"),
        ({"a": "Tai Chi", "b": "tai chi"}, "contradict each other"),
    ],
)
def test_aliases_that_contradict_each_other_are_refused(folder, aliases, message):
    with pytest.raises(ValueError, match=message):
        merge_labelled(written(folder, [[(0, "yoga")]]), aliases)


def test_without_a_data_set_nothing_is_merged():
    with pytest.raises(ValueError, match="at least one data set"):
        merge_labelled([])


def test_file_names_need_not_be_utf_8(tmp_path):
    (tmp_path / "yoga").mkdir()
    path = os.fsencode(tmp_path / "yoga") + b"/\xff.mp4"
    with open(path, "w"):
        merged = merge_labelled([tmp_path])
    write_list(tmp_path / "all.csv", merged.files)
    assert list_labelled(tmp_path / "all.csv") == [VideoFile(os.fsdecode(path), "yoga")]


ODD = ["=1+1", "'=1", "''@x", "-x", "+", "@SUM(1)", "'tis", " =1", "\uff1d1", '"', ",", "#"]


@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=6)
        | st.sampled_from(ODD),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_written_is_read_again_and_nothing_is_a_formula(tmp_path_factory, names):
    folder = tmp_path_factory.getbasetemp()
    files = [VideoFile(f"{folder}/{n}.mp4", name.strip() or "x") for n, name in enumerate(names)]
    (folder / "0.mp4").touch()
    write_list(
        folder / "all.csv", [*files, VideoFile("=x.mp4", "x"), VideoFile("'-\udce9.mp4", "x")]
    )
    read = list_videos(folder / "all.csv")
    assert [file.label for file in read[:-2]] == [file.label for file in files]
    assert [os.path.basename(file.path) for file in read[-2:]] == ["=x.mp4", "'-\udce9.mp4"]
    with open(folder / "all.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        fields = [field for row in csv.reader(file) for field in row]
    assert not any(
        field.strip()[:1] in {*"=+-@\uff1d\uff0b\uff0d\uff20"} for field in fields if field
    )
    assert all(unguarded(guarded(name)) == name for name in names)


def test_what_may_be_a_formula_has_one_more_quote_and_nothing_else_has():
    before = ["", " ", "\t", "\n", "\u3000", "'", "''", " '", "' "]
    signs = [f"{each}{sign}A1" for each in before for sign in "=+-@\uff1d\uff0b\uff0d\uff20"]
    for field in [*signs, "\tA1", "\rA1", "\nA1", "'\tA1"]:
        assert guarded(field) == f"'{field}" and unguarded(guarded(field)) == field, field
    for field in ["", "A1", " A1", "'tis", "''", "A=1", "A-1"]:
        assert guarded(field) == unguarded(field) == field, field


@pytest.mark.parametrize("file", [VideoFile("a\nb.mp4"), VideoFile("a.mp4", "b\rc")])
def test_a_name_that_no_row_can_hold_is_refused(tmp_path, file):
    with pytest.raises(ValueError, match="line break"):
        write_list(tmp_path / "all.csv", [file])
    assert not list(tmp_path.iterdir())
