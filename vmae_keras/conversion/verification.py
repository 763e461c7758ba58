"""Verification of a converted model against its source, each in its own framework."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from vmae_keras import masks
from vmae_keras.config import VideoMAEConfig
from vmae_keras.conversion.weight_files import is_keras_file
from vmae_keras.model import VideoMAE
from vmae_keras.presets import by_path, load
from vmae_keras.runs.model_files import read_stored
from vmae_keras.weights.keras_files import is_preset
from vmae_keras.weights.names import HUGGING_FACE, VIT
from vmae_keras.weights.source import locate

# A share of the largest output. Causes of differences are float32 rounding through dozens of blocks, and
# epsilons of 1e-5 instead of 1e-6.
TOLERANCE = 1e-4
_CLIPS = 2
_TRANSFORMERS = {
    "pretraining": "VideoMAEForPreTraining",
    "classifier": "VideoMAEForVideoClassification",
    "encoder": "VideoMAEModel",
}


@dataclass(frozen=True)
class Row:
    """A comparison with the source as this library computes it.

    Args:
        name: Description of the comparison.
        difference: Relative difference; None if the comparison was not run.
        reason: Reason why it was not run.
    """

    name: str
    difference: float | None
    reason: str = ""

    @property
    def passes(self) -> bool:
        return self.difference is None or self.difference <= TOLERANCE


def verify(source: str, out: Path, **changes: Any) -> list[Row]:
    """Run source and result on random clips, in this library and, for Hugging Face models, in transformers.

    Differences are relative to the largest output or to the loss. For weights, they are shares that differ.

    Args:
        source: Source of the conversion.
        out: Result of the conversion.
        changes: Changes given to the conversion; see `Preset.from_preset`.
    """
    ours = load(source, **changes)
    # A folder stores these settings; an official file does not.
    c = ours.config
    unsaid = {
        name: getattr(c, name)
        for name in (
            "frames",
            "height",
            "width",
            "position_grid",
            "heads",
            "decoder_heads",
            "norm_pix",
            "mean",
            "std",
        )
    }
    again = load(out, **({} if out.is_dir() else unsaid))
    batch = _batch(ours.config)
    outputs, loss = _run(ours, batch)
    rows = [
        Row("weights, read again", _differing(ours, again)),
        *_rows("result, read again", _run(again, batch), outputs, loss),
    ]
    for what, place in (("source", locate(source)), ("result", out)):
        rows += _in_transformers(what, place, ours, batch, outputs, loss)
    return rows


def _in_transformers(
    what: str,
    place: Path,
    ours: keras.Model,
    batch: dict[str, np.ndarray],
    outputs: np.ndarray,
    loss: float | None,
) -> list[Row]:
    if is_keras_file(place) or is_preset(place) or (place / "run.json").is_file():
        return []  # this library's own format
    origin = read_stored(place, {}).origin if place.is_dir() else None
    if origin != HUGGING_FACE:
        image = origin == VIT
        why = "image models are not run there" if image else "the official code is no package"
        return [Row(f"{what}, in its own framework", None, why)]
    name = f"{what}, in transformers"
    if missing := [p for p in ("transformers", "torch") if importlib.util.find_spec(p) is None]:
        return [Row(name, None, f"not installed: {', '.join(missing)}")]
    return _rows(name, _run_transformers(place, ours, batch), outputs, loss)


def _rows(
    what: str, found: tuple[np.ndarray, float | None], outputs: np.ndarray, loss: float | None
) -> list[Row]:
    got, its_loss = found
    rows = [Row(f"{what}: outputs", float(np.abs(got - outputs).max() / np.abs(outputs).max()))]
    if its_loss is not None and loss is not None:
        rows.append(Row(f"{what}: loss", abs(its_loss - loss) / abs(loss)))
    return rows


def _batch(config: VideoMAEConfig) -> dict[str, np.ndarray]:
    """Draw random clips, and masks that leave a quarter of the tokens visible."""
    generator = np.random.default_rng(0)
    ids = [
        masks.pretraining(config.grid, generator, kind="random", ratio=0.75) for _ in range(_CLIPS)
    ]
    batch = {name: np.stack([clip[name] for clip in ids]) for name in ids[0]}
    shape = (_CLIPS, config.frames, config.height, config.width, config.channels)
    return {**batch, "video": generator.integers(0, 256, shape, dtype=np.uint8)}


def _run(model: keras.Model, batch: dict[str, np.ndarray]) -> tuple[np.ndarray, float | None]:
    if not isinstance(model, VideoMAE):
        return model.predict(batch["video"], verbose=0), None
    outputs = model.predict(batch, verbose=0)
    model.compile()
    loss = model.compute_loss(batch, y_pred=keras.ops.convert_to_tensor(outputs))
    return outputs, float(keras.ops.convert_to_numpy(loss))


def _run_transformers(
    folder: Path, ours: keras.Model, batch: dict[str, np.ndarray]
) -> tuple[np.ndarray, float | None]:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    c, kind = ours.config, read_stored(folder, {}).kind
    model = getattr(transformers, _TRANSFORMERS[kind]).from_pretrained(folder).eval()
    normal = (batch["video"] / 255 - np.array(c.mean)) / np.array(c.std)
    pixels = torch.from_numpy(normal.transpose(0, 1, 4, 2, 3).astype("float32"))
    with torch.no_grad():
        if kind != "pretraining":
            return model(pixels)[0].numpy(), None
        masked = np.ones((_CLIPS, c.num_tokens), bool)
        np.put_along_axis(masked, batch["visible"], False, axis=1)
        found = model(pixels, bool_masked_pos=torch.from_numpy(masked))
        return found.logits.numpy(), float(found.loss)


def _differing(one: keras.Model, other: keras.Model) -> float:
    """Return the share of weights that are not bit-identical."""
    mine, theirs = by_path(one), by_path(other)
    different = total = 0
    for path, variable in mine.items():
        values = [keras.ops.convert_to_numpy(each.value) for each in (variable, theirs[path])]
        different += int((values[0] != values[1]).sum())
        total += values[0].size
    return different / total
