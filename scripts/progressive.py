"""Run progressive training on drawn clips, by the plan docs/progressive.toml.

    python scripts/progressive.py --backend jax

The script draws the clips that the plan names into runs/progressive and runs the plan there: pretraining,
post-pretraining on two labelled data sets, fine-tuning, evaluation. If restarted, it resumes.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETS = {"unlabelled": 600, "first": 90, "second": 90, "target": 60, "unseen": 180}
# The list of the second set uses different class names.
OTHERS = {"falling diagonal": "Falling_Diagonal", "anticlockwise": "counterclockwise"}


def draw(folder):
    from vmae_keras.data.synthetic import write_labelled_motions

    drawn = {
        name: write_labelled_motions(folder / name, count, seed=seed)
        for seed, (name, count) in enumerate(SETS.items())
    }
    with open(folder / "second.csv", "w", newline="", encoding="utf-8") as file:
        rows = ((path, path.parent.name) for path in drawn["second"])
        csv.writer(file).writerows(
            (path.relative_to(folder), OTHERS.get(label, label)) for path, label in rows
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default=os.environ.get("KERAS_BACKEND", "jax"))
    parser.add_argument("--out", type=Path, default=Path("runs/progressive"))
    arguments = parser.parse_args()
    draw(arguments.out)
    plan = arguments.out / "progressive.toml"
    shutil.copy(ROOT / "docs" / "progressive.toml", plan)
    options = ("--out", arguments.out / arguments.backend, "--backend", arguments.backend)
    command = [sys.executable, "-m", "vmae_keras.cli.app", "progressive", plan, *options]
    sys.exit(subprocess.run(list(map(str, command))).returncode)


if __name__ == "__main__":
    main()
