"""The encoder with a head: clips -> logits, for fine-tuning a pretrained VideoMAE."""

import keras
from keras import ops

from vmae_keras.config import VideoMAEConfig
from vmae_keras.layers import (
    Transformer,
    check_video,
    embed,
    transformer_options,
    tubelet_embedding,
)
from vmae_keras.tubelets import tubelets

KERNEL_STD = 0.02  # of blocks and head, as `trunc_normal_` of the official code leaves them

# What must be equal for an encoder's weights to mean the same; their shapes do not show all of it.
_ENCODER = (
    "height", "width", "channels", "tubelet", "dim", "depth", "heads", "mlp_dim", "cosine_attention",
    "mean", "std", "layer_norm_epsilon",
)  # fmt: skip


@keras.saving.register_keras_serializable(package="vmae_keras")
class VideoClassifier(keras.Model):
    """A video (B, T, H, W, C), uint8 or float in [0, 1], to logits (B, K) in the compute dtype.

        classifier = VideoClassifier(model.config.replace(drop_path=0.1), classes=400)
        classifier.load_encoder(model)  # of a pretrained `VideoMAE`
        classifier.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    Args:
        config: sizes and options, a `VideoMAEConfig` or its dict; the decoder's are not used.
        classes: K.
        pooling: "mean" of all tokens before `fc_norm`, or the "first" token after the encoder's norm.
        head_dropout: share of the head's input that is dropped in training.
        init_scale: what the head's first kernel is multiplied with.
        remat: recompute the blocks in the backward pass: less memory, about a third more time.

    Raises:
        ValueError: an unknown pooling, no class, or a video whose shape does not fit.

    Source: official `VisionTransformer` of `modeling_finetune.py`; clauses FT-1 to FT-5.
    """

    def __init__(
        self, config, classes, *, pooling="mean", head_dropout=0.0, init_scale=0.001, remat=False,
        name="video_classifier", **kwargs,
    ):  # fmt: skip
        if pooling not in ("mean", "first"):
            raise ValueError(f"`pooling` must be 'mean' or 'first'. Received: pooling={pooling!r}.")
        # Videos of floats must not be rounded to half precision before they are normalised.
        super().__init__(name=name, autocast=False, **kwargs)
        self.config = config if isinstance(config, VideoMAEConfig) else VideoMAEConfig(**config)
        self.settings = {
            "classes": classes, "pooling": pooling, "head_dropout": head_dropout,
            "init_scale": init_scale, "remat": remat,
        }  # fmt: skip
        c, dtype = self.config, self.dtype_policy
        self.tubelet_embedding = tubelet_embedding(c, dtype)
        self.encoder = Transformer(
            c.dim, c.depth, c.heads, c.mlp_dim, kernel_std=KERNEL_STD, final_norm=pooling == "first",
            **transformer_options(c, remat=remat, dtype=dtype), name="encoder",
        )  # fmt: skip
        self.fc_norm = None
        if pooling == "mean":
            self.fc_norm = keras.layers.LayerNormalization(
                epsilon=c.layer_norm_epsilon, dtype=dtype, name="fc_norm"
            )
        self.head_dropout = keras.layers.Dropout(head_dropout, dtype=dtype, name="head_dropout")
        self.head = keras.layers.Dense(
            classes, kernel_initializer=keras.initializers.RandomNormal(stddev=KERNEL_STD * init_scale),
            dtype=dtype, name="head",
        )  # fmt: skip
        self.build()

    def build(self, input_shape=None):
        """All sizes are known: the weights exist as soon as the model does."""
        if self.built:
            return
        c = self.config
        self.tubelet_embedding.build((None, None, c.tubelet_size))
        self.encoder.build((None, None, c.dim))
        if self.fc_norm:
            self.fc_norm.build((None, c.dim))
        self.head.build((None, c.dim))
        self.built = True

    def call(self, video, training=False):
        """(B, T, H, W, C) -> (B, K)"""
        check_video(video, self.config)
        tokens = tubelets(video, self.config.tubelet)  # (B, N, P)
        x = embed(self.tubelet_embedding, tokens, self.config)  # (B, N, D)
        x = self.encoder(x, training=training)
        x = self.fc_norm(ops.mean(x, axis=1)) if self.fc_norm else x[:, 0]  # (B, D)
        return self.head(self.head_dropout(x, training=training))

    def load_encoder(self, model):
        """Copies the tubelet embedding and the encoder of a `VideoMAE` or of another classifier.

        A decoder, its bridge and mask token, and another head have no place here and are left behind,
        as is the encoder's final norm with mean pooling. More frames than `model` has are fine: its
        tokens keep their positions.

        Returns:
            The names of this model's weights that were not copied and keep their values:
            `fc_norm/gamma`, `fc_norm/beta`, `head/kernel`, `head/bias`.

        Raises:
            ValueError: the configurations of the two encoders differ, or a weight is missing.
        """
        differing = [
            f"{name}={getattr(self.config, name)!r} (the other's is {getattr(model.config, name)!r})"
            for name in _ENCODER
            if getattr(self.config, name) != getattr(model.config, name)
        ]
        if differing:
            raise ValueError(
                "An encoder's weights mean the same only in an equal encoder. Received: "
                f"{', '.join(differing)}. Build the classifier from `model.config`."
            )
        mine, theirs = (
            {v.path.removeprefix(f"{each.name}/"): v for v in each.trainable_variables}
            for each in (self, model)
        )
        copied = [name for name in mine if name.startswith(("tubelet_embedding/", "encoder/"))]
        missing = [name for name in copied if name not in theirs]
        if missing:
            raise ValueError(
                "The other model lacks weights that this encoder needs. Received: a model without "
                f"{missing}. Build the classifier with its pooling and layer scales."
            )
        for name in copied:
            mine[name].assign(theirs[name])
        return [name for name in mine if name not in copied]

    def predict(self, x, *args, **kwargs):
        """As `keras.Model.predict`, on videos or a data set of them: (B, K)."""
        # Before JAX takes the weights out: its `predict` loses them on errors.
        if hasattr(x, "shape"):
            check_video(x, self.config)
        return super().predict(x, *args, **kwargs)

    def get_config(self):
        return {**super().get_config(), "config": self.config.to_dict(), **self.settings}
