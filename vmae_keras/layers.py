"""What the models are made of: the tubelet embedding and the transformer of encoder and decoder."""

import math

import keras
import numpy as np
from keras import ops

from vmae_keras import backend
from vmae_keras.initializers import block_kernel, torch_bias, torch_linear_kernel
from vmae_keras.positions import sinusoid
from vmae_keras.target import pixels

LOG_SCALE_LIMIT = 4.6052  # of cosine attention; about log 100


def check_video(video, config):
    """Raises ValueError where a video (B, T, H, W, C) does not fit the configuration."""
    expected = (config.frames, config.height, config.width, config.channels)
    shape = tuple(video.shape)
    if shape[1:] != expected:
        raise ValueError(
            f"`video` must have the shape (B, {', '.join(map(str, expected))}): frames, height, "
            f"width, channels. Received: shape={shape}. Resize the clip, or build the model with "
            "other sizes."
        )


def tubelet_embedding(config, dtype):
    """A dense layer on flattened tubelets: the official Conv3d, for the tokens we choose. EMBED-1."""
    return keras.layers.Dense(
        config.dim, kernel_initializer=torch_linear_kernel(),
        bias_initializer=torch_bias(config.tubelet_size), dtype=dtype, name="tubelet_embedding",
    )  # fmt: skip


def embed(tubelet_embedding, tokens, config, ids=None):
    """Pixels (B, V, P) of any dtype and the ids (B, V) of their tokens -> what the encoder reads.

    (B, V, D): normalised per channel, embedded, with positions; all N tokens in order without ids.
    Clauses INPUT-2, EMBED-1, EMBED-2.
    """
    repeat = config.tubelet_size // config.channels
    mean, std = (np.tile(np.float32(values), repeat) for values in (config.mean, config.std))
    x = (pixels(tokens) - ops.convert_to_tensor(mean)) / ops.convert_to_tensor(std)
    positions = ops.convert_to_tensor(
        sinusoid(config.num_tokens, config.dim), tubelet_embedding.compute_dtype
    )
    x = tubelet_embedding(x)
    return x + (positions if ids is None else ops.take(positions, ids, axis=0))


def transformer_options(config, *, remat, dtype):
    """What every transformer of a model has in common, for `Transformer`."""
    return {
        "drop_path": config.drop_path, "layer_scale": config.layer_scale,
        "cosine_attention": config.cosine_attention, "epsilon": config.layer_norm_epsilon,
        "remat": remat, "dtype": dtype,
    }  # fmt: skip


