"""Measure the time to load a base-size checkpoint, next to transformers: python scripts/loading_time.py

The script alternates processes, each of which imports its packages and loads the same file of random
weights twice. It prints the medians of the first and the second load, and their ratios to those of
transformers. Needs `pip install -e '.[jax,tensorflow,torch,peers]'`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 5
TRANSFORMERS = """
import sys, time
from transformers import VideoMAEForPreTraining as Model
Model  # is imported on first use
load = Model.from_pretrained
"""
OURS = """
import sys, time
from vmae_keras import VideoMAE
load = VideoMAE.from_preset
"""
MEASURE = """
for _ in range(2):
    start = time.perf_counter()
    model = load(sys.argv[1])
    print(time.perf_counter() - start)
"""


def write_checkpoint(folder):
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    VideoMAEForPreTraining(VideoMAEConfig(use_mean_pooling=False)).save_pretrained(folder)


def measure(code, backend, folder):
    variables = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    output = subprocess.run(
        [sys.executable, "-c", code + MEASURE, folder],
        check=True,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ).stdout
    return [float(line) for line in output.split()]


def main():
    programs = {"transformers": (TRANSFORMERS, "torch")}
    programs |= {f"ours, {name}": (OURS, name) for name in ("jax", "tensorflow", "torch")}
    times = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder))
        for _ in range(ROUNDS):
            for name, (code, backend) in programs.items():
                times[name].append(measure(code, backend, folder))
    medians = {
        name: [statistics.median(each) for each in zip(*rounds, strict=True)]
        for name, rounds in times.items()
    }
    print(f"{'':18}{'first load':>12}{'ratio':>7}{'second':>9}{'ratio':>7}")
    for name, (first, second) in medians.items():
        base = medians["transformers"]
        print(
            f"{name:18}{first:10.2f} s{first / base[0]:7.2f}{second:7.2f} s{second / base[1]:7.2f}"
        )


if __name__ == "__main__":
    main()
