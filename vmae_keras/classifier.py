"""Video classifier: the encoder with a head, for fine-tuning a pretrained VideoMAE."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from vmae_keras import backend
from vmae_keras.backend import AnyTensor
from vmae_keras.config import VideoMAEConfig
from vmae_keras.encoder import KERNEL_STD, Backbone
from vmae_keras.initializers import Fill, leave_zeros
from vmae_keras.presets import by_path
from vmae_keras.weights.stored_model import Stored
from vmae_keras.weights.tensor_files import WeightsError


@keras.saving.register_keras_serializable(package="vmae_keras")
class VideoClassifier(Backbone):
    """Classifier of videos: (B, T, H, W, C), uint8 or float in [0, 1] -> logits (B, K).

    The logits have the compute dtype.

    Args:
        config: Sizes and options, a `VideoMAEConfig` or its dict. The decoder's are not used.
        classes: Number of classes K.
        labels: Names of the K classes, or None if unknown.
        pooling: "mean" of all tokens, followed by `fc_norm`, or the "first" token after the encoder's norm.
        head_dropout: Dropout rate of the head's input.
        init_scale: Factor for the initial values of the head's kernel.
        remat: Recompute the blocks in the backward pass. Saves memory and takes about a third more time.
        fill: Function called with each block as soon as it is built, to set its weights. Kernels are zeros
            until then, which are faster to make than drawn values. None draws them.

    Raises:
        ValueError: The pooling is unknown, there is no class, the number of labels is not the number of
            classes, or the shape of a video does not fit.

    Source: official `VisionTransformer` of `modeling_finetune.py`; clauses FT-1 to FT-5.

    Example:
        import keras
        from vmae_keras import AdamW, VideoClassifier, VideoMAE

        model = VideoMAE.from_preset("pretrained")
        classifier = VideoClassifier(model.config.replace(drop_path=0.1), classes=400)
        classifier.load_encoder(model)
        classifier.compile(
            AdamW(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    """

    kind = "classifier"  # see `Preset`

    def __init__(
        self,
        config: VideoMAEConfig | dict,
        classes: int,
        *,
        labels: Sequence[str] | None = None,
        pooling: str = "mean",
        head_dropout: float = 0.0,
        init_scale: float = 0.001,
        remat: bool = False,
        fill: Fill | None = None,
        name: str = "video_classifier",
        **kwargs: Any,
    ) -> None:
        if pooling is None:
            raise ValueError("`pooling` must be 'mean' or 'first'. Received: pooling=None.")
        if labels is not None and len(labels) != classes:
            raise ValueError(
                f"`labels` must name each class. Received: {len(labels)} labels, classes={classes}."
            )
        super().__init__(config, pooling=pooling, remat=remat, fill=fill, name=name, **kwargs)
        self.classes, self.labels = classes, None if labels is None else tuple(labels)
        self.head_dropout, self.init_scale = head_dropout, init_scale
        dtype = self.dtype_policy
        if head_dropout:  # a unique name, so that a checkpoint can restore its state
            self.seed_generator = keras.random.SeedGenerator(name=f"{name}_head_dropout")
        self.head = keras.layers.Dense(
            classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=KERNEL_STD * init_scale),
            dtype=dtype,
            name="head",
        )
        self.build()

    def build(self, input_shape: tuple | None = None) -> None:
        """Create the weights. The constructor calls this, since all sizes are known."""
        if not self.built:
            self.head.build((None, self.config.dim))
            super().build()

    def call(self, video: AnyTensor, training: bool = False) -> AnyTensor:
        """Return logits: (B, T, H, W, C) -> (B, K)."""
        x = self.features(video, training=training)  # (B, D)
        if training and self.head_dropout:
            x = self._dropped(x)
        return self.head(x)

    def _dropped(self, x: AnyTensor) -> AnyTensor:
        """Apply dropout. Clause FT-3.

        `keras.random.dropout` would ignore the seed generator's state on PyTorch.
        """
        survive = 1.0 - self.head_dropout
        draw = backend.uniform_of_batch(ops.shape(x), axis=0, seed=self.seed_generator)
        return x * ops.cast(ops.cast(draw < survive, "float32") / survive, x.dtype)

    def with_classes(
        self, rows: Sequence[int] | np.ndarray, labels: Sequence[str] | None = None
    ) -> "VideoClassifier":
        """Return a classifier whose head is mapped to other classes, such as K710's to K400's.

        Args:
            rows: For each new class, the index of the class in this model whose weights it takes. See
                `vmae_keras.weights.classes.match_classes`.
            labels: Names of the new classes; None takes this model's.

        Raises:
            ValueError: An index is not a class of this model.

        Source: clause WEIGHT-7.
        """
        rows = np.asarray(rows)
        if rows.ndim != 1 or not len(rows) or rows.min() < 0 or rows.max() >= self.classes:
            raise ValueError(
                f"`rows` must be numbers of classes, 0 to {self.classes - 1}. Received: shape="
                f"{rows.shape}, {rows.min(initial=0)} to {rows.max(initial=0)}."
            )
        if labels is None and self.labels:
            labels = [self.labels[row] for row in rows]
        settings = {**self.get_config(), "classes": len(rows), "labels": labels}
        model = VideoClassifier(**settings, fill=leave_zeros)
        mine, new = by_path(self), by_path(model)
        for path, variable in new.items():
            value = backend.to_numpy(mine[path])  # on JAX, models must not share arrays
            variable.assign(value[..., rows] if path.startswith("head/") else value)
        return model

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "classes": self.classes,
            "labels": self.labels,
            "head_dropout": self.head_dropout,
            "init_scale": self.init_scale,
        }

    @staticmethod
    def preset_arguments(
        stored: Stored, config: VideoMAEConfig, arguments: dict[str, Any]
    ) -> tuple[VideoMAEConfig, dict[str, Any], tuple[str, ...]]:
        """Return the configuration, arguments and weights to leave fresh for `Preset.from_preset`."""
        arguments = dict(arguments)
        new_head = arguments.pop("new_head", False)
        labels = arguments.get("labels")
        classes = arguments.get("classes") or (len(labels) if labels else stored.classes)
        if classes is None:
            raise WeightsError(
                f"{stored.source} has no head: it holds a model of the kind {stored.kind!r}. Say how "
                "many classes the new head has: classes=..., or labels=[...]."
            )
        same_names = None in (labels, stored.labels) or tuple(labels or ()) == stored.labels
        keeps_head = classes == stored.classes and same_names and not new_head
        arguments = {"pooling": stored.pooling or "mean", **arguments, "classes": classes}
        if keeps_head:
            arguments.setdefault("labels", stored.labels)
        new: tuple[str, ...] = () if keeps_head else ("head/kernel", "head/bias")
        if "fc_norm/gamma" not in stored.tensors:
            new += ("fc_norm/gamma", "fc_norm/beta")
        return config, arguments, new
