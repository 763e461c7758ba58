"""The encoder alone: clips -> features."""

import keras
from keras import ops

from vmae_keras import backend
from vmae_keras.config import VideoMAEConfig
from vmae_keras.layers import Transformer, TubeletEmbedding
from vmae_keras.presets import Preset, by_path
from vmae_keras.tubelets import check_video, tubelets

KERNEL_STD = 0.02  # of the blocks, as `trunc_normal_` of the official fine-tuning leaves them

# What must be equal for an encoder's weights to mean the same; their shapes do not show all of it.
_EQUAL = (
    "channels",
    "tubelet",
    "dim",
    "depth",
    "heads",
    "mlp_dim",
    "cosine_attention",
    "mean",
    "std",
    "layer_norm_epsilon",
    "activation",
    "query_value_bias",
    "learned_positions",
    "class_token",
    "planar_positions",
)


class Backbone(Preset, keras.Model):
    """What encoder and classifier have in common; see `VideoEncoder`. Subclasses build themselves."""

    def __init__(self, config, *, pooling, remat, name, **kwargs):
        if pooling not in (None, "mean", "first"):
            raise ValueError(
                f"`pooling` must be None, 'mean' or 'first'. Received: pooling={pooling!r}."
            )
        # Videos of floats must not be rounded to half precision before they are normalised.
        super().__init__(name=name, autocast=False, **kwargs)
        self.config = config if isinstance(config, VideoMAEConfig) else VideoMAEConfig(**config)
        self.pooling, self.remat = pooling, remat
        c, dtype = self.config, self.dtype_policy
        self.tubelet_embedding = TubeletEmbedding(c, normal_positions=True, dtype=dtype)
        stack = c.encoder_stack(
            kernel_std=KERNEL_STD,
            final_norm=pooling == "first" or (pooling is None and c.encoder_norm),
        )
        self.encoder = Transformer(stack, remat=remat, dtype=dtype, name="encoder")
        self.fc_norm = None
        if pooling == "mean":
            self.fc_norm = keras.layers.LayerNormalization(
                epsilon=c.last_norm_epsilon or c.layer_norm_epsilon, dtype=dtype, name="fc_norm"
            )

    def build(self, input_shape=None):
        """All sizes are known: the weights exist as soon as the model does."""
        if self.built:
            return
        self.tubelet_embedding.build()
        self.encoder.build((None, None, self.config.dim))
        if self.fc_norm:
            self.fc_norm.build((None, self.config.dim))
        self.built = True

    def features(self, video, training=False):
        """(B, T, H, W, C) -> (B, N, D), a class token before them; or (B, D) with a pooling"""
        check_video(video, self.config)
        tokens = tubelets(video, self.config.tubelet)  # (B, N, P)
        x = self.encoder(self.tubelet_embedding(tokens), training=training)  # (B, N, D)
        if self.pooling is None:
            return x
        if self.fc_norm is None:
            return x[:, 0]
        return self.fc_norm(ops.mean(x[:, 1:] if self.config.class_token else x, axis=1))

    def load_encoder(self, model):
        """Copies the tubelet embedding and the encoder of a `VideoMAE` or of another encoder.

        A decoder, its bridge and mask token, and a head have no place here and are left behind, as is
        the encoder's final norm with mean pooling. More frames than `model` has are fine: its tokens
        keep their positions. Another height or width needs `position_grid`: see `from_preset`.

        Returns:
            The names of this model's weights that were not copied and keep their values, such as
            `fc_norm/gamma`, `fc_norm/beta`, `head/kernel`, `head/bias`.

        Raises:
            ValueError: the configurations of the two encoders differ, or a weight is missing.
        """
        values = [
            (name, getattr(self.config, name), getattr(model.config, name)) for name in _EQUAL
        ]
        places = [(c.position_grid or c.grid)[1:] for c in (self.config, model.config)]
        values.append(("height and width of the positions' grid", *places))
        differing = [
            f"{name}={mine!r} (the other's is {theirs!r})"
            for name, mine, theirs in values
            if mine != theirs
        ]
        if differing:
            raise ValueError(
                "An encoder's weights mean the same only in an equal encoder. Received: "
                f"{', '.join(differing)}. Build this model from `model.config`."
            )
        mine, theirs = by_path(self), by_path(model)
        copied = [name for name in mine if name.startswith(("tubelet_embedding/", "encoder/"))]
        missing = [name for name in copied if name not in theirs]
        if missing:
            raise ValueError(
                "The other model lacks weights that this encoder needs. Received: a model without "
                f"{missing}. Build this model with its pooling and layer scales."
            )
        for name in copied:
            # As numbers: on JAX two models must not share arrays, which training one gives away.
            mine[name].assign(backend.to_numpy(theirs[name]))
        return [name for name in mine if name not in copied]

    def predict(self, x, *args, **kwargs):
        """As `keras.Model.predict`, on videos or a data set of them."""
        # Before JAX takes the weights out: its `predict` loses them on errors.
        if hasattr(x, "shape"):
            check_video(x, self.config)
        return super().predict(x, *args, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "pooling": self.pooling,
            "remat": self.remat,
        }


@keras.saving.register_keras_serializable(package="vmae_keras")
class VideoEncoder(Backbone):
    """A video (B, T, H, W, C), uint8 or float in [0, 1], to features in the compute dtype.

    Args:
        config: sizes and options, a `VideoMAEConfig` or its dict; the decoder's are not used.
        pooling: None for all tokens (B, N, D) behind the pretrained model's encoder norm, (B, 1 + N, D)
            with a class token, which comes first; "mean" for `fc_norm` of the mean of the N (B, D);
            "first" for the first token behind the norm (B, D), which is the class token if there is one.
        remat: recompute the blocks in the backward pass: less memory, about a third more time.

    Raises:
        ValueError: an unknown pooling, or a video whose shape does not fit.

    Source: official `modeling_pretrain.py`, `modeling_finetune.py`; clauses ENC-*, FT-1, FT-2, IMAGE-3.
    """

    kind = "encoder"  # see `Preset`

    def __init__(self, config, *, pooling=None, remat=False, name="video_encoder", **kwargs):
        super().__init__(config, pooling=pooling, remat=remat, name=name, **kwargs)
        self.build()

    def call(self, video, training=False):
        """(B, T, H, W, C) -> (B, N, D), or (B, D) with a pooling"""
        return self.features(video, training=training)

    @staticmethod
    def preset_arguments(stored, config, arguments):
        """-> configuration, arguments, weights that stay fresh; see `Preset.from_preset`."""
        arguments = {"pooling": stored.pooling, **arguments}
        if arguments["pooling"] is None and "encoder/norm/gamma" not in stored.tensors:
            config = config.replace(encoder_norm=False)  # a classifier with mean pooling has none
        return config, arguments, ()
