"""Video encoder without a decoder or head: clips -> features."""

from typing import Any

import keras
import numpy as np
from keras import ops

from vmae_keras import backend
from vmae_keras.backend import AnyTensor
from vmae_keras.config import VideoMAEConfig
from vmae_keras.initializers import Fill
from vmae_keras.layers import Transformer, TubeletEmbedding
from vmae_keras.presets import Preset, by_path
from vmae_keras.tubelets import check_video, cut_tubelets
from vmae_keras.variants import POOLINGS
from vmae_keras.weights.stored_model import Stored

KERNEL_STD = 0.02  # of the blocks' kernels after `trunc_normal_` in the official fine-tuning

# Fields that two encoders must share to exchange weights. Weight shapes do not reveal all of them.
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


class Backbone(Preset):
    """Base class of encoder and classifier; see `VideoEncoder`. Subclasses call `build` in `__init__`."""

    def __init__(
        self,
        config: VideoMAEConfig | dict,
        *,
        pooling: str | None,
        remat: bool,
        fill: Fill | None,
        name: str,
        **kwargs: Any,
    ) -> None:
        if pooling not in (None, *POOLINGS):
            raise ValueError(
                f"`pooling` must be None, 'mean' or 'first'. Received: pooling={pooling!r}."
            )
        # Float videos must not be rounded to half precision before they are normalised.
        super().__init__(name=name, autocast=False, **kwargs)
        self.config = config if isinstance(config, VideoMAEConfig) else VideoMAEConfig(**config)
        self.pooling, self.remat = pooling, remat
        c, dtype = self.config, self.dtype_policy
        self.tubelet_embedding = TubeletEmbedding(c, normal_positions=True, fill=fill, dtype=dtype)
        stack = c.encoder_stack(
            kernel_std=KERNEL_STD,
            final_norm=pooling == "first" or (pooling is None and c.encoder_norm),
        )
        self.encoder = Transformer(stack, remat=remat, fill=fill, dtype=dtype, name="encoder")
        self.fc_norm = None
        if pooling == "mean":
            self.fc_norm = keras.layers.LayerNormalization(
                epsilon=c.last_norm_epsilon or c.layer_norm_epsilon, dtype=dtype, name="fc_norm"
            )

    def build(self, input_shape: tuple | None = None) -> None:
        """Create the weights. The constructor calls this, since all sizes are known."""
        if self.built:
            return
        self.tubelet_embedding.build()
        self.encoder.build((None, None, self.config.dim))
        if self.fc_norm:
            self.fc_norm.build((None, self.config.dim))
        self.built = True

    def features(self, video: AnyTensor, training: bool = False) -> AnyTensor:
        """Return features: (B, T, H, W, C) -> (B, N, D), or (B, D) with pooling.

        Without pooling, a class token comes first: (B, 1 + N, D).
        """
        check_video(video, self.config)
        tokens = cut_tubelets(video, self.config.tubelet)  # (B, N, P)
        x = self.encoder(self.tubelet_embedding(tokens), training=training)  # (B, N, D)
        if self.pooling is None:
            return x
        if self.fc_norm is None:
            return x[:, 0]
        return self.fc_norm(ops.mean(x[:, 1:] if self.config.class_token else x, axis=1))

    def load_encoder(self, model: keras.Model) -> list[str]:
        """Copy the tubelet embedding and the encoder of a `VideoMAE` or of another encoder.

        The decoder, the bridge, the mask token and a head are ignored, and so is the encoder's final norm
        if this model has mean pooling. This model may have more frames than `model`: tokens keep their
        positions. Another height or width needs `position_grid`; see `from_preset`.

        Returns:
            The names of this model's weights that were not copied, such as `fc_norm/gamma`,
            `fc_norm/beta`, `head/kernel`, `head/bias`.

        Raises:
            ValueError: The configurations of the two encoders differ, or a weight is missing.
        """
        values: list[tuple[str, Any, Any]] = [
            (name, getattr(self.config, name), getattr(model.config, name)) for name in _EQUAL
        ]
        places = [(c.position_grid or c.grid)[1:] for c in (self.config, model.config)]
        values.append(("height and width of the positions' grid", places[0], places[1]))
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
            # Copy through NumPy: on JAX, training donates arrays, so two models must not share them.
            mine[name].assign(backend.to_numpy(theirs[name]))
        return [name for name in mine if name not in copied]

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Predict as `keras.Model.predict` does, on videos or a data set of them."""
        # Check first: on JAX, an error inside `predict` loses the weights.
        if hasattr(x, "shape"):
            check_video(x, self.config)
        return super().predict(x, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "pooling": self.pooling,
            "remat": self.remat,
        }


@keras.saving.register_keras_serializable(package="vmae_keras")
class VideoEncoder(Backbone):
    """Encoder of videos: (B, T, H, W, C), uint8 or float in [0, 1] -> features in the compute dtype.

    Args:
        config: Sizes and options, a `VideoMAEConfig` or its dict. The decoder's are not used.
        pooling: None returns all tokens after the pretrained model's encoder norm, (B, N, D), or
            (B, 1 + N, D) with the class token first. "mean" returns `fc_norm` of the mean of the N
            tokens, (B, D). "first" returns the first token after the norm, (B, D), which is the class
            token if there is one.
        remat: Recompute the blocks in the backward pass. Saves memory and takes about a third more time.
        fill: Function called with each block as soon as it is built, to set its weights. Kernels are zeros
            until then, which are faster to make than drawn values. None draws them.

    Raises:
        ValueError: The pooling is unknown, or the shape of a video does not fit.

    Source: official `modeling_pretrain.py`, `modeling_finetune.py`; clauses ENC-*, FT-1, FT-2, IMAGE-3.

    Example:
        from vmae_keras import VideoEncoder, read_clip

        encoder = VideoEncoder.from_preset("pretrained")
        c = encoder.config
        clip = read_clip("clip.mp4", frames=c.frames, size=(c.height, c.width))
        features = encoder.predict(clip[None])  # (1, N, D)
    """

    kind = "encoder"  # see `Preset`

    def __init__(
        self,
        config: VideoMAEConfig | dict,
        *,
        pooling: str | None = None,
        remat: bool = False,
        fill: Fill | None = None,
        name: str = "video_encoder",
        **kwargs: Any,
    ) -> None:
        super().__init__(config, pooling=pooling, remat=remat, fill=fill, name=name, **kwargs)
        self.build()

    def call(self, video: AnyTensor, training: bool = False) -> AnyTensor:
        """Return features: (B, T, H, W, C) -> (B, N, D), or (B, D) with pooling."""
        return self.features(video, training=training)

    @staticmethod
    def preset_arguments(
        stored: Stored, config: VideoMAEConfig, arguments: dict[str, Any]
    ) -> tuple[VideoMAEConfig, dict[str, Any], tuple[str, ...]]:
        """Return the configuration, arguments and weights to leave fresh for `Preset.from_preset`."""
        arguments = {"pooling": stored.pooling, **arguments}
        if arguments["pooling"] is None and "encoder/norm/gamma" not in stored.tensors:
            config = config.replace(
                encoder_norm=False
            )  # classifiers with mean pooling lack the norm
        return config, arguments, ()
