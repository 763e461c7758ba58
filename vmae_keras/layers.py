"""Layers of the models: the tubelet embedding and the transformer of encoder and decoder."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from vmae_keras import backend, initializers
from vmae_keras.backend import AnyTensor
from vmae_keras.config import Stack, VideoMAEConfig
from vmae_keras.initializers import Fill
from vmae_keras.positions import fixed_positions
from vmae_keras.target import standardised

LOG_SCALE_LIMIT = 4.6052  # of cosine attention; about log 100

# One function for each name in `variants.ACTIVATIONS`; clauses BLOCK-5, OPTION-1.
ACTIVATIONS = {
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
    "relu": ops.relu,
    "relu2": lambda x: ops.square(ops.relu(x)),
    "relu6": ops.relu6,
    "leaky_relu": lambda x: ops.leaky_relu(x, 0.01),
    "silu": ops.silu,
    "mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "hard_swish": ops.hard_silu,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "linear": lambda x: x,
}


@keras.saving.register_keras_serializable(package="vmae_keras")
class TubeletEmbedding(keras.layers.Layer):
    """Tubelet embedding: normalises pixels per channel, projects them to width D and adds positions.

    A dense layer on flattened tubelets replaces the official Conv3d, so that only the selected tokens are
    embedded. A class token, if there is one, comes first.

    Args:
        config: Sizes and options, a `VideoMAEConfig` or its dict.
        normal_positions: Initialise learned positions as in fine-tuning, instead of as in pretraining.
        fill: See `Transformer`. It is not called.

    Source: clauses INPUT-2, EMBED-1, EMBED-2, POS-4, POS-5, IMAGE-1.
    """

    def __init__(
        self,
        config: VideoMAEConfig | dict,
        *,
        normal_positions: bool = False,
        fill: Fill | None = None,
        name: str = "tubelet_embedding",
        **kwargs: Any,
    ) -> None:
        # Pixels must not be rounded to half precision before they are normalised.
        super().__init__(name=name, autocast=False, **kwargs)
        self.config = config if isinstance(config, VideoMAEConfig) else VideoMAEConfig(**config)
        self.normal_positions, self.fill = normal_positions, fill

    def build(self, input_shape: tuple | None = None) -> None:
        c = self.config
        kernel = initializers.torch_linear_kernel(self.fill)
        self.kernel = self.add_weight((c.tubelet_size, c.dim), kernel, name="kernel")
        bias = initializers.torch_bias(c.tubelet_size)
        self.bias = self.add_weight((c.dim,), bias, name="bias")
        if c.class_token:
            normal = keras.initializers.RandomNormal(stddev=0.02)
            self.class_token = self.add_weight((1, 1, c.dim), normal, name="class_token")
        if c.learned_positions:
            normal = keras.initializers.RandomNormal(stddev=0.02)
            initial = normal if self.normal_positions else initializers.TruncatedNormal(0.02)
            shape = (c.num_tokens + c.class_token, c.dim)
            self.positions = self.add_weight(shape, initial, name="positions")

    def call(self, tokens: AnyTensor, ids: AnyTensor = None) -> AnyTensor:
        """Embed tubelets (B, V, P) of any dtype with ids (B, V) -> (B, V, D).

        Without ids, the tubelets are all N in order. With a class token, return (B, 1 + V, D).
        """
        c, dtype = self.config, self.compute_dtype
        x = ops.cast(standardised(tokens, c), dtype)
        x = ops.matmul(x, ops.cast(self.kernel, dtype)) + ops.cast(self.bias, dtype)
        positions = ops.cast(
            self.positions if c.learned_positions else fixed_positions(c, c.dim), dtype
        )
        first = ops.cast(self.class_token, dtype) if c.class_token else None
        if c.class_token and c.learned_positions:
            first, positions = first + positions[0], positions[1:]
        if ids is not None:
            # Take from a reshaped tensor: on TensorFlow, taking from a weight has a sparse gradient.
            positions = ops.take(ops.reshape(positions, positions.shape), ids, axis=0)
        x = x + positions
        if first is None:
            return x
        return ops.concatenate([ops.zeros_like(x[:, :1]) + first, x], axis=1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "normal_positions": self.normal_positions,
        }


class StackLayer(keras.layers.Layer):
    """Base class of a transformer and its parts, configured by a `Stack` or its dict."""

    def __init__(self, stack: Stack | dict, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stack = stack if isinstance(stack, Stack) else Stack(**stack)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stack": dataclasses.asdict(self.stack)}

    def _dense(self, units: int, name: str, **options: Any) -> keras.layers.Dense:
        kernel = initializers.block_kernel(self.stack.kernel_std)
        return keras.layers.Dense(
            units, kernel_initializer=kernel, dtype=self.dtype_policy, name=name, **options
        )

    def _norm(self, epsilon: float, name: str) -> keras.layers.LayerNormalization:
        return keras.layers.LayerNormalization(epsilon=epsilon, dtype=self.dtype_policy, name=name)


@keras.saving.register_keras_serializable(package="vmae_keras")
class Attention(StackLayer):
    """Multi-head self-attention without a key bias.

    Source: official `Attention` and `CosAttention`; clauses BLOCK-3, BLOCK-4, BLOCK-8, OPTION-2.
    """

    def __init__(self, stack: Stack | dict, **kwargs: Any) -> None:
        super().__init__(stack, **kwargs)
        # One (D, 3D) kernel, as in the official code: the bound of Xavier's uniform depends on the shape.
        self.qkv = self._dense(3 * self.stack.dim, "qkv", use_bias=False)
        self.projection = self._dense(self.stack.dim, "projection")

    def build(self, input_shape: tuple) -> None:
        dim, heads = self.stack.dim, self.stack.heads
        if self.stack.query_value_bias:
            self.q_bias = self.add_weight(name="q_bias", shape=(dim,), initializer="zeros")
            self.v_bias = self.add_weight(name="v_bias", shape=(dim,), initializer="zeros")
        if self.stack.cosine_attention:
            log_ten = keras.initializers.Constant(math.log(10.0))
            self.log_scale = self.add_weight((heads, 1, 1), log_ten, name="log_scale")
        self.qkv.build((None, None, dim))
        self.projection.build((None, None, dim))

    def call(self, x: AnyTensor, last: int | None = None) -> AnyTensor:
        """Attend: (B, N, D) -> (B, N, D), or (B, last, D) for the queries of the last tokens only."""
        count, dim, heads = x.shape[1], self.stack.dim, self.stack.heads
        qkv = self.qkv(x)  # (B, N, 3D)
        if self.stack.query_value_bias:
            q_bias, v_bias = ops.convert_to_tensor(self.q_bias), ops.convert_to_tensor(self.v_bias)
            qkv = qkv + ops.concatenate([q_bias, ops.zeros_like(q_bias), v_bias])
        qkv = ops.reshape(qkv, (-1, count, 3, heads, dim // heads))
        q, k, v = (ops.squeeze(part, 2) for part in ops.split(qkv, 3, axis=2))
        if last is not None:
            q = q[:, -last:]
        scale = (dim // heads) ** -0.5
        if self.stack.cosine_attention:
            log_scale = ops.reshape(ops.minimum(self.log_scale, LOG_SCALE_LIMIT), (heads, 1))
            q = ops.normalize(q, axis=-1, epsilon=1e-12) * ops.exp(log_scale)
            k = ops.normalize(k, axis=-1, epsilon=1e-12)
            scale = 1.0
        x = backend.attention(q, k, v, scale)  # (B, last or N, heads, D / heads)
        return self.projection(ops.reshape(x, (-1, last or count, dim)))


@keras.saving.register_keras_serializable(package="vmae_keras")
class MLP(StackLayer):
    """Two dense layers around an activation, by default the exact (erf) GELU. BLOCK-5, OPTION-1."""

    def __init__(self, stack: Stack | dict, **kwargs: Any) -> None:
        super().__init__(stack, **kwargs)
        self.hidden = self._dense(self.stack.mlp_dim, "hidden")
        self.output_ = self._dense(self.stack.dim, "output")

    def build(self, input_shape: tuple) -> None:
        self.hidden.build((None, None, self.stack.dim))
        self.output_.build((None, None, self.stack.mlp_dim))

    def call(self, x: AnyTensor) -> AnyTensor:
        """Transform each token: (B, N, D) -> (B, N, D)."""
        return self.output_(ACTIVATIONS[self.stack.activation](self.hidden(x)))


@keras.saving.register_keras_serializable(package="vmae_keras")
class Block(StackLayer):
    """Pre-norm block: x += keep * scale1 * attention(norm1(x)); x += keep * scale2 * mlp(norm2(x)).

    Source: official `Block`; clauses BLOCK-1, BLOCK-2, BLOCK-6, BLOCK-7.
    """

    def __init__(self, stack: Stack | dict, **kwargs: Any) -> None:
        super().__init__(stack, **kwargs)
        dtype = self.dtype_policy
        self.norm1 = self._norm(self.stack.epsilon, "norm1")
        self.attention = Attention(self.stack, dtype=dtype, name="attention")
        self.norm2 = self._norm(self.stack.epsilon, "norm2")
        self.mlp = MLP(self.stack, dtype=dtype, name="mlp")

    def build(self, input_shape: tuple) -> None:
        dim = self.stack.dim
        for layer in (self.norm1, self.attention, self.norm2, self.mlp):
            layer.build((None, None, dim))
        self.scale1 = self.scale2 = None
        if self.stack.layer_scale > 0:
            initializer = keras.initializers.Constant(self.stack.layer_scale)
            self.scale1 = self.add_weight(name="scale1", shape=(dim,), initializer=initializer)
            self.scale2 = self.add_weight(name="scale2", shape=(dim,), initializer=initializer)

    def call(self, x: AnyTensor, keep: AnyTensor = None, last: int | None = None) -> AnyTensor:
        """Apply the block: (B, N, D) -> (B, N, D), or (B, last, D) for the last tokens only.

        Args:
            keep: Drop-path factors (2, B) of the two branches, 0 or 1 / (1 - rate); None for no drop-path.
        """
        y = self.attention(self.norm1(x), last=last)
        x = x if last is None else x[:, -last:]
        x = x + self._branch(y, self.scale1, keep, 0)
        y = self.mlp(self.norm2(x))
        return x + self._branch(y, self.scale2, keep, 1)

    def _branch(self, y: AnyTensor, scale: AnyTensor, keep: AnyTensor, index: int) -> AnyTensor:
        if scale is not None:
            y = y * scale
        return y if keep is None else y * ops.reshape(keep[index], (-1, 1, 1))


@keras.saving.register_keras_serializable(package="vmae_keras")
class Transformer(StackLayer):
    """Pre-norm blocks and a final LayerNorm. Clauses ENC-2, DEC-2, FT-1.

    Args:
        stack: Sizes and options, a `Stack` or its dict.
        remat: Recompute each block in the backward pass instead of storing its activations.
        fill: Function called with each block and the norm as soon as it is built, to set its weights.
            Drawing values that a file then overwrites can take longer than reading the file, and if all
            zeros existed before the first are overwritten, allocators would keep up to two thirds of
            their memory. None draws the weights.
    """

    def __init__(
        self, stack: Stack | dict, *, remat: bool = False, fill: Fill | None = None, **kwargs: Any
    ) -> None:
        super().__init__(stack, **kwargs)
        self.remat, self.fill = remat, fill
        stack, dtype = self.stack, self.dtype_policy
        if fill:
            stack = dataclasses.replace(stack, kernel_std=0.0)
        self.blocks = [Block(stack, dtype=dtype, name=f"block_{i}") for i in range(stack.depth)]
        self.norm = (
            self._norm(stack.final_epsilon or stack.epsilon, "norm")
            if stack.final_norm
            else keras.layers.Identity(dtype=dtype, name="norm")
        )
        self.rates = np.linspace(0.0, stack.drop_path, stack.depth, dtype="float32")
        if stack.drop_path:
            self.seed_generator = keras.random.SeedGenerator(name=f"{self.name}_drop_path")

    def build(self, input_shape: tuple) -> None:
        for layer in (*self.blocks, self.norm):
            layer.build((None, None, self.stack.dim))
            if self.fill:
                self.fill(layer)

    def call(self, x: AnyTensor, last: int | None = None, training: bool = False) -> AnyTensor:
        """Apply all blocks: (B, N, D) -> (B, N, D), or (B, last, D) for the last tokens only."""
        keep = self._keep(x) if training and self.stack.drop_path else None
        for index, block in enumerate(self.blocks):
            read = last if index == len(self.blocks) - 1 else None
            x = self._apply(block, x, None if keep is None else keep[index], read)
        return self.norm(x)

    def _apply(self, block: Block, x: AnyTensor, keep: AnyTensor, last: int | None) -> AnyTensor:
        if not self.remat:
            return block(x, keep=keep, last=last)
        # `keras.remat(block)(x)` would freeze the block's weights on JAX; wrapping its `call` does not.
        # Drop-path factors are an argument, so that recomputing does not draw new ones.
        if keep is None:
            return keras.remat(lambda x: block.call(x, last=last))(x)
        return keras.remat(lambda x, keep: block.call(x, keep=keep, last=last))(x, keep)

    def _keep(self, x: AnyTensor) -> AnyTensor:
        """Draw factors (depth, 2, B): 1 / (1 - rate) with probability 1 - rate, else 0. Clause BLOCK-7."""
        survive = ops.reshape(ops.convert_to_tensor(1.0 - self.rates), (-1, 1, 1))
        shape = (len(self.blocks), 2, ops.shape(x)[0])
        draw = backend.uniform_of_batch(shape, axis=2, seed=self.seed_generator)
        return ops.cast(ops.cast(draw < survive, "float32") / survive, x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "remat": self.remat}
