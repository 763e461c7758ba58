"""Runs of a stage with a stub model, which record what reaches the model and the library's seams.

Everything between a recipe and `fit` is the library's own code. Nothing is computed, so a run takes
milliseconds. Values are recorded by seam and argument, as in "AdamW.beta_1", and those of dataclasses also
by field, as in "dataset.clips.mixing.mixup".
"""

import dataclasses
import inspect
import itertools
from types import SimpleNamespace
from unittest import mock

import av
import keras
import numpy as np

from vmae_keras import VideoMAEConfig, presets
from vmae_keras.distribution import Devices
from vmae_keras.runs.run import Run
from vmae_keras.runs.settings import DistillationSettings, FineTuningSettings, PretrainingSettings
from vmae_keras.training import (
    distillation,
    fine_tuning,
    loop,
    new_run,
    optimizer,
    pretraining,
    session,
)
from vmae_keras.training.display import Display
from vmae_keras.training.session import Session

# Training module for each kind of settings, and its model class.
STAGES = {
    PretrainingSettings: (pretraining, "VideoMAE"),
    FineTuningSettings: (fine_tuning, "VideoClassifier"),
    DistillationSettings: (distillation, "VideoClassifier"),
}
# Training function of each of these modules.
TRAIN = {
    pretraining: pretraining.pretrain,
    fine_tuning: fine_tuning.finetune,
    distillation: distillation.distill,
}
LABELS = ("a", "b", "c")
PATHS = ("tubelet_embedding/kernel", "encoder/block_0/norm1/gamma", "fc_norm/gamma", "head/kernel")


class SecondOfTwo(Devices):
    """Second of two processes that train together. The first contributes the same values."""

    def __init__(self):
        super().__init__(count=2, process=1, processes=2)

    def sum(self, values):
        return 2 * np.asarray(values, "float32")


class Seen(dict):
    """Recorded values."""

    def note(self, seam, arguments):
        for name, value in arguments.items():
            self._note(f"{seam}.{name}", value)

    def _note(self, key, value):
        self[key] = value
        if dataclasses.is_dataclass(value):
            for name, part in vars(value).items():
                self._note(f"{key}.{name}", part)

    def spy(self, patch, owner, name, seam=None, gives=None):
        """Record the arguments of `owner.name`, which still runs unless `gives` computes its result."""
        original = getattr(owner, name)
        signature = inspect.signature(original)

        def noted(*arguments, **named):
            bound = signature.bind(*arguments, **named)
            bound.apply_defaults()
            given = dict(bound.arguments)
            for parameter in signature.parameters.values():
                if parameter.kind is parameter.VAR_KEYWORD:
                    given |= given.pop(parameter.name)
            self.note(seam or name, given)
            return gives(given) if gives else original(*arguments, **named)

        patch.setattr(owner, name, noted)


def stand_in(seen, batches):
    """Return a stub model that records how it is compiled and the first batches of its training data."""
    model = mock.MagicMock()
    model.weights = [SimpleNamespace(path=f"model/{path}", trainable=True) for path in PATHS]
    model.encoder.blocks = [mock.MagicMock()]
    model.compile.side_effect = lambda optimizer, loss=None, metrics=(): seen.note(
        "compile", {"optimizer": optimizer, "loss": loss, "metrics": metrics}
    )
    model.evaluate.return_value = {"loss": 1.0, "accuracy": 0.5}

    def fit(x, **named):
        seen.note("fit", {**named, "batches": list(itertools.islice(x, batches))})

    model.fit.side_effect = fit
    return model


def says(videos):
    """Return the outputs (B, 3) of a stub teacher for videos (B, T, H, W, 3): their colours."""
    return np.log([[1.0, 2.0, 5.0]]).astype("float32") + np.mean(videos, (1, 2, 3), "float32")


def begun(patch, stage, data, folder, model, recipe, seed):
    """Begin a run: return the settings of a stage from values of model and recipe in `--set` form.

    Args:
        data: Folder that holds one folder for each label.
    """
    given = {
        "variant": "tiny",
        "changes": [f"{key}={value}" for key, value in {**model, **recipe}.items()],
        "seed": seed,
        "backend": keras.backend.backend(),
    }
    made = Run(folder)
    if stage == "pretraining":
        return new_run.prepare_pretraining(made, str(data), **given)[0]
    if stage == "fine-tuning":
        return new_run.prepare_fine_tuning(made, str(data), **given)[0]
    patch.setattr(presets, "preset_head", lambda teacher: (3, LABELS, "mean"))
    patch.setattr(presets, "preset_config", lambda teacher: VideoMAEConfig(dim=768))
    return new_run.prepare_distillation(made, str(data), teacher="hf://a/teacher", **given)[0]


