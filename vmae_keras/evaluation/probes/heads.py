"""What probes train on frozen features: several heads side by side, one for each learning rate.

Every weight has the heads' axis R in front, and their losses are summed: no head hears of another.
"""

import keras
import numpy as np
from keras import ops

from vmae_keras.training.optimizer import AdamW, WarmupCosine

EPSILON = 1e-6
HEAD_DIM = 32  # of the attentive probe; fewer attention heads where D has no such divisor


class SideBySide(keras.layers.Layer):
    """R dense layers, each of its own head: (B, R, D) -> (B, R, units)."""

    def __init__(self, heads, inputs, units, bias=True, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        # Of one head: Keras would count R as the size of a convolution's window.
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

    def call(self, x):
        """(B, R, D) -> (B, R, units)"""
        x = ops.transpose(ops.matmul(ops.transpose(x, (1, 0, 2)), self.kernel), (1, 0, 2))
        return x if self.bias is None else x + self.bias


class AttentivePooling(keras.layers.Layer):
    """R learned queries, each of which attends to a clip's tokens: (B, N, D) -> (B, R, D).

    No key and no value is made for a token. The logits of a single query q are (K^T q) x, and a mean of
    values is the value of a mean: N D for each attention head in place of N D^2.

    Source: clause PROBE-2.
    """

    def __init__(self, heads, dim, attention_heads, **kwargs):
        super().__init__(**kwargs)
        self.split = (attention_heads, dim // attention_heads)
        # What the query's projection gives for no input: its bias, which no decay touches.
        self.q_bias = self.add_weight(
            shape=(heads, dim),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="q_bias",
        )
        self.key = SideBySide(heads, dim, dim, bias=False, name="key")
        self.value = SideBySide(heads, dim, dim, name="value")
        self.projection = SideBySide(heads, dim, dim, name="projection")
        self.built = True

    def call(self, tokens):
        """(B, N, D) -> (B, R, D)"""
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
    """Features to the logits of R heads: (B, D), or tokens (B, N, D) if attentive, -> (B, R, K).

    Args:
        heads: R.
        dim: D.
        classes: K.
        attentive: pool tokens by attention, before an MLP and the dense layer.

    Source: clauses PROBE-1, PROBE-2.
    """

    def __init__(self, heads, dim, classes, attentive, name="probes"):
        super().__init__(name=name)
        self.heads, self.pooling = heads, None
        if attentive:
            attention_heads = dim // HEAD_DIM if dim % HEAD_DIM == 0 else 1
            self.pooling = AttentivePooling(heads, dim, attention_heads, name="pooling")
            self.wide = SideBySide(heads, dim, 4 * dim, name="wide")
            self.narrow = SideBySide(heads, 4 * dim, dim, name="narrow")
        self.head = SideBySide(heads, dim, classes, scale=0.01, name="head")  # all classes alike
        self.built = True

    def call(self, features):
        """(B, D) or (B, N, D) -> (B, R, K)"""
        if self.pooling is None:
            return self.head(ops.repeat(features[:, None], self.heads, axis=1))
        x = self.pooling(normalised(features))
        x = x + self.narrow(ops.gelu(self.wide(normalised(x)), approximate=False))
        return self.head(normalised(x))


class SweptAdamW(AdamW):
    """AdamW of heads side by side, of which each has its own rate.

    Args:
        rates: R, at the first of `steps` updates; half a cosine takes them to 0.
    """

    def __init__(self, rates, steps, weight_decay):
        super().__init__(WarmupCosine(1.0, 0.0, 0, steps), weight_decay, beta_2=0.999)
        self.rates = np.asarray(rates, "float32")

    def update_step(self, gradient, variable, learning_rate):
        """One update of one weight, (R, ...)."""
        rates = self.rates.reshape(-1, *[1] * (len(variable.shape) - 1))
        rates = ops.cast(learning_rate, "float32") * ops.convert_to_tensor(rates)
        super().update_step(gradient, variable, rates)


def summed_losses(labels, logits):
    """Classes (B,) and logits (B, R, K) -> (B,): the cross entropies of all heads."""
    labels = ops.repeat(ops.reshape(labels, (-1, 1)), logits.shape[1], axis=1)
    return ops.sum(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True), axis=1)


def normalised(x):
    """Layer normalisation without gamma and beta: the dense layer that follows does what they would."""
    mean, variance = ops.moments(x, axes=-1, keepdims=True)
    return (x - mean) * ops.rsqrt(variance + EPSILON)
