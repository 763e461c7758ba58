"""Does pretraining help? Motions as classes, of which nothing in a single frame tells.

    python scripts/motions.py --backend jax --seeds 3

draws clips, pretrains on the unlabelled ones, fine-tunes on a few labelled ones from the pretrained encoder
and from random weights, and prints top-1 on unseen clips. Two cores need about five minutes a seed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

UNLABELLED, LABELLED, UNSEEN = 600, 60, 180


def vmae(*arguments):
    subprocess.run([sys.executable, "-m", "vmae_keras.cli", *map(str, arguments)], check=True)


def top_1(run, clips):
    vmae("evaluate", run, clips)
    return 100 * json.loads((run / "evaluation" / "metrics.json").read_text())["top_1"]


def one_seed(folder, seed):
    from vmae_keras.data.synthetic import write_labelled_motions

    clips = {"unlabelled": UNLABELLED, "labelled": LABELLED, "unseen": UNSEEN}
    for place, (name, count) in enumerate(clips.items()):
        write_labelled_motions(folder / name, count, seed=3 * seed + place)
    vmae("pretrain", folder / "unlabelled", "--out", folder / "pretrained", "--seed", seed)
    settings = ("--seed", seed, "--set", "epochs=40", "--set", "validation=0.0")
    start = ("--start", folder / "pretrained")
    vmae("finetune", folder / "labelled", "--out", folder / "fine-tuned", *start, *settings)
    vmae("finetune", folder / "labelled", "--out", folder / "scratch", *settings)
    return [top_1(folder / name, folder / "unseen") for name in ("fine-tuned", "scratch")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default=os.environ.get("KERAS_BACKEND", "jax"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/motions"))
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    began, rows = time.monotonic(), []
    for seed in range(arguments.seeds):
        rows.append(one_seed(arguments.out / f"{arguments.backend}-{seed}", seed))
    print(f"\ntop-1 on {UNSEEN} unseen clips, {LABELLED} labelled; {arguments.backend}")
    print("seed  pretrained  from scratch  points")
    for seed, (pretrained, scratch) in enumerate(rows):
        print(f"{seed:4}  {pretrained:8.1f} %  {scratch:10.1f} %  {pretrained - scratch:+6.1f}")
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
