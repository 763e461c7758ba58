"""Tests that file names mean the same in any locale: names written in one are read in another."""

import json
import os
import subprocess
import sys

import pytest

from backends_tests.odd_videos import picture, write_video
from backends_tests.support import ROOT

UTF8 = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
# Reads the file if it exists, and writes it if not.
PROGRAM = """
import json, os, sys
from pathlib import Path
import numpy as np
from vmae_keras import VideoMAEConfig
from vmae_keras.pictures.charts import confusion_picture
from vmae_keras.data.frames import read_frames
from vmae_keras.data.label_merging import write_list
from vmae_keras.data.labelled import classes_of, list_labelled
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.pictures.clips import rows_picture
from vmae_keras.recipes.pretraining import RECIPES
from vmae_keras.runs.run import Run
from vmae_keras.runs.settings import PretrainingSettings, digest
from vmae_keras.process.files import write_atomically

folder, *outs = map(Path, sys.argv[1:])
listed = list_labelled(folder / "list.csv")
files = list_labelled(next(folder.glob("cl*ps")))
path, clip = files[0].path, np.zeros((4, 16, 16, 3), np.uint8)
for run in map(Run, outs):
    out = run.folder
    if not run.exists():
        recipe, config = RECIPES.choose("demo", {}), VideoMAEConfig.variant("tiny")
        run.save(PretrainingSettings(path, digest(files, True), config, recipe, 0, "torch"))
        SkippedFiles(run.skipped).record(path, "broken")
        write_list(out / "written.csv", files)
        write_atomically(out / "report.md", path)
        confusion_picture(out / "confusion.png", np.eye(4), [*classes_of(files), path[-10:]])
        rows_picture([(path, clip)], caption=files[1].path).save(out / "picture.png")
    assert list_labelled(out / "written.csv") == files
    assert run.settings().data == path and list(SkippedFiles(run.skipped).report()) == [path]
    assert run.settings().videos == digest(files, True)
frames = [read_frames(file.path, lambda ticks: np.arange(2)).tolist() for file in files + listed]
assert frames.count(frames[0]) == len(frames)
print(json.dumps([digest(listed, True), classes_of(files), [file.label for file in listed]]))
"""


@pytest.fixture
def folder(tmp_path):
    names = ["café", "caf\udce9", "日本"]
    (tmp_path / "clïps").mkdir()
    for name in names:
        (tmp_path / "clïps" / name).mkdir()
        write_video(tmp_path / "clip.mp4", [picture(number) for number in range(4)], codec="mpeg4")
        (tmp_path / "clip.mp4").rename(tmp_path / "clïps" / name / f"ü {name}: 1.mp4")
    rows = "".join(f"clïps/{name}/ü {name}: 1.mp4,é{place}\n" for place, name in enumerate(names))
    (tmp_path / "list.csv").write_bytes(f"path,label\n{rows}".encode(errors="surrogateescape"))
    return tmp_path


def test_what_one_locale_writes_another_reads(folder):
    found = []
    for locale, outs in ((ASCII, ["rün"]), (UTF8, ["rün", "zwei"]), (ASCII, ["zwei"])):
        arguments = [os.fsencode(folder / name) for name in ("", *outs)]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **locale},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == found[2]
    assert found[0][1:] == [[r"caf\xe9", "café", "日本"], ["é0", "é1", "é2"]]