def run(
    patch, settings, folder, *, files=None, start=0, workers=0, devices=None, batches=1, data=None
) -> Seen:
    """Run a stage and return the recorded values.

    Args:
        patch: Pytest's `monkeypatch`.
        files: Files of a new run; None lists them.
        start: Step of the checkpoint to resume from; 0 for none.
        batches: Number of batches to take.
        data: Replacement for the data set, (batches, validation arrays), so that no video is read.
    """
    seen = Seen()
    stage, kind = STAGES[type(settings)]
    model = stand_in(seen, batches)
    maker = fine_tuning if stage is distillation else stage
    seen.spy(patch, maker, kind, "model", gives=lambda _: model)
    if stage is distillation:
        for each, name in (("VideoClassifier", "teacher"), ("VideoEncoder", "teacher")):
            loader = SimpleNamespace(from_preset=getattr(distillation, each).from_preset)
            seen.spy(patch, loader, "from_preset", name, gives=lambda _, each=each: each)
            patch.setattr(distillation, each, loader)
        seen.spy(patch, distillation, "SoftenedCrossentropy", "loss")
        seen.spy(patch, distillation.backend, "predict", gives=lambda given: says(given["batch"]))
    seen.spy(patch, stage.backend, "set_seed", gives=lambda _: None)
    for name in ("AdamW", "WarmupCosine"):
        seen.spy(patch, optimizer, name)
    seen.spy(patch, loop, "Progress")
    for name in ("hold_out", "generator"):
        seen.spy(patch, session, name)
    makers = {"dataset": "fine_tuning_dataset", "validation": "centre_clips"}
    if stage is pretraining:
        makers = {"dataset": "pretraining_dataset", "validation": "validation_dataset"}
    for (seam, name), given in zip(makers.items(), data or (None, None), strict=True):
        owner = maker if seam == "dataset" else stage
        seen.spy(patch, owner, name, seam, gives=given and (lambda _, given=given: given))
    if start:
        patch.setattr(Run, "has_checkpoint", lambda run: True)
        patch.setattr(loop.checkpoint_files, "latest", lambda folder: folder / "a checkpoint")
        patch.setattr(loop.checkpoint, "restore", lambda path, model: start)
    made = Run(folder)
    seen["outcome"] = TRAIN[stage](
        Session(settings, made, display(seen), files=files, workers=workers, devices=devices)
    )
    seen["trainable"] = tuple(
        path for path, weight in zip(PATHS, model.weights, strict=True) if weight.trainable
    )
    block = model.encoder.blocks[0]
    seen["lora_ranks"] = tuple(
        dense.enable_lora.call_args and dense.enable_lora.call_args.args[0]
        for dense in (
            block.attention.qkv,
            block.attention.projection,
            block.mlp.hidden,
            block.mlp.output_,
        )
    )
    return seen


def display(seen):
    """Return a silent display that records its initial values and its messages."""
    shown, seen["display.notes"] = mock.Mock(), []
    shown.note.side_effect = seen["display.notes"].append
    names = [*inspect.signature(Display.start).parameters][1:]
    shown.start.side_effect = lambda *given: seen.update(
        {f"display.{name}": value for name, value in zip(names, given, strict=True)}
    )
    return shown


def write_losslessly(path, frames):
    """Write uint8 frames (T, H, W, 3) losslessly."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_videos(folder, count, height=40):
    """Write that many videos, equally many of each label; return their frames in the order of the list."""
    made = []
    for number in range(count):
        path = folder / LABELS[number * len(LABELS) // count] / f"{number:02}.mkv"
        path.parent.mkdir(exist_ok=True)
        coarse = np.random.default_rng(number).integers(
            0, 256, (20, height // 4, 13, 3), dtype=np.uint8
        )
        made.append(coarse.repeat(4, axis=1).repeat(4, axis=2))
        write_losslessly(path, made[-1])
    return made
