"""Fine-tuning: train a classifier, from labelled files to a run folder."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from vmae_keras import backend
from vmae_keras.classifier import VideoClassifier
from vmae_keras.data.files import VideoFile
from vmae_keras.data.fine_tuning import centre_clips, fine_tuning_clips, fine_tuning_dataset
from vmae_keras.data.labelled import class_numbers
from vmae_keras.recipes.fine_tuning import FineTuningRecipe
from vmae_keras.runs.settings import DistillationSettings, FineTuningSettings
from vmae_keras.training import loop
from vmae_keras.training.optimizer import build_optimizer
from vmae_keras.training.session import Session
from vmae_keras.weights.classes import match_classes


def classifier(
    settings: FineTuningSettings | DistillationSettings, restored: bool = False
) -> VideoClassifier:
    """Return the model to train. Weights that do not come from a preset are drawn with the run's seed.

    Args:
        restored: Whether a checkpoint will be restored, so that the preset need not be read.

    Raises:
        WeightsError, HubError: The preset cannot be loaded; see `Preset.from_preset`.
    """
    recipe = settings.recipe
    backend.set_seed(settings.seed)
    arguments: dict[str, Any] = {
        "classes": settings.classes,
        "labels": settings.labels,
        "pooling": recipe.pooling,
        "head_dropout": recipe.head_dropout,
        "init_scale": recipe.init_scale,
        "remat": recipe.remat,
        "dtype": recipe.precision,
    }
    if settings.start and not restored:
        model = _started(settings, settings.start, arguments)
    else:
        model = VideoClassifier(settings.config, **arguments)
    model.trainable = True  # the start may have been saved with frozen weights
    _choose_trained(model, recipe)
    return model


def build(
    settings: FineTuningSettings, steps_per_epoch: int, restored: bool = False
) -> tuple[VideoClassifier, Callable[[int], float]]:
    """Return the compiled classifier and its learning-rate schedule.

    Arguments and errors are those of `classifier`.
    """
    recipe = settings.recipe
    model = classifier(settings, restored)
    optimizer, schedule = build_optimizer(recipe, steps_per_epoch, recipe.layer_decay)
    model.compile(
        optimizer,
        # In half precision, the loss of confident predictions would be rounded.
        keras.losses.CategoricalCrossentropy(from_logits=True, dtype="float32"),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)
    return model, schedule


def _started(
    settings: FineTuningSettings | DistillationSettings, start: str, arguments: dict[str, Any]
) -> VideoClassifier:
    config = settings.config.to_dict()
    if settings.head == "new":  # always the case in distillation
        return VideoClassifier.from_preset(start, new_head=True, **arguments, **config)
    whole = {name: arguments[name] for name in ("head_dropout", "remat", "dtype")}
    model = VideoClassifier.from_preset(start, **whole, **config)
    labels = settings.labels or ()
    return model.with_classes(match_classes(model.labels or (), labels), labels)


def _choose_trained(model: VideoClassifier, recipe: FineTuningRecipe) -> None:
    """Freeze the weights that the recipe does not train. Clauses FT-8, FT-9."""
    if not recipe.freeze_encoder and recipe.lora_rank is None:
        return
    for weight in model.weights:
        weight.trainable = (
            "/tubelet_embedding/" not in weight.path and "/encoder/" not in weight.path
        )
    if recipe.lora_rank:
        for block in model.encoder.blocks:
            attention, mlp = block.attention, block.mlp
            for dense in (attention.qkv, attention.projection, mlp.hidden, mlp.output_):
                dense.enable_lora(recipe.lora_rank)


def augmented_batches(
    session: Session[FineTuningSettings] | Session[DistillationSettings],
    files: Sequence[VideoFile],
    labels: Sequence[str],
) -> Callable[[int], Iterable[tuple]]:
    """Return a function step -> this process's parts of the augmented batches from that step on.

    Args:
        files: Files to train on.
        labels: Names of their classes.
    """
    recipe, devices = session.settings.recipe, session.devices
    return lambda first: fine_tuning_dataset(
        files,
        session.settings.config,
        batch_size=recipe.batch_size,
        labels=labels,
        repeats=recipe.repeats,
        seed=session.settings.seed,
        start_step=first,
        workers=session.workers,
        skipped=session.skipped,
        part=devices.process,
        parts=devices.processes,
        **recipe.clip_options(),
    )


def finetune(session: Session[FineTuningSettings]) -> loop.Outcome:
    """Train until the recipe's end or an interrupt, resuming from the run's last checkpoint.

    Errors are those of `pretrain`, plus errors of loading the start.
    """
    settings, labels = session.settings, session.settings.labels
    clips = fine_tuning_clips(settings.config, len(labels), **settings.recipe.clip_options())
    held_out = session.held_out
    validation = centre_clips(held_out, class_numbers(held_out, labels), clips, session.skipped)
    batches = augmented_batches(session, session.training, labels)
    with session.devices.scope():
        restored = session.run.has_checkpoint()
        model, schedule = build(settings, session.steps_per_epoch, restored)
        return loop.train(session, model, schedule, batches, validation)
