"""Initializers that Keras lacks: torch's defaults, which the official code relies on."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from vmae_keras.backend import AnyTensor

_FILL: contextvars.ContextVar[Callable[[keras.layers.Layer], None] | None] = contextvars.ContextVar(
    "fill", default=None
)


@contextlib.contextmanager
def filled_by(fill: Callable[[keras.layers.Layer], None]) -> Iterator[None]:
    """Create kernels as zeros in this context, and call `fill(block)` as soon as a block is built.

    Drawing values that a file then overwrites can take longer than reading the file. Filling block by
    block also saves memory: if all zeros existed before the first is overwritten, allocators would keep
    up to two thirds of their memory.
    """
    token = _FILL.set(fill)
    try:
        yield
    finally:
        _FILL.reset(token)


def fill(block: keras.layers.Layer) -> None:
    """Fill a block that has just been built, inside of `filled_by`."""
    if filler := _FILL.get():
        filler(block)


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
    """Return the initializer of a kernel in a block: Xavier uniform, or normal with deviation `std`.

    Each kernel needs its own: a Keras initializer returns the same numbers on every call.
    Source: official pretraining (INIT-1) and fine-tuning (FT-5).
    """
    if _FILL.get():
        return keras.initializers.Zeros()
    if std is None:
        return keras.initializers.GlorotUniform()
    return keras.initializers.RandomNormal(stddev=std)


def torch_linear_kernel() -> keras.initializers.Initializer:
    """Return torch's default for kernels: U(-1/sqrt(fan_in), 1/sqrt(fan_in)). Clause INIT-2.

    Torch calls it kaiming_uniform(a=sqrt(5)).
    """
    if _FILL.get():
        return keras.initializers.Zeros()
    return keras.initializers.VarianceScaling(1.0 / 3.0, "fan_in", "uniform")


def torch_bias(fan_in: int) -> keras.initializers.Initializer:
    """Return torch's default for biases: U(-1/sqrt(fan_in), 1/sqrt(fan_in)). Clause INIT-2."""
    bound = fan_in**-0.5
    return keras.initializers.RandomUniform(-bound, bound)