@keras.saving.register_keras_serializable(package="vmae_keras")
class Attention(keras.layers.Layer):
    """Multi-head self-attention whose keys have no bias.

    Args:
        dim, heads: width and number of heads; `dim` is a multiple of `heads`.
        cosine: L2-normalised queries and keys with a learned logit scale per head (V2's option).
        kernel_std: see `initializers.block_kernel`.

    Source: official `Attention` and `CosAttention`; clauses BLOCK-3, BLOCK-4, BLOCK-8.
    """

    def __init__(self, dim, heads, *, cosine=False, kernel_std=None, **kwargs):
        super().__init__(**kwargs)
        self.dim, self.heads, self.cosine, self.kernel_std = dim, heads, cosine, kernel_std
        # One (D, 3D) kernel: Xavier's bound depends on that shape.
        self.qkv = keras.layers.Dense(
            3 * dim, use_bias=False, kernel_initializer=block_kernel(kernel_std),
            dtype=self.dtype_policy, name="qkv",
        )  # fmt: skip
        self.projection = keras.layers.Dense(
            dim, kernel_initializer=block_kernel(kernel_std), dtype=self.dtype_policy,
            name="projection",
        )  # fmt: skip

    def build(self, input_shape):
        self.q_bias = self.add_weight(name="q_bias", shape=(self.dim,), initializer="zeros")
        self.v_bias = self.add_weight(name="v_bias", shape=(self.dim,), initializer="zeros")
        if self.cosine:
            self.log_scale = self.add_weight(
                name="log_scale",
                shape=(self.heads, 1, 1),
                initializer=keras.initializers.Constant(math.log(10.0)),
            )
        self.qkv.build((None, None, self.dim))
        self.projection.build((None, None, self.dim))

    def call(self, x, last=None):
        """(B, N, D) -> (B, N, D), or (B, last, D) for the last tokens' queries alone."""
        count = x.shape[1]
        q_bias, v_bias = ops.convert_to_tensor(self.q_bias), ops.convert_to_tensor(self.v_bias)
        bias = ops.concatenate([q_bias, ops.zeros_like(q_bias), v_bias])
        qkv = ops.reshape(self.qkv(x) + bias, (-1, count, 3, self.heads, self.dim // self.heads))
        q, k, v = (ops.squeeze(part, 2) for part in ops.split(qkv, 3, axis=2))
        if last is not None:
            q = q[:, -last:]
        scale = (self.dim // self.heads) ** -0.5
        if self.cosine:
            log_scale = ops.reshape(ops.minimum(self.log_scale, LOG_SCALE_LIMIT), (self.heads, 1))
            q = ops.normalize(q, axis=-1, epsilon=1e-12) * ops.exp(log_scale)
            k = ops.normalize(k, axis=-1, epsilon=1e-12)
            scale = 1.0
        x = backend.attention(q, k, v, scale)  # (B, last or N, heads, D / heads)
        return self.projection(ops.reshape(x, (-1, last or count, self.dim)))

    def get_config(self):
        return {
            **super().get_config(), "dim": self.dim, "heads": self.heads, "cosine": self.cosine,
            "kernel_std": self.kernel_std,
        }  # fmt: skip


@keras.saving.register_keras_serializable(package="vmae_keras")
class MLP(keras.layers.Layer):
    """Two dense layers around the exact (erf) GELU; clause BLOCK-5."""

    def __init__(self, dim, hidden_dim, *, kernel_std=None, **kwargs):
        super().__init__(**kwargs)
        self.dim, self.hidden_dim, self.kernel_std = dim, hidden_dim, kernel_std
        self.hidden = keras.layers.Dense(
            hidden_dim, kernel_initializer=block_kernel(kernel_std), dtype=self.dtype_policy,
            name="hidden",
        )  # fmt: skip
        self.output_ = keras.layers.Dense(
            dim, kernel_initializer=block_kernel(kernel_std), dtype=self.dtype_policy,
            name="output",
        )  # fmt: skip

    def build(self, input_shape):
        self.hidden.build((None, None, self.dim))
        self.output_.build((None, None, self.hidden_dim))

    def call(self, x):
        """(B, N, D) -> (B, N, D)"""
        return self.output_(ops.gelu(self.hidden(x), approximate=False))

    def get_config(self):
        return {
            **super().get_config(), "dim": self.dim, "hidden_dim": self.hidden_dim,
            "kernel_std": self.kernel_std,
        }  # fmt: skip


@keras.saving.register_keras_serializable(package="vmae_keras")
class Block(keras.layers.Layer):
    """x += keep * scale1 * attention(norm1(x)); x += keep * scale2 * mlp(norm2(x)).

    Args:
        dim, heads, mlp_dim: widths and heads.
        layer_scale: initial value of scale1 and scale2; 0 means that there are none.
        cosine_attention: see `Attention`.
        epsilon: of the LayerNorms.
        kernel_std: see `initializers.block_kernel`.

    Source: official `Block`; clauses BLOCK-1, BLOCK-2, BLOCK-6, BLOCK-7.
    """

    def __init__(
        self,
        dim,
        heads,
        mlp_dim,
        *,
        layer_scale=0.0,
        cosine_attention=False,
        epsilon=1e-6,
        kernel_std=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.settings = {
            "dim": dim, "heads": heads, "mlp_dim": mlp_dim, "layer_scale": layer_scale,
            "cosine_attention": cosine_attention, "epsilon": epsilon, "kernel_std": kernel_std,
        }  # fmt: skip
        dtype = self.dtype_policy
        self.norm1 = keras.layers.LayerNormalization(epsilon=epsilon, dtype=dtype, name="norm1")
        self.attention = Attention(
            dim, heads, cosine=cosine_attention, kernel_std=kernel_std, dtype=dtype,
            name="attention",
        )  # fmt: skip
        self.norm2 = keras.layers.LayerNormalization(epsilon=epsilon, dtype=dtype, name="norm2")
        self.mlp = MLP(dim, mlp_dim, kernel_std=kernel_std, dtype=dtype, name="mlp")

    def build(self, input_shape):
        shape = (None, None, self.settings["dim"])
        for layer in (self.norm1, self.attention, self.norm2, self.mlp):
            layer.build(shape)
        self.scale1 = self.scale2 = None
        if (value := self.settings["layer_scale"]) > 0:
            initializer = keras.initializers.Constant(value)
            self.scale1 = self.add_weight(name="scale1", shape=shape[2:], initializer=initializer)
            self.scale2 = self.add_weight(name="scale2", shape=shape[2:], initializer=initializer)

    def call(self, x, keep=None, last=None):
        """(B, N, D) -> (B, N, D), or (B, last, D) where only the last tokens are read.

        `keep` (2, B): drop-path factors of the two branches, 0 or 1 / (1 - rate).
        """
        y = self.attention(self.norm1(x), last=last)
        x = x if last is None else x[:, -last:]
        x = x + self._branch(y, self.scale1, keep, 0)
        y = self.mlp(self.norm2(x))
        return x + self._branch(y, self.scale2, keep, 1)

    def _branch(self, y, scale, keep, index):
        if scale is not None:
            y = y * scale
        return y if keep is None else y * ops.reshape(keep[index], (-1, 1, 1))

    def get_config(self):
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable(package="vmae_keras")
class Transformer(keras.layers.Layer):
    """Pre-norm blocks and a final LayerNorm. Clauses ENC-2, DEC-2, FT-1.

    Args:
        dim, depth, heads, mlp_dim: sizes.
        drop_path: rate of the last block; the rates rise linearly from 0 at the first.
        layer_scale, cosine_attention, epsilon, kernel_std: see `Block`.
        final_norm: without it, the last block's output is the transformer's.
        remat: recompute each block in the backward pass instead of keeping its activations.
    """

    def __init__(
        self, dim, depth, heads, mlp_dim, *, drop_path=0.0, layer_scale=0.0,
        cosine_attention=False, epsilon=1e-6, kernel_std=None, final_norm=True, remat=False,
        **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.settings = {
            "dim": dim, "depth": depth, "heads": heads, "mlp_dim": mlp_dim, "drop_path": drop_path,
            "layer_scale": layer_scale, "cosine_attention": cosine_attention, "epsilon": epsilon,
            "kernel_std": kernel_std, "final_norm": final_norm, "remat": remat,
        }  # fmt: skip
        dtype = self.dtype_policy
        self.blocks = [
            Block(
                dim, heads, mlp_dim, layer_scale=layer_scale, cosine_attention=cosine_attention,
                epsilon=epsilon, kernel_std=kernel_std, dtype=dtype, name=f"block_{index}",
            )
            for index in range(depth)
        ]  # fmt: skip
        self.norm = (
            keras.layers.LayerNormalization(epsilon=epsilon, dtype=dtype, name="norm")
            if final_norm
            else keras.layers.Identity(dtype=dtype, name="norm")
        )
        self.rates = np.linspace(0.0, drop_path, depth, dtype="float32")
        if drop_path:
            self.seed_generator = keras.random.SeedGenerator(name=f"{self.name}_drop_path")

    def build(self, input_shape):
        for layer in (*self.blocks, self.norm):
            layer.build((None, None, self.settings["dim"]))

    def call(self, x, last=None, training=False):
        """(B, N, D) -> (B, N, D), or (B, last, D): the last tokens alone leave the last block."""
        keep = self._keep(x) if training and self.settings["drop_path"] else None
        for index, block in enumerate(self.blocks):
            x = self._apply(
                block, x, None if keep is None else keep[index],
                last if index == len(self.blocks) - 1 else None,
            )  # fmt: skip
        return self.norm(x)

    def _apply(self, block, x, keep, last):
        if not self.settings["remat"]:
            return block(x, keep=keep, last=last)
        # `keras.remat(block)(x)` would freeze the block's weights on JAX; its `call` does not.
        # The draws of drop-path come in as numbers, so recomputing cannot draw others.
        if keep is None:
            return keras.remat(lambda x: block.call(x, last=last))(x)
        return keras.remat(lambda x, keep: block.call(x, keep=keep, last=last))(x, keep)

    def _keep(self, x):
        """(depth, 2, B): 1 / (1 - rate) with probability 1 - rate, else 0. Clause BLOCK-7."""
        survive = ops.reshape(ops.convert_to_tensor(1.0 - self.rates), (-1, 1, 1))
        draw = keras.random.uniform(
            (len(self.blocks), 2, ops.shape(x)[0]), seed=self.seed_generator
        )
        return ops.cast(ops.cast(draw < survive, "float32") / survive, x.dtype)

    def get_config(self):
        return {**super().get_config(), **self.settings}
