"""Tests of the memory needed to refuse a file made to be expensive, in a separate process."""

import json
import os
import struct
import subprocess
import sys

import pytest
from safetensors.numpy import save_file

from backends_tests.support import ROOT
from backends_tests.upstream_files import keras_file
from vmae_keras import VideoMAEConfig

ALLOWED = 150  # MB for all files; 80 were measured, 77 of them for three MiB of JSON lists

# Resident memory of this process only, without its parent's.
CHILD = """
import json, pathlib, resource, sys
from vmae_keras.training.plan import read_plan
from vmae_keras.recipes.page_files import read_page
from vmae_keras.runs.run import Run
from vmae_keras.runs.model_files import read_stored

def held():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024

readers = {
    "stored": lambda path: read_stored(path, {}), "run": lambda path: Run(path).settings(),
    "plan": read_plan, "page": lambda path: read_page(path, "pretraining"),
}
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for kind, name in json.loads(sys.argv[1]):
    before = held()
    try:
        readers[kind](pathlib.Path(name))
        said = "not refused"
    except ValueError as error:
        said = f"{error}"
    print(json.dumps([name, held() - before, said]))
"""


def run_folder(folder, **sizes):
    """Write a run whose run.json gives other sizes than its checkpoint."""
    config = VideoMAEConfig.variant("tiny")
    (folder / "checkpoints").mkdir(parents=True)
    values = {"config": {**config.to_dict(), **sizes}, "recipe": {}, "seed": 0}
    (folder / "run.json").write_text(json.dumps(values))
    _, weights = keras_file(folder / "preset", config)
    ours = {f"video_mae/{name}": value for name, value in weights.items()}
    save_file(ours, folder / "checkpoints" / "step-00000001.safetensors")
    return folder


def hostile(folder):
    """Yield (reader, file)."""
    tiny = VideoMAEConfig.variant("tiny").to_dict()
    for name, change in {
        "depth": {"depth": 10**6},
        "blocks": {"depth": 1024},
        "width": {"dim": 10**5, "heads": 1},
        "wide": {"dim": 2**16, "heads": 1},
        "channels": {"channels": 10**9, "mean": None, "std": None},
    }.items():
        for form in ("folder", "archive"):
            path, _ = keras_file(
                folder / f"{name} {form}",
                VideoMAEConfig.variant("tiny"),
                form=form,
                config={**tiny, **change},
            )
            yield "stored", path
        yield "stored", run_folder(folder / f"{name} run", **change)
    names = ",".join(
        f'"n{i}":{{"dtype":"F32","shape":[],"data_offsets":[{4 * i},{4 * i + 4}]}}'
        for i in range(200_000)
    )
    header = f"{{{names}}}".encode()
    (folder / "header").write_bytes(struct.pack("<Q", len(header)) + header + bytes(800_000))
    yield "stored", folder / "header"
    for name, opcode in {"lists": b"]", "marks": b"(", "memo": b"q\0"}.items():
        (folder / name).write_bytes(b"\x80\x02]" + opcode * (2**21 // len(opcode)) + b".")
        yield "stored", folder / name
    (folder / "lists of JSON").mkdir()
    (folder / "lists of JSON" / "run.json").write_text('{"a":[' + "[]," * (2**20) + "[]]}")
    yield "run", folder / "lists of JSON"
    (folder / "deep JSON").mkdir()
    (folder / "deep JSON" / "run.json").write_text("[" * 10**6)
    yield "run", folder / "deep JSON"
    for name, text in {
        "key": "a." * 100_000 + "a=1",
        "short key": "a." * 30_000 + "a=1",
        "deep": "a=" + "[" * 50_000,
        "table": "[" + "a." * 30_000 + "a]",
        "quoted": "'a' . \"a\" ." * 5_000 + "a=1",
        "inline": "b={" + "a." * 30_000 + "a=1}",
        "tables": "a=" + "{a=" * 20_000,
    }.items():
        for kind in ("plan", "page"):
            path = folder / f"{name}.{kind}.toml"
            path.write_text(text)
            yield kind, path


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
def test_refusals_take_little_memory(tmp_path):
    files = [(kind, str(path)) for kind, path in hostile(tmp_path)]
    command = [sys.executable, "-c", CHILD, json.dumps(files)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row[0] for row in rows] == [path for _, path in files]
    assert [row for row in rows if row[2] == "not refused"] == []
    assert sum(row[1] for row in rows) < ALLOWED, "\n".join(
        f"{grown:.0f} MB  {path}: {said:.100}" for path, grown, said in rows if grown > 1
    )
