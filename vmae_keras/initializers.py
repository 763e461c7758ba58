"""The initial values that Keras does not ship: torch's defaults, as the official code leaves them."""

import contextlib
import contextvars
import math

import keras
from keras import ops

_FILL = contextvars.ContextVar("fill", default=None)


@contextlib.contextmanager
def filled_by(fill):
    """Within it kernels start as zeros, and `fill(block)` is called as soon as a block has its weights.

    Drawing what a file overwrites can take longer than reading it. And were all zeros there before the
    first is overwritten, allocators would keep up to two thirds of their memory.
    """
    token = _FILL.set(fill)
    try:
        yield
    finally:
        _FILL.reset(token)


def fill(block):
    """Gives a block that has just been built its weights, where `filled_by` has some."""
    if _FILL.get():
        _FILL.get()(block)


_P = 0.5 * (1.0 + math.erf(1.0 / math.sqrt(2.0)))  # P(z < 1) of a standard normal


@keras.saving.register_keras_serializable(package="vmae_keras")
class TruncatedNormal(keras.initializers.Initializer):
    """Normal draws with deviation `std`, cut at one deviation (Keras's own cuts at two).

    Source: official `trunc_normal_(std=0.02)` with a = -std, b = std; clause INIT-3.
    """

    def __init__(self, std=0.02, seed=None):
        self.std, self.seed = std, seed

    def __call__(self, shape, dtype=None):
        uniform = keras.random.uniform(shape, 1.0 - _P, _P, dtype="float32", seed=self.seed)
        values = self.std * math.sqrt(2.0) * ops.erfinv(2.0 * uniform - 1.0)
        return ops.cast(ops.clip(values, -self.std, self.std), dtype or keras.config.floatx())

    def get_config(self):
        return {"std": self.std, "seed": self.seed}


def block_kernel(std: float | None):
    """Of a kernel inside a block: Xavier's uniform, or normal with deviation `std`.

    A new one for each kernel: an initializer of Keras draws the same numbers whenever it is called.
    Source: official pretraining (INIT-1) and fine-tuning (FT-5).
    """
    if _FILL.get():
        return keras.initializers.Zeros()
    if std is None:
        return keras.initializers.GlorotUniform()
    return keras.initializers.RandomNormal(stddev=std)


def torch_linear_kernel():
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): kaiming_uniform(a=sqrt(5)). Clause INIT-2."""
    if _FILL.get():
        return keras.initializers.Zeros()
    return keras.initializers.VarianceScaling(1.0 / 3.0, "fan_in", "uniform")


def torch_bias(fan_in: int):
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default bias. Clause INIT-2."""
    bound = fan_in**-0.5
    return keras.initializers.RandomUniform(-bound, bound)
