"""Distillation: train a student to match a teacher on the same clips, from files to a run folder."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from vmae_keras import backend
from vmae_keras.backend import AnyTensor
from vmae_keras.classifier import VideoClassifier
from vmae_keras.config import VideoMAEConfig
from vmae_keras.data.files import VideoFile
from vmae_keras.data.fine_tuning import centre_clips, fine_tuning_clips
from vmae_keras.encoder import VideoEncoder
from vmae_keras.recipes.distillation import DistillationRecipe
from vmae_keras.runs.settings import DistillationSettings
from vmae_keras.training import loop
from vmae_keras.training.fine_tuning import augmented_batches, classifier
from vmae_keras.training.optimizer import build_optimizer
from vmae_keras.training.session import Session

EPSILON = 1e-6  # in the normalisation of features


class SoftenedCrossentropy(keras.losses.Loss):
    """T^2 times the cross-entropy of the softmax of logits / T. Clause DISTILL-1."""

    def __init__(
        self, temperature: float, name: str = "softened_crossentropy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, dtype="float32", **kwargs)
        self.temperature = temperature

    def call(self, target: AnyTensor, logits: AnyTensor) -> AnyTensor:
        """Return the loss of each clip: (B, K), (B, K) -> (B,)."""
        entropy = ops.categorical_crossentropy(target, logits / self.temperature, from_logits=True)
        return self.temperature**2 * entropy


def load_teacher(
    preset: str, config: VideoMAEConfig, recipe: DistillationRecipe
) -> VideoClassifier | VideoEncoder:
    """Return the teacher for clips of `config`'s size: a `VideoClassifier`, or an encoder with pooling.

    Raises:
        WeightsError, HubError: The preset cannot be loaded; see `Preset.from_preset`.
    """
    clip: dict[str, Any] = {"frames": config.frames, "height": config.height, "width": config.width}
    if recipe.match == "classes":
        return VideoClassifier.from_preset(preset, dtype=recipe.precision, **clip)
    return VideoEncoder.from_preset(preset, pooling="mean", dtype=recipe.precision, **clip)


def answers(teacher: keras.Model, videos: np.ndarray, recipe: DistillationRecipe) -> np.ndarray:
    """Return the student's targets: clips (B, T, H, W, C) -> float32.

    The targets are probabilities (B, K), or features (B, D) normalised to mean 0 and variance 1 for each
    clip. Clauses DISTILL-1, DISTILL-2.
    """
    out = backend.predict(teacher, videos)
    if recipe.match == "features":
        centred = out - out.mean(axis=-1, keepdims=True)
        return centred / np.sqrt(out.var(axis=-1, keepdims=True) + EPSILON)
    out = out / recipe.temperature
    out = np.exp(out - out.max(axis=-1, keepdims=True))
    return out / out.sum(axis=-1, keepdims=True)


def build(
    settings: DistillationSettings, steps_per_epoch: int, restored: bool = False
) -> tuple[VideoClassifier, Callable[[int], float]]:
    """Return the compiled student and its learning-rate schedule; see `fine_tuning.build`."""
    recipe = settings.recipe
    student = classifier(settings, restored)
    optimizer, schedule = build_optimizer(recipe, steps_per_epoch, recipe.layer_decay)
    if recipe.match == "classes":
        loss = SoftenedCrossentropy(recipe.temperature)
        # The accuracy is the agreement with the teacher.
        metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    else:
        loss, metrics = keras.losses.MeanSquaredError(dtype="float32"), []
    student.compile(optimizer, loss, metrics=metrics)
    student.optimizer.build(student.trainable_variables)
    return student, schedule


def distill(session: Session[DistillationSettings]) -> loop.Outcome:
    """Train until the recipe's end or an interrupt, resuming from the run's last checkpoint.

    Errors are those of `pretrain`, plus errors of loading the teacher and the start.
    """
    settings, devices = session.settings, session.devices
    recipe = settings.recipe
    with devices.local():
        teacher = load_teacher(settings.teacher, settings.config, recipe)
    clips = fine_tuning_clips(settings.config, 1, **recipe.clip_options())
    # Labels are not used, so all videos get the same one.
    alike = [VideoFile(file.path, "") for file in session.training]
    augmented = augmented_batches(session, alike, [""])

    def batches(first: int) -> Iterator[tuple]:
        return ((videos, answer(videos)) for videos, _ in augmented(first))

    def answer(videos: np.ndarray) -> np.ndarray:
        with devices.local():
            return answers(teacher, videos, recipe)

    held_out = session.held_out
    validation = centre_clips(held_out, [0] * len(held_out), clips, session.skipped)
    if validation is not None:
        size = recipe.batch_size
        parts = [validation[0][i : i + size] for i in range(0, len(validation[0]), size)]
        validation = (validation[0], np.concatenate([answer(part) for part in parts]))
    with devices.scope():
        restored = session.run.has_checkpoint()
        student, schedule = build(settings, session.steps_per_epoch, restored)
        return loop.train(session, student, schedule, batches, validation)
