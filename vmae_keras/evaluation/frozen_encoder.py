"""A frozen encoder for features and probes, with mean pooling where the encoder has none."""

import math
from pathlib import Path
from typing import Self

import keras
from keras import ops

from vmae_keras.backend import AnyTensor
from vmae_keras.encoder import VideoEncoder


class FrozenEncoder(keras.Model):
    """A map from videos (B, T, H, W, C) to float32 features (B, D), or tokens (B, N, D).

    It always runs in inference mode.

    Args:
        encoder: A `VideoEncoder`.
        pooling: "mean", "first", or None for tokens. If the encoder itself pools by the mean, that is used,
            after `fc_norm`. Otherwise it is the mean of the tokens after the final norm, without a class
            token.

    Raises:
        ValueError: The encoder has another pooling.

    Source: clause FEATURE-4.
    """

    def __init__(self, encoder: VideoEncoder, pooling: str | None = "mean") -> None:
        if encoder.pooling != pooling and (encoder.pooling, pooling) != (None, "mean"):
            raise ValueError(
                f"This encoder gives no such features. Received: pooling={pooling!r}, the encoder's is "
                f"{encoder.pooling!r}. Build it with the pooling wanted, or with pooling=None."
            )
        super().__init__(name="frozen_encoder", autocast=False, dtype=encoder.dtype_policy)
        self.encoder, self.pooling, self.config = encoder, pooling, encoder.config
        self.built = True

    @classmethod
    def from_preset(
        cls, preset: str | Path, pooling: str | None = "mean", load_weights: bool = True
    ) -> Self:
        """Load the encoder of a run, a preset or a file. Raise the errors of `VideoEncoder.from_preset`.

        Its weights are not trainable.
        """
        given = {} if pooling == "mean" else {"pooling": pooling}
        encoder = VideoEncoder.from_preset(preset, load_weights=load_weights, **given)
        if pooling == "mean" and encoder.pooling == "first":
            encoder = VideoEncoder.from_preset(preset, load_weights=load_weights, pooling=None)
        encoder.trainable = False
        return cls(encoder, pooling)

    @classmethod
    def of(cls, encoder: "VideoEncoder | FrozenEncoder", pooling: str | None) -> "FrozenEncoder":
        """Return an encoder with a pooling; one that is frozen already keeps its own."""
        return encoder if isinstance(encoder, cls) else cls(encoder, pooling)

    def call(self, video: AnyTensor, training: bool = False) -> AnyTensor:
        """Map (B, T, H, W, C) to (B, D), or to (B, N, D) without pooling."""
        x = ops.cast(self.encoder(video, training=False), "float32")
        if self.pooling == self.encoder.pooling:
            return x
        return ops.mean(x[:, -math.prod(self.config.grid) :], axis=1)
