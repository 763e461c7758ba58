"""The process of one backend: `python -m vmae_keras.consistency.worker SETUP RESULT`, with $KERAS_BACKEND.

It writes a safetensors file of float32 arrays. For each precision, these are `{precision}/forward`
(B, M, P), `{precision}/loss` (), `{precision}/gradient/{weight}` of the first step, and
`{precision}/update/{weight}`, the change over all steps. A line is printed before each part.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from keras import ops
from safetensors.numpy import save_file

from vmae_keras import backend
from vmae_keras.backend import AnyTensor
from vmae_keras.consistency.setup import PRECISIONS, RATE, Setup
from vmae_keras.model import VideoMAE
from vmae_keras.training.optimizer import AdamW


class RecordingAdamW(AdamW):
    """An AdamW that keeps the last gradient of every weight."""

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self.gradients = self.add_optimizer_variables(variables, "gradient")

    def update_step(
        self, gradient: AnyTensor, variable: keras.Variable, factors: tuple[AnyTensor, ...]
    ) -> None:
        self.assign(self.gradients[self.index_of(variable)], gradient)
        super().update_step(gradient, variable, factors)


def quantities(setup: Setup, precision: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and array of every quantity that the running backend can compute."""
    _announce(precision, "forward")
    model = VideoMAE(setup.config, dtype=precision)
    variables = {v.path.removeprefix(f"{model.name}/"): v for v in model.trainable_variables}
    start = setup.weights({name: tuple(v.shape) for name, v in variables.items()})
    for name, variable in variables.items():
        variable.assign(start[name])
    optimizer = RecordingAdamW(RATE, weight_decay=0.05)
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)  # TensorFlow traces a step twice that does so
    batch = setup.batch(0)
    forward = backend.predict(model, batch)
    yield "forward", forward
    yield "loss", _array(model.compute_loss(x=batch, y_pred=ops.convert_to_tensor(forward)))
    if keras.backend.backend() not in backend.BACKENDS:
        return
    _announce(precision, "gradients")
    model.train_on_batch(batch)
    for name, gradient in zip(variables, optimizer.gradients, strict=True):
        yield f"gradient/{name}", _array(gradient)
    _announce(precision, f"{setup.steps} steps of AdamW")
    for step in range(1, setup.steps):
        model.train_on_batch(setup.batch(step))
    for name, variable in variables.items():
        yield f"update/{name}", _array(variable) - start[name]


def _array(tensor: AnyTensor) -> np.ndarray:
    return np.array(ops.convert_to_numpy(tensor), np.float32, order="C")


def _announce(precision: str, part: str) -> None:
    sys.stdout.write(f"{precision}: {part}\n")
    sys.stdout.flush()


def main(setup_path: str, result_path: str) -> None:
    setup = Setup.load(Path(setup_path))
    tensors = {
        f"{precision}/{name}": array
        for precision in PRECISIONS
        for name, array in quantities(setup, precision)
    }
    save_file(
        tensors, result_path, metadata={"device": backend.device(), "version": backend.version()}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
