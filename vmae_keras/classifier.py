"""The encoder with a head: clips -> logits, for fine-tuning a pretrained VideoMAE."""

import keras

from vmae_keras.encoder import KERNEL_STD, Backbone


@keras.saving.register_keras_serializable(package="vmae_keras")
class VideoClassifier(Backbone):
    """A video (B, T, H, W, C), uint8 or float in [0, 1], to logits (B, K) in the compute dtype.

        classifier = VideoClassifier(model.config.replace(drop_path=0.1), classes=400)
        classifier.load_encoder(model)  # of a pretrained `VideoMAE`
        classifier.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    Args:
        config: sizes and options, a `VideoMAEConfig` or its dict; the decoder's are not used.
        classes: K.
        labels: the names of the classes, K of them; None where they are not known.
        pooling: "mean" of all tokens before `fc_norm`, or the "first" token after the encoder's norm.
        head_dropout: share of the head's input that is dropped in training.
        init_scale: what the head's first kernel is multiplied with.
        remat: recompute the blocks in the backward pass: less memory, about a third more time.

    Raises:
        ValueError: an unknown pooling, no class, labels that are not one for each class, or a video
            whose shape does not fit.

    Source: official `VisionTransformer` of `modeling_finetune.py`; clauses FT-1 to FT-5.
    """

    def __init__(
        self, config, classes, *, labels=None, pooling="mean", head_dropout=0.0, init_scale=0.001,
        remat=False, name="video_classifier", **kwargs,
    ):  # fmt: skip
        if pooling is None:
            raise ValueError("`pooling` must be 'mean' or 'first'. Received: pooling=None.")
        if labels is not None and len(labels) != classes:
            raise ValueError(
                f"`labels` must name each class. Received: {len(labels)} labels, classes={classes}."
            )
        super().__init__(config, pooling=pooling, remat=remat, name=name, **kwargs)
        self.classes, self.labels = classes, None if labels is None else tuple(labels)
        self.head_dropout_rate, self.init_scale = head_dropout, init_scale
        dtype = self.dtype_policy
        self.head_dropout = keras.layers.Dropout(head_dropout, dtype=dtype, name="head_dropout")
        self.head = keras.layers.Dense(
            classes, kernel_initializer=keras.initializers.RandomNormal(stddev=KERNEL_STD * init_scale),
            dtype=dtype, name="head",
        )  # fmt: skip
        self.build()

    def build(self, input_shape=None):
        """All sizes are known: the weights exist as soon as the model does."""
        if not self.built:
            self.head.build((None, self.config.dim))
            super().build()

    def call(self, video, training=False):
        """(B, T, H, W, C) -> (B, K)"""
        x = self.features(video, training=training)  # (B, D)
        return self.head(self.head_dropout(x, training=training))

    def get_config(self):
        return {
            **super().get_config(), "classes": self.classes, "labels": self.labels,
            "head_dropout": self.head_dropout_rate, "init_scale": self.init_scale,
        }  # fmt: skip
