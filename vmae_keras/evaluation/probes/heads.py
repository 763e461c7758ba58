"""The heads that probes train on frozen features: several side by side, one per learning rate.

The first axis of every weight is R, the heads. The losses are summed, so the heads train independently.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from vmae_keras.backend import AnyTensor
from vmae_keras.training.optimizer import AdamW, WarmupCosine

EPSILON = 1e-6
# Width of the attentive probe's attention heads. There is a single head if 32 does not divide D.
HEAD_DIM = 32


class SideBySide(keras.layers.Layer):
    """R dense layers, one per head: (B, R, D) -> (B, R, units)."""

    def __init__(
        self,
        heads: int,
        inputs: int,
        units: int,
        bias: bool = True,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Glorot's limit for a single head: Keras would take R for the size of a convolution's window.
        limit = scale * (6 / (inputs + units)) ** 0.5
        self.kernel = self.add_weight(
            shape=(heads, inputs, units),
            name="kernel",
            initializer=keras.initializers.RandomUniform(-limit, limit),
        )
        self.bias = None
        if bias:
            self.bias = self.add_weight(shape=(heads, units), initializer="zeros", name="bias")
        self.built = True

    def call(self, x: AnyTensor) -> AnyTensor:
        """Map (B, R, D) to (B, R, units)."""
        x = ops.transpose(ops.matmul(ops.transpose(x, (1, 0, 2)), self.kernel), (1, 0, 2))
        return x if self.bias is None else x + self.bias


class AttentivePooling(keras.layers.Layer):
    """R learned queries that each attend to a clip's tokens: (B, N, D) -> (B, R, D).

    Keys and values of tokens are never computed. The logits of a single query q are (K^T q) x, and the mean
    of values is the value of the mean. This costs N D instead of N D^2 for each attention head.

    Source: clause PROBE-2.
    """

    def __init__(self, heads: int, dim: int, attention_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.split = (attention_heads, dim // attention_heads)
        # The query is the bias of a projection without input, so weight decay does not apply to it.
        self.q_bias = self.add_weight(
            shape=(heads, dim),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="q_bias",
        )
        self.key = SideBySide(heads, dim, dim, bias=False, name="key")
        self.value = SideBySide(heads, dim, dim, name="value")
        self.projection = SideBySide(heads, dim, dim, name="projection")
        self.built = True

    def call(self, tokens: AnyTensor) -> AnyTensor:
        """Map (B, N, D) to (B, R, D)."""
        heads, dim, _ = self.key.kernel.shape
        kernel_shape = (heads, dim, *self.split)
        query = ops.reshape(self.q_bias, (heads, 1, *self.split)) * self.split[1] ** -0.5
        query = ops.sum(
            query * ops.reshape(self.key.kernel, kernel_shape), axis=-1
        )  # (R, D, heads)
        query = ops.reshape(ops.transpose(query, (1, 0, 2)), (dim, -1))  # (D, R heads)
        attention = ops.transpose(ops.softmax(ops.matmul(tokens, query), axis=1), (0, 2, 1))
        means = ops.reshape(ops.matmul(attention, tokens), (-1, heads, self.split[0], dim))
        values = ops.einsum("brhc,rchd->brhd", means, ops.reshape(self.value.kernel, kernel_shape))
        return self.projection(ops.reshape(values, (-1, heads, dim)) + self.value.bias)


class Probes(keras.Model):
    """R probes side by side, from features (B, D), or tokens (B, N, D) if attentive, to logits (B, R, K).

    Args:
        heads: R.
        dim: D.
        classes: K.
        attentive: Whether tokens are pooled by attention, before an MLP and the dense layer.

    Source: clauses PROBE-1, PROBE-2.
    """

    def __init__(
        self, heads: int, dim: int, classes: int, attentive: bool, name: str = "probes"
    ) -> None:
        super().__init__(name=name)
        self.heads, self.pooling = heads, None
        if attentive:
            attention_heads = dim // HEAD_DIM if dim % HEAD_DIM == 0 else 1
            self.pooling = AttentivePooling(heads, dim, attention_heads, name="pooling")
            self.wide = SideBySide(heads, dim, 4 * dim, name="wide")
            self.narrow = SideBySide(heads, 4 * dim, dim, name="narrow")
        # The small scale makes all classes equally probable at first.
        self.head = SideBySide(heads, dim, classes, scale=0.01, name="head")
        self.built = True

    def call(self, features: AnyTensor) -> AnyTensor:
        """Map (B, D) or (B, N, D) to (B, R, K)."""
        if self.pooling is None:
            return self.head(ops.repeat(features[:, None], self.heads, axis=1))
        x = self.pooling(normalised(features))
        x = x + self.narrow(ops.gelu(self.wide(normalised(x)), approximate=False))
        return self.head(normalised(x))


class SweptAdamW(AdamW):
    """An AdamW for heads side by side, each with its own learning rate.

    Args:
        rates: Initial learning rates of the R heads.
        steps: Number of updates, over which the rates decay to 0 along half a cosine.
        weight_decay: Weight decay of kernels.
    """

    def __init__(self, rates: Sequence[float], steps: int, weight_decay: float) -> None:
        super().__init__(WarmupCosine(1.0, 0.0, 0, steps), weight_decay, beta_2=0.999)
        self.rates = np.asarray(rates, "float32")

    def update_step(
        self, gradient: AnyTensor, variable: keras.Variable, factors: tuple[AnyTensor, ...]
    ) -> None:
        """Update one weight, (R, ...)."""
        rates = self.rates.reshape(-1, *[1] * (len(variable.shape) - 1))
        rate, *rest = factors
        super().update_step(gradient, variable, (rate * ops.convert_to_tensor(rates), *rest))


def summed_losses(labels: AnyTensor, logits: AnyTensor) -> AnyTensor:
    """Classes (B,), logits (B, R, K) -> (B,): sum the cross entropies of all heads."""
    labels = ops.repeat(ops.reshape(labels, (-1, 1)), logits.shape[1], axis=1)
    return ops.sum(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True), axis=1)


def normalised(x: AnyTensor) -> AnyTensor:
    """Apply layer normalisation without gamma and beta, which the next dense layer would make redundant."""
    mean, variance = ops.moments(x, axes=-1, keepdims=True)
    return (x - mean) * ops.rsqrt(variance + EPSILON)
