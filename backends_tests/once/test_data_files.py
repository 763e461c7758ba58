"""Lists of videos, from every kind of source."""

import os

import pytest

from vmae_keras.data.files import VideoFile, list_videos


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
    ],
)
def test_csv_files_with_and_without_a_header(folder, text):
    source = write(folder / "list.csv", text, encoding="utf-8")
    assert listed(source, folder) == [("b.mp4", "yoyo"), ("a/x y.AVI", None)]


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
