"""Tests of lists of videos from every kind of source."""

import os
import re
import shutil

import pytest

from backends_tests.support import running_backend
from vmae_keras.data.files import VideoFile, list_videos
from vmae_keras.data.labelled import classes_of, list_labelled
from vmae_keras.runs.run import Run
from vmae_keras.training import new_run


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "a/x y.AVI", "a/z.webm", "README.md", "labels.csv", "a/._z.webm"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def write(path, text, **kwargs):
    path.write_text(text, **kwargs)
    return path


# Encodings, with a byte-order mark where Python writes none.
ENCODINGS = {"utf-8": "", "utf-8-sig": "", "utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}


def listed(source, folder, **kwargs):
    return [(os.path.relpath(v.path, folder), v.label) for v in list_videos(source, **kwargs)]


def test_a_folder_is_searched_below_and_sorted_by_suffix_only(folder):
    assert listed(folder, folder) == [("a/x y.AVI", None), ("a/z.webm", None), ("b.mp4", None)]


def test_a_glob_and_a_single_file(folder):
    assert listed(folder / "**" / "*.*", folder) == listed(folder, folder)
    assert listed(folder / "a" / "*.webm", folder) == [("a/z.webm", None)]
    assert list_videos(folder / "b.mp4") == [VideoFile(str(folder / "b.mp4"))]


@pytest.mark.parametrize(
    "row, path, label",
    [
        ("b.mp4", "b.mp4", None),
        ("b.mp4 3", "b.mp4", "3"),
        ("b.mp4 playing_yoyo", "b.mp4", "playing_yoyo"),
        ("a/x y.AVI 3", "a/x y.AVI", "3"),
        ("a/x y.AVI", "a/x y.AVI", None),
        ("b.mp4 120 7", "b.mp4", "7"),  # total_frames label
        ("b.mp4 0 -1", "b.mp4", None),  # VideoMAE V2 pretraining: start, total
        ("b.mp4 0 -1 12", "b.mp4", "12"),
        ("old.mp4 b.mp4 5", "old.mp4 b.mp4", "5"),
        ("  b.mp4\t4  ", "b.mp4", "4"),
    ],
)
def test_rows_of_a_list(folder, row, path, label):
    source = write(folder / "list.txt", f"\n{row}\nb.mp4 1\n")
    assert listed(source, folder) == [(path, label), ("b.mp4", "1")]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nb.mp4,yoyo\na/x y.AVI,\n",
        "label,path,group\nyoyo,b.mp4,g1\n,a/x y.AVI,g2\n",
        "\ufeffPath,Label\r\nb.mp4,yoyo\r\na/x y.AVI,\r\n",
        "b.mp4,yoyo\na/x y.AVI\n",
        "b.mp4 yoyo\na/x y.AVI 0 -1\n",
        '"b.mp4", yoyo\n"a/x y.AVI",-1\n',
        'b.mp4, "yoyo"\n"a/x y.AVI"\n,,\n',
        "b.mp4;yoyo\na/x y.AVI;\n",
        "b.mp4\tyoyo\na/x y.AVI\t-1\n",
        "video,label\nb.mp4,yoyo\na/x y.AVI,\n",
        "Path;Class\nb.mp4;yoyo\na/x y.AVI;\n",
        "id\tclass-name\tFile Name\n\tyoyo\tb.mp4\n2\t-1\ta/x y.AVI\n",
        "class,video,label,path\n7,x.mp4,yoyo,b.mp4\n7,,,a/x y.AVI\n",
        "# made by hand\r\n\r\npath,label\r\n# path,label\r\nb.mp4 ,yoyo \r\na/x y.AVI\r\n",
        "b.mp4,120,yoyo\na\\x y.AVI,0,-1\n",
        'path,label\n"b.mp4",yoyo,,\na\\x y.AVI,-1\n',
    ],
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_csv_files_with_and_without_a_header(folder, text, encoding):
    source = write(folder / "list.csv", ENCODINGS[encoding] + text, encoding=encoding, newline="")
    assert listed(source, folder) == [("b.mp4", "yoyo"), ("a/x y.AVI", None)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lists_of_other_systems(folder, encoding):
    text = "# clips\r\n\r\nb.mp4 1 \r\n #\r\na\\x y.AVI\t5 2\r\n"
    source = write(folder / "list.txt", ENCODINGS[encoding] + text, encoding=encoding, newline="")
    assert listed(source, folder) == [("b.mp4", "1"), ("a/x y.AVI", "2")]
    assert [video.row for video in list_videos(source)] == [3, 5]
    (folder / "a\\x y.AVI").touch()  # a file name may contain a backslash on this system
    assert listed(source, folder)[1] == ("a\\x y.AVI", "2")


@pytest.mark.parametrize("count", [20, 20_000])
@pytest.mark.parametrize(
    "spoilt", ['b.mp4,"yoyo', '"b.mp4,yoyo', '"b.mp4"x,yoyo', 'b.mp4,"yoyo\ntwice"']
)
def test_a_field_that_spans_rows_is_refused_with_its_first_row(folder, count, spoilt):
    rows = ["path,label", "b.mp4,run", spoilt, *["b.mp4,jump"] * count]
    source = write(folder / "list.csv", "\n".join(rows) + "\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"Row 3 of .*list.csv .*one row. Received: .*Write `path,label`"
    ):
        list_videos(source)


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
@pytest.mark.parametrize("content", [b"b\0.\0m\0p\0004\0", b"\xff\xfeb\0.", b"\x89PNG\r\n\0\0\0"])
def test_a_list_that_is_no_text_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is no text in UTF-8, or in UTF-16"):
        list_videos(folder / name)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("-2", "row 2 has a label that is a negative number; -1 alone"),
        ("01", "row 3 has a label that is the same number as '01' of row 2"),
        ("1.0", "the same number as '1.0' of row 2"),
        ('"3,7"', "row 2 has a label that is several numbers"),
        ("3;7", "several numbers"),
        ("[3 | 7]", "several numbers"),
        ("caf\udce9", "not UTF-8"),
    ],
)
def test_labels_that_mean_nothing_are_refused_with_their_row(folder, label, message):
    lists = {"list.csv": f"path,label\nb.mp4,{label}\na/z.webm,1\n"}
    if " " not in label:
        lists["list.txt"] = "\nb.mp4 {}\na/z.webm 1\n".format(label.strip('"'))
    for name, rows in lists.items():
        (folder / name).write_bytes(rows.encode("utf-8", "surrogateescape"))
        with pytest.raises(ValueError, match=re.escape(message)):
            list_labelled(folder / name)
        assert len(list_videos(folder / name)) == 2  # this mode does not read labels


