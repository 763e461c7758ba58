"""Shared test helpers: models with large random weights, and batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backends_tests.profiles import NIGHTLY
from spec import training_reference
from vmae_keras import masks
from vmae_keras.backend import installed

BACKEND = os.environ.get("KERAS_BACKEND", "jax")
# Reading foreign files does not depend on the backend, so all options are tested on the fastest one.
TRIES_ALL_FILES = BACKEND == "torch"
# Each process takes seconds to start, so the suite tests launchers, jobs and kills on one backend.
in_suite_on_torch = pytest.mark.skipif(
    BACKEND != "torch" and not NIGHTLY,
    reason="PyTorch starts soonest; asked of the other backends with --nightly",
)
# Offset of the seeds of weights and batches. `scripts/tolerances.py` measures with several.
SEED_SHIFT = int(os.environ.get("VMAE_SEED", "0"))
ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("VMAE_SHARED", ROOT.parent / "shared"))


def shared(path):
    """Return a path in the shared folder, `../shared` or VMAE_SHARED; skip the test if it is absent."""
    if not (SHARED / path).exists():
        pytest.skip(
            f"{SHARED / path} does not exist; name the folder of shared files in VMAE_SHARED"
        )
    return SHARED / path


def imported(code: str) -> tuple[set[str], str]:
    """Run code in a new process; return the packages that it imports, and its output.

    Modules of Python itself, and those that `code` lists in `before`, are left out.
    """
    code = (
        f"import json, sys\nbefore = set()\n{code}\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print('\\n' + json.dumps(sorted(names - sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"},
    )
    assert done.returncode == 0, done.stderr
    output, names = done.stdout.removesuffix("\n").rsplit("\n", 1)
    return set(json.loads(names)), output


def running_backend():
    """Return the backend of Keras in this process, or the first installed one; skip if there is none.

    Tests that need no backend share a process, in which the first import of Keras decides.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"].backend.backend()
    names = installed()
    return names[0] if names else pytest.skip("no backend is installed")


def by_path(model):
    """Return the trainable variables by the specification's names (WEIGHT-1, FT-4)."""
    return {v.path.removeprefix(f"{model.name}/"): v for v in model.trainable_variables}


def assign(model, weights):
    """Set a model's weights from a dict with the specification's names."""
    variables = by_path(model)
    assert variables.keys() == weights.keys()
    for path, variable in variables.items():
        variable.assign(weights[path])


def with_random_weights(config, seed=0, **kwargs):
    """Return a model and its weights of sigma .5, which are large enough to expose a wrong detail."""
    from vmae_keras import VideoMAE
    from vmae_keras.initializers import leave_zeros

    # JAX would compile each initialiser for each shape.
    model = VideoMAE(config, fill=leave_zeros, **kwargs)
    weights = training_reference.random_weights(config, np.random.default_rng(seed + SEED_SHIFT))
    # The model holds float32. The oracle must start from the same rounded numbers.
    weights = {name: value.astype("float32") for name, value in weights.items()}
    assign(model, weights)
    return model, weights


def compile_and_build(model, optimizer, *arguments, **named):
    """Compile a model and create its optimizer's variables. TensorFlow traces a step that does so twice."""
    model.compile(optimizer, *arguments, **named)
    model.optimizer.build(model.trainable_variables)


def random_batch(config, clips=2, seed=0, kind="tube", ratio=0.75, decoder_ratio=None, video=None):
    """Return a batch dict of random pixels with separate masks for each clip."""
    generator = np.random.default_rng(seed + SEED_SHIFT)
    shape = (clips, config.frames, config.height, config.width, config.channels)
    ids = [
        masks.pretraining(
            config.grid, generator, kind=kind, ratio=ratio, decoder_ratio=decoder_ratio
        )
        for _ in range(clips)
    ]
    batch = {name: np.stack([one[name] for one in ids]) for name in ids[0]}
    pixels = generator.integers(0, 256, shape, dtype=np.uint8)
    batch["video"] = pixels if video is None else (pixels / 255).astype(video)
    return batch


def numpy(tensor):
    from keras import ops

    return ops.convert_to_numpy(tensor)
