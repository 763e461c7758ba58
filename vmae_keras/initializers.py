"""Initializers that Keras lacks: torch's defaults, which the official code relies on."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from vmae_keras.backend import AnyTensor

Fill = Callable[[keras.layers.Layer], None]
"""Function that sets the weights of a layer, which has just been built with kernels of zeros."""


def leave_zeros(layer: keras.layers.Layer) -> None:
    """Leave a layer's kernels as zeros, because all weights are set later. It is a `Fill`."""


_P = 0.5 * (1.0 + math.erf(1.0 / math.sqrt(2.0)))  # P(z < 1) of a standard normal


@keras.saving.register_keras_serializable(package="vmae_keras")
class TruncatedNormal(keras.initializers.Initializer):
    """Normal distribution truncated at one standard deviation `std` (Keras's own truncates at two).

    Source: official `trunc_normal_(std=0.02)` with a = -std, b = std; clause INIT-3.
    """

    def __init__(self, std: float = 0.02, seed: int | None = None) -> None:
        self.std, self.seed = std, seed

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> AnyTensor:
        uniform = keras.random.uniform(shape, 1.0 - _P, _P, dtype="float32", seed=self.seed)
        values = self.std * math.sqrt(2.0) * ops.erfinv(2.0 * uniform - 1.0)
        return ops.cast(ops.clip(values, -self.std, self.std), dtype or keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        return {"std": self.std, "seed": self.seed}


def block_kernel(std: float | None) -> keras.initializers.Initializer:
    """Return a block kernel's initializer: normal with deviation `std`, zeros for 0, Xavier for None.

    Each kernel needs its own: a Keras initializer returns the same numbers on every call.
    Source: official pretraining (INIT-1) and fine-tuning (FT-5).
    """
    if std == 0.0:
        return keras.initializers.Zeros()
    if std is None:
        return keras.initializers.GlorotUniform()
    return keras.initializers.RandomNormal(stddev=std)


def torch_linear_kernel(fill: Fill | None = None) -> keras.initializers.Initializer:
    """Return torch's default for kernels: U(-1/sqrt(fan_in), 1/sqrt(fan_in)). Clause INIT-2.

    Torch calls it kaiming_uniform(a=sqrt(5)). A kernel that `fill` sets begins with zeros.
    """
    if fill:
        return keras.initializers.Zeros()
    return keras.initializers.VarianceScaling(1.0 / 3.0, "fan_in", "uniform")


def torch_bias(fan_in: int) -> keras.initializers.Initializer:
    """Return torch's default for biases: U(-1/sqrt(fan_in), 1/sqrt(fan_in)). Clause INIT-2."""
    bound = fan_in**-0.5
    return keras.initializers.RandomUniform(-bound, bound)