def test_labels_that_are_names_or_numbers_stay_as_they_are(folder):
    labels = ["0", "10", "3 o'clock", "1.5", "a,b", "-", "x-2", "007 film", "1" * 5000]
    for number in range(len(labels)):
        (folder / f"{number}.mp4").touch()
    rows = "".join(f'{number}.mp4,"{label}"\n' for number, label in enumerate(labels))
    files = list_labelled(write(folder / "list.csv", rows, encoding="utf-8"))
    assert [file.label for file in files] == labels
    assert set(classes_of(files)) == set(labels)
    assert classes_of([VideoFile("a", "1" * 5000), VideoFile("b", "2")])[0] == "2"


def test_folders_of_classes_are_held_to_the_same(tmp_path):
    for name in ("1", "01", "caf\udce9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip.mp4").touch()
    with pytest.raises(ValueError, match=r"01.clip.mp4|1.clip.mp4"):
        list_labelled(tmp_path)
    shutil.rmtree(tmp_path / "01")
    assert [file.label for file in list_labelled(tmp_path)] == ["1", r"caf\xe9"]


def test_a_list_without_labels_names_its_columns(folder):
    source = write(folder / "list.csv", "path,class_id,split\nb.mp4,1,train\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"columns are path, class_id, split.*column of labels .label, class"
    ):
        list_labelled(source)


def list_of(folder, labels):
    return write(folder / "list.txt", "".join(f"b.mp4 {label}\n" for label in labels))


