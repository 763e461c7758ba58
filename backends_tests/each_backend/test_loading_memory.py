"""Tests of the peak memory of loading a checkpoint, measured at each weight in a separate process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backends_tests.support import BACKEND, ROOT
from spec.weight_table import expand
from vmae_keras import VideoMAEConfig
from vmae_keras.weights.tensor_files import write_safetensors
from vmae_keras.weights.torch_files import write_torch

CONFIG = VideoMAEConfig.variant("v1-b")
ALLOWED = 1.3  # times the model's size

# Pages of a mapped file do not count, as the system can evict them.
WATCHED = """
import sys
import keras
import torch  # reads .pth; what importing it takes is not of the model
from vmae_keras import VideoMAE, VideoMAEConfig

def held():
    status = open("/proc/self/status").read()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024

small = VideoMAE(VideoMAEConfig.variant("v1-b", depth=1, decoder_depth=1))  # what building takes
before, seen, assign = held(), [], keras.Variable.assign

def assigned(self, value):
    assign(self, value)
    seen.append(held())

keras.Variable.assign = assigned
model = VideoMAE.from_preset(sys.argv[1])
assert len(seen) >= len(model.trainable_variables)
print(max(*seen, held()) - before, 4 * model.count_params())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
# Reading a file is the same on each backend. The memory that a backend keeps does not depend on the format.
@pytest.mark.parametrize("kind", ["safetensors", "pth"] if BACKEND == "torch" else ["safetensors"])
def test_loading_holds_the_model_and_little_more(kind, tmp_path):
    file = tmp_path / f"model.{kind}"
    tensors = {
        name: np.zeros(shape, "float32")
        for weight in expand(CONFIG, "pretraining").values()
        for name, shape in weight.tensors("official").items()
    }
    write_torch(file, tensors) if kind == "pth" else write_safetensors(file, tensors, {})
    output = subprocess.run(
        [sys.executable, "-c", WATCHED, file],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": BACKEND},
    ).stdout
    peak, model = map(int, output.split())
    assert model > 3e8
    assert 0.9 * model < peak < ALLOWED * model, f"{peak / model:.2f} of the model"
