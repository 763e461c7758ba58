"""VideoMAE V1 and V2: clips -> tubelets -> encoder -> decoder -> loss, in the papers' order."""

from typing import Any

import keras
import numpy as np
from keras import ops

from vmae_keras import backend
from vmae_keras.backend import AnyTensor
from vmae_keras.config import VideoMAEConfig
from vmae_keras.initializers import Fill, TruncatedNormal, torch_linear_kernel
from vmae_keras.layers import Transformer, TubeletEmbedding
from vmae_keras.positions import fixed_positions
from vmae_keras.presets import Preset
from vmae_keras.target import compute_target
from vmae_keras.tubelets import check_video, cut_tubelets, take
from vmae_keras.weights.stored_model import Stored
from vmae_keras.weights.tensor_files import WeightsError


@keras.saving.register_keras_serializable(package="vmae_keras")
class VideoMAE(Preset):
    """Masked autoencoder of video with a built-in loss: call `compile(optimizer)` and `fit(batches)`.

    A batch is a dict:

    - `video`: (B, T, H, W, C), uint8 or float in [0, 1].
    - `visible`: int32 (B, V), sorted ids of the tokens that the encoder sees.
    - `decoded`: int32 (B, M), sorted ids of the tokens to predict. In V1 these are the masked tokens, in
      V2 those that the decoder mask keeps.
    - `weight`: float32 (B, M), optional. 1 where a decoded token is hidden from the encoder, else 0.
      Derived from the ids if absent.

    `model(batch)` and `predict` return the predictions of the decoded tokens, (B, M, P).

    Args:
        config: Sizes and options, a `VideoMAEConfig` or its dict.
        remat: Recompute the blocks in the backward pass. Saves memory and takes about a third more time.
        fill: Function called with each block as soon as it is built, to set its weights. Kernels are zeros
            until then, which are faster to make than drawn values. None draws them.

    Raises:
        ValueError: A batch lacks a key, or its shapes or dtypes do not fit.

    Source: VideoMAE section 3, VideoMAE V2 section 3, MAE; clauses EMBED-*, ENC-*, DEC-*, DUAL-*, LOSS-*,
    IMAGE-*.

    Example:
        import numpy as np
        from vmae_keras import VideoMAE, VideoMAEConfig, masks

        config = VideoMAEConfig.variant("tiny")
        ids = masks.pretraining(config.grid, np.random.default_rng(0), ratio=0.75)
        batch = {name: each[None] for name, each in ids.items()}
        batch["video"] = np.zeros((1, config.frames, config.height, config.width, 3), "uint8")
        prediction = VideoMAE(config).predict(batch)  # (1, M, P)
    """

    kind = "pretraining"  # see `Preset`

    def __init__(
        self,
        config: VideoMAEConfig | dict,
        *,
        remat: bool = False,
        fill: Fill | None = None,
        name: str = "video_mae",
        **kwargs: Any,
    ) -> None:
        # Float videos must not be rounded to half precision before they are normalised.
        super().__init__(name=name, autocast=False, **kwargs)
        self.config = config if isinstance(config, VideoMAEConfig) else VideoMAEConfig(**config)
        self.remat = remat
        c, dtype = self.config, self.dtype_policy
        self.tubelet_embedding = TubeletEmbedding(c, fill=fill, dtype=dtype)
        options = {"remat": remat, "fill": fill, "dtype": dtype}
        self.encoder = Transformer(c.encoder_stack(), name="encoder", **options)
        self.bridge = keras.layers.Dense(
            c.decoder_dim,
            use_bias=c.bridge_bias,
            kernel_initializer=torch_linear_kernel(fill),
            dtype=dtype,
            name="bridge",
        )
        self.decoder = Transformer(c.decoder_stack(), name="decoder", **options)
        self.head = keras.layers.Dense(c.tubelet_size, dtype=dtype, name="head")
        self.build()

    def build(self, input_shape: tuple | None = None) -> None:
        """Create the weights. The constructor calls this, since all sizes are known."""
        if self.built:
            return
        c = self.config
        self.mask_token = self.add_weight(
            name="mask_token", shape=(1, 1, c.decoder_dim), initializer=TruncatedNormal(0.02)
        )
        self.tubelet_embedding.build()
        self.encoder.build((None, None, c.dim))
        self.bridge.build((None, None, c.dim))
        self.decoder.build((None, None, c.decoder_dim))
        self.head.build((None, None, c.decoder_dim))
        self.built = True

    def call(self, batch: dict[str, AnyTensor], training: bool = False) -> AnyTensor:
        """Return the predictions of the decoded tokens: dict -> (B, M, P)."""
        self.check(batch)
        visible, decoded = (ops.cast(batch[key], "int32") for key in ("visible", "decoded"))
        c = self.config
        position = ops.convert_to_tensor(fixed_positions(c, c.decoder_dim), self.compute_dtype)
        tokens = take(cut_tubelets(batch["video"], c.tubelet), visible)  # (B, V, P)
        seen = self.encode(tokens, visible, training=training)  # (B, V, D)
        places = ops.take(position, visible, axis=0)
        if c.class_token:  # visible too, but without a position
            places = ops.pad(places, ((0, 0), (1, 0), (0, 0)))
        known = self.bridge(seen) + places  # (B, V, Dd)
        mask_token = ops.cast(self.mask_token, self.compute_dtype)
        query = mask_token + ops.take(position, decoded, axis=0)  # (B, M, Dd)
        both = ops.concatenate([known, query], axis=1)  # (B, V + M, Dd)
        return self.head(self.decoder(both, last=decoded.shape[1], training=training))

    def encode(self, tokens: AnyTensor, ids: AnyTensor, training: bool = False) -> AnyTensor:
        """Encode tubelets (B, V, P) of any dtype with ids (B, V) -> features (B, V, D).

        With a class token, its feature comes first: (B, 1 + V, D).
        """
        return self.encoder(self.tubelet_embedding(tokens, ids), training=training)

    def target(self, batch: dict[str, AnyTensor]) -> AnyTensor:
        """Return the target of `call`'s predictions: dict -> float32 (B, M, P)."""
        tokens = cut_tubelets(batch["video"], self.config.tubelet)
        decoded = ops.cast(batch["decoded"], "int32")
        return compute_target(take(tokens, decoded), self.config)

    def weight(self, batch: dict[str, AnyTensor]) -> AnyTensor:
        """Return the loss weights: dict -> float32 (B, M), 1 where a decoded token is hidden, else 0."""
        if "weight" in batch:
            return ops.cast(batch["weight"], "float32")
        visible, decoded = (ops.cast(batch[key], "int32") for key in ("visible", "decoded"))
        seen = ops.any(ops.equal(decoded[:, :, None], visible[:, None, :]), axis=-1)
        return 1.0 - ops.cast(seen, "float32")

    def compile(self, optimizer: Any = "adamw", loss: Any = None, **kwargs: Any) -> None:
        """Compile as `keras.Model.compile` does, with the papers' mean squared error over hidden tokens.

        The loss is sum(weight * error) / sum(weight) over the batch. Clauses LOSS-1, LOSS-2.
        """
        loss = loss or keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> AnyTensor:
        """Return the loss of a batch dict `x`, which also provides targets and weights.

        `y` and `sample_weight` are ignored. A replica's loss is scaled such that the mean over replicas is
        the loss of the global batch. Clause SHARD-4.
        """
        weight = self.weight(x)
        loss = super().compute_loss(
            x=x, y=self.target(x), y_pred=y_pred, sample_weight=weight, training=training
        )
        return loss * backend.relative_to_replicas(ops.sum(weight))

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Predict as `keras.Model.predict` does, on a batch dict or a data set of them: (B, M, P)."""
        # Check first: on JAX, an error inside `predict` loses the weights.
        if isinstance(x, dict):
            self.check(x)
        return super().predict(x, *args, **kwargs)

    def check(self, batch: dict[str, AnyTensor]) -> None:
        """Raise ValueError if a batch does not fit the model."""
        missing = [key for key in ("video", "visible", "decoded") if key not in batch]
        if missing:
            raise ValueError(
                "A batch needs the keys `video`, `visible` and `decoded`. "
                f"Received: {sorted(batch)}. Add {missing}."
            )
        check_video(batch["video"], self.config)
        for key in ("visible", "decoded"):
            ids = batch[key]
            if len(ids.shape) != 2 or "int" not in str(ids.dtype):
                raise ValueError(
                    f"`{key}` must be token ids: integers of shape (batch, count). Received: "
                    f"shape={tuple(ids.shape)}, dtype={ids.dtype}. See `vmae_keras.masks`."
                )
        if "weight" in batch and len(batch["weight"].shape) != 2:
            raise ValueError(
                "`weight` must have one number per decoded token, shape (batch, count). "
                f"Received: shape={tuple(batch['weight'].shape)}. Leave it out to have it derived."
            )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict(), "remat": self.remat}

    @staticmethod
    def preset_arguments(
        stored: Stored, config: VideoMAEConfig, arguments: dict[str, Any]
    ) -> tuple[VideoMAEConfig, dict[str, Any], tuple[str, ...]]:
        """Return the configuration, arguments and weights to leave fresh for `Preset.from_preset`."""
        if stored.kind != "pretraining":
            raise WeightsError(
                f"{stored.source} has no decoder: it holds a model of the kind {stored.kind!r}. Load it "
                "with VideoEncoder or VideoClassifier, or with `vmae_keras.load`."
            )
        return config, arguments, ()
