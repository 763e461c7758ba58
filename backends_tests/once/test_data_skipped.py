"""Tests of the log of broken files."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from vmae_keras.data.skipped import SkippedFiles


def test_nothing_recorded_makes_no_file(tmp_path):
    skipped = SkippedFiles(tmp_path / "run" / "skipped.jsonl")
    assert skipped.report() == {} and not (tmp_path / "run").exists()


def test_each_path_once_sorted_with_its_first_reason(tmp_path):
    skipped = SkippedFiles(tmp_path / "run" / "skipped.jsonl")
    skipped.record("b.mp4", "first")
    size = os.path.getsize(skipped.path)
    skipped.record("b.mp4", "second")
    assert os.path.getsize(skipped.path) == size
    SkippedFiles(skipped.path).record("b.mp4", "of another process")
    skipped.record("a é\n.mp4", 'with "quotes"')
    assert list(skipped.report().items()) == [("a é\n.mp4", 'with "quotes"'), ("b.mp4", "first")]


def test_without_a_path_it_warns_and_keeps_the_reasons_only_as_long_as_it_lives():
    skipped = SkippedFiles()
    copy = pickle.loads(pickle.dumps(skipped))  # of a worker process
    with pytest.warns(UserWarning, match=r"^a.mp4 is broken: empty$"):
        skipped.record("a.mp4", "empty")
    with pytest.warns(UserWarning, match=r"^b.mp4 is broken: short$"):
        copy.record("b.mp4", "short")
    assert skipped.report() == {"a.mp4": "empty", "b.mp4": "short"} and skipped.hint == ""
    folder = Path(skipped.path).parent
    del copy
    assert folder.is_dir()
    del skipped
    assert not folder.exists()


def test_a_report_has_the_records_of_a_runs_other_processes(tmp_path):
    skipped = [SkippedFiles(tmp_path / f"skipped{part}.jsonl") for part in ("", "-1", "-2")]
    for number, each in enumerate(skipped):
        each.record(f"{number}.mp4", "broken")
    skipped[2].record("0.mp4", "later")
    assert skipped[0].report() == {f"{number}.mp4": "broken" for number in range(3)}


def test_names_that_are_not_utf8_are_kept(tmp_path):
    skipped = SkippedFiles(tmp_path / "skipped.jsonl")
    name = os.fsdecode(b"caf\xe9.mp4")
    skipped.record(name, "broken")
    assert skipped.report() == {name: "broken"}


def test_a_line_cut_off_by_a_kill_spoils_neither_the_report_nor_the_next_record(tmp_path):
    skipped = SkippedFiles(tmp_path / "skipped.jsonl")
    skipped.record("a.mp4", "one")
    with open(skipped.path, "ab") as file:
        file.write(b'\n{"path": "b.mp4", "rea')
    assert skipped.report() == {"a.mp4": "one"}
    SkippedFiles(skipped.path).record("c.mp4", "three")
    assert skipped.report() == {"a.mp4": "one", "c.mp4": "three"}


def test_processes_write_side_by_side(tmp_path):
    path = tmp_path / "skipped.jsonl"
    code = (
        "import sys; from vmae_keras.data.skipped import SkippedFiles\n"
        "s = SkippedFiles(sys.argv[1])\n"
        "for i in range(300): s.record(f'{sys.argv[2]}{i:03}', 'x' * 200)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], env=environment())
        for name in "abc"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    report = pickle.loads(pickle.dumps(SkippedFiles(path))).report()
    assert list(report) == [f"{name}{i:03}" for name in "abc" for i in range(300)]
    assert set(report.values()) == {"x" * 200}


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
