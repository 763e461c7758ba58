"""The process that writes an artifact: `python -m vmae_keras.export.worker JOB OUT`, with $KERAS_BACKEND.

JOB is a folder with contract.json, the model as a preset in `model`, and optionally clips.npy, the clips
for calibration. `--stages` adds the output of each layer to the artifact's outputs. A line is printed
before each step.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

from vmae_keras import load
from vmae_keras.export import formats
from vmae_keras.export.contract import Contract
from vmae_keras.export.serving import serve, serve_stages


def main(job: str, out: str, *options: str) -> None:
    folder = Path(job)
    contract = Contract.from_json((folder / "contract.json").read_text("utf-8"))
    model = load(folder / "model")
    clips = folder / "clips.npy"
    graph = partial(serve_stages if "--stages" in options else serve, model, contract)
    calibration = np.load(clips) if clips.exists() else None
    measured = "" if calibration is None else f", measuring ranges on {len(calibration)} clips"
    sys.stdout.write(f"converting{measured}\n")
    sys.stdout.flush()
    formats.module(contract.format).write(graph, model, contract, Path(out), calibration)


if __name__ == "__main__":
    main(*sys.argv[1:])