def test_one_class_alone_is_warned_of(folder, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", name := running_backend())
    with pytest.warns(UserWarning, match="All videos have one class, 'a'"):
        new_run.prepare_fine_tuning(Run(folder / "run"), str(list_of(folder, "a")), backend=name)
    new_run.prepare_fine_tuning(Run(folder / "other"), str(list_of(folder, "ab")), backend=name)


def test_a_csv_header_without_labels(folder):
    assert listed(write(folder / "list.csv", "path\nb.mp4\n"), folder) == [("b.mp4", None)]


def test_relative_paths_start_from_the_lists_folder_or_the_given_root(folder):
    outside = folder.parent / f"{folder.name}_lists"
    outside.mkdir()
    source = write(outside / "list.txt", f"z.webm 1\n{folder}/b.mp4 2\n")
    assert [v.path for v in list_videos(source)] == [str(outside / "z.webm"), f"{folder}/b.mp4"]
    assert listed(source, folder, root=folder / "a") == [("a/z.webm", "1"), ("b.mp4", "2")]


def test_file_names_that_are_not_utf8(folder):
    name = b"caf\xe9.mp4"
    (folder / os.fsdecode(name)).write_bytes(b"")
    (folder / "list.txt").write_bytes(name + b" 1\n")
    assert [os.fsencode(v.path) for v in list_videos(folder / "list.txt")] == [
        os.fsencode(folder / os.fsdecode(name))
    ]


@pytest.mark.parametrize(
    "name, text, error, message",
    [
        ("missing", None, FileNotFoundError, "does not exist. Received: .*Give a folder"),
        ("*.mkv", None, ValueError, "holds no video. Received: .*known by their suffix"),
        ("notes.doc", "", ValueError, "unknown suffix. Received: .*Give a folder"),
        ("list.txt", "\n \n", ValueError, "holds no video"),
        ("list.csv", "path,label\n", ValueError, "holds no video"),
        ("list.txt", "b.mp4 1\nnotes 2\n", ValueError, "Row 2 of .* names no video.*'notes 2'"),
        ("list.txt", "b.mp4 one two\n", ValueError, "Row 1 of .* more than a label"),
        ("list.csv", "path,label\n,1\n", ValueError, "Row 2 of .* has no path"),
        ("list.csv", "b.mp4,yoyo,group\n", ValueError, "Row 1 of .* more than a label"),
        (
            "list.csv",
            "path,label\nb.mp4,yo,yo\n",
            ValueError,
            "Row 2 of .* has 3 fields, and the header 2",
        ),
        (
            "list.csv",
            "label,youtube_id\nyoyo,x\n",
            ValueError,
            "Row 1 of .* no column of paths, .*path, video, .*label, class.*'label', 'youtube_id'",
        ),
        ("list.csv", "label;clip\nyoyo;b\n", ValueError, "'label', 'clip'"),
        ("list.csv", "yoyo,b.mp4\n", ValueError, "Row 1 of .* does not begin with a video's path"),
        (
            "list.csv",
            "file,video\nb.mp4,b.mp4\n",
            ValueError,
            "several columns that may be its path",
        ),
        (
            "list.csv",
            "path,class,action\nb.mp4,1,2\n",
            ValueError,
            "several .* its label.*'class', 'action'",
        ),
        ("list.txt", "b.mp4,yoyo\n", ValueError, "Row 1 of .* a list with commas is a .csv"),
        ("list.txt", "path label\nb.mp4 yoyo\n", ValueError, "Row 1 of .* names no video"),
        ("list.txt", "gone.mp4 1\n", FileNotFoundError, "None of the 1 files .*gone.mp4.*`root`"),
    ],
)
def test_errors_say_what_was_received_and_the_way_out(folder, name, text, error, message):
    if text is not None:
        write(folder / name, text)
    with pytest.raises(error, match=message):
        list_videos(folder / name)


def test_a_folder_without_videos(tmp_path):
    write(tmp_path / "README.md", "nothing")
    with pytest.raises(ValueError, match="holds no video"):
        list_videos(tmp_path)
