"""Measure how training scales over this machine's devices: python scripts/scaling.py [1 2 4] [--rounds 3]

The script pretrains the demo's model on drawn clips at a constant global batch size. For each setup it
prints the clips per second (the median of alternating rounds) and their ratio to one device. GPUs show how
training scales. CPU devices share the machine's cores, so there the figures show the overhead.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from vmae_keras.backend import environment, installed
from vmae_keras.data.synthetic import write_moving_shapes

EPOCHS = 3  # the first one compiles and is left out


def ways(counts):
    """Return (label, backend, flags) of each setup."""
    for backend in installed():
        for count in counts:
            many = ("--devices", str(count)) if count > 1 else ()
            yield f"{backend}, {count}", backend, many
            if backend == "jax" and many:
                yield f"{backend}, {count}, fsdp", backend, (*many, "--parallel", "fsdp")
                yield f"{backend}, {count}, tensor", backend, (*many, "--parallel", "tensor")


def clips_per_second(clips, backend, flags):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "vmae_keras.cli.app",
                "pretrain",
                clips,
                "--out",
                run,
                *flags,
                "--set",
                f"epochs={EPOCHS}",
                "--set",
                "validation=0",
            ],
            check=True,
            env=environment(backend),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with open(run / "log.csv", newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if float(row["epoch"]) > 1]
    return statistics.median(float(row["clips_per_second"]) for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("devices", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    found = {name: [] for name, *_ in ways(arguments.devices)}
    with tempfile.TemporaryDirectory() as clips:
        write_moving_shapes(Path(clips), 160)
        for _ in range(arguments.rounds):
            for name, backend, flags in ways(arguments.devices):
                found[name].append(clips_per_second(clips, backend, flags))
                print(f"{name}: {found[name][-1]:.0f} clips/s", flush=True)
    print("\n| devices | clips/s | to one device |\n|---|---|---|")
    for name, values in found.items():
        one = statistics.median(found[f"{name.split(',')[0]}, {arguments.devices[0]}"])
        rate = statistics.median(values)
        print(f"| {name} | {rate:.0f} | {rate / one:.2f} |")


if __name__ == "__main__":
    main()
