"""Export of a model to an artifact that is verified against it."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

import vmae_keras
from vmae_keras import backend
from vmae_keras.backend.internals import recorded
from vmae_keras.backend.worker_process import run_worker
from vmae_keras.export import formats
from vmae_keras.export.artifact import Artifact
from vmae_keras.export.card import write_card
from vmae_keras.export.comparison import (
    TOLERANCES,
    Comparison,
    InexactArtifact,
    compared,
    first_deviating,
    latencies,
)
from vmae_keras.export.contract import ArtifactError, Contract, check_format
from vmae_keras.export.samples import DRAWN, Sample, real_clips, sample, token_ids
from vmae_keras.export.serving import stages
from vmae_keras.presets import Preset, load
from vmae_keras.runs.run import Run
from vmae_keras.runs.settings import AnySettings, evaluation_views
from vmae_keras.variants import CLASSES

# Clips that int8's ranges are measured on; each takes about ten seconds with a ViT-S.
CALIBRATION = 8


def export_model(
    model: str | Path | Preset,
    out: str | Path,
    format: str,
    *,
    kind: str | None = None,
    quantize: str | None = None,
    dtype: str = "uint8",
    batch: int | None = None,
    frame_size: tuple[int, int] | None = None,
    videos: str | Path | None = None,
    clips: int = 8,
    tolerance: float | None = None,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Write a model as an artifact, run it in its own runtime, and compare it with the model.

    The artifact, README.md and comparison.json are moved into the folder `out` only at the end.

    Args:
        model: A model, or the path of one: a run or a preset; see `Preset.from_preset`.
        out: Folder for the artifact.
        format: "savedmodel", "litert", "onnx" or "openvino".
        kind: "pretraining", "encoder" or "classifier"; None for what the model is.
        quantize: "fp16" (LiteRT, OpenVINO), "int8-dynamic" or "int8" (LiteRT); None for float32.
        dtype: Dtype of the video: "uint8", or "float32" in [0, 1].
        batch: Number of clips in a batch; None for any number.
        frame_size: (height, width) of the input frames, which the graph resizes and crops. None for the
            model's own size.
        videos: Real clips for the comparison and for int8's ranges; see `list_videos`. None for the run's
            videos, or drawn clips if there are none.
        clips: Number of clips to compare on: half of them real, half of them noise.
        tolerance: Largest allowed difference, as a share of the largest output; None for 1e-4 in float32,
            .01 in fp16 and .1 in int8.
        say: Function that is called with a line before each step.

    Raises:
        ArtifactError: Packages are missing, the model's outputs are not finite, or the conversion failed.
            In the last case, errors.txt holds the converter's output.
        InexactArtifact: The outputs differ by more than the tolerance. The message names the first layer
            that does. The artifact is kept for inspection.
        ValueError: A setting does not fit.
        WeightsError, HubError: The path cannot be read.

    Source: clauses EXPORT-1 to EXPORT-6.

    Example:
        from vmae_keras import VideoClassifier, export_model

        classifier = VideoClassifier.from_preset("fine-tuned")
        comparison = export_model(classifier, "exported", format="onnx")
        print(comparison.largest)  # difference between artifact and model
    """
    check_format(format, quantize)
    formats.check_installed(format, writing=True)
    if clips < 2:
        raise ValueError(f"`clips` must be 2 or more. Received: clips={clips}.")
    say = say or (lambda line: None)
    source = model.name if isinstance(model, Preset) else str(model)
    say(f"reading {source}")
    exported, settings = _read(model, kind)
    contract = _contract(
        exported,
        settings,
        format=format,
        quantize=quantize,
        dtype=dtype,
        batch=batch,
        frame_size=frame_size,
        source=source,
    )
    real_count, calibration = (clips + 1) // 2, CALIBRATION if quantize == "int8" else 0
    origin, real = real_clips(videos, settings, contract, real_count + calibration, say)
    if calibration and origin == DRAWN:
        raise ArtifactError(
            "int8 measures its ranges on real clips, and there are none. Give some (--videos FOLDER), or "
            "use int8-dynamic, which measures nothing."
        )
    shape = (clips // 2, *real.shape[1:])
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    ids = token_ids(exported.config, settings, real_count) if exported.kind == "pretraining" else {}
    samples = [
        sample(origin, real[:real_count], ids, contract),
        sample("noise", noise, ids, contract),
    ]
    say(f"computing with {keras.backend.backend()}")
    wanted = [_outputs(exported, each) for each in samples]
    with tempfile.TemporaryDirectory() as folder:
        job, made = Path(folder), Path(folder) / "made"
        made.mkdir()
        exported.save_to_preset(job / "model")
        (job / "contract.json").write_text(contract.to_json(), "utf-8")
        if calibration:  # if there are enough, other clips than those to compare on
            measured = real[real_count:] if len(real) > real_count else real
            np.save(job / "clips.npy", contract.pixels(measured))
        path = made / formats.module(format).NAME
        say(f"writing {format} with {formats.BACKENDS[format]}")
        _write(contract, job, path, Path(out), say)
        say(f"comparing with what {format}'s own runtime computes")
        comparison, worst = _compared(exported, Artifact(path), samples, wanted, tolerance)
        comparison.save(made / "comparison.json")
        write_card(made / "README.md", path, contract, comparison)
        fault = ""
        if not comparison.passes:
            say("looking for the first layer that differs")
            fault = _first_layer(exported, contract, job, worst, comparison.tolerance, Path(out))
        _move(made, Path(out))
    if fault:
        raise InexactArtifact(
            f"The artifact differs from its model by {comparison.largest:.1e} of the largest output, more "
            f"than {comparison.tolerance:g}. {fault} {out} keeps it, to be looked at. Give a larger "
            "tolerance to allow that.",
            comparison,
        )
    return comparison


def _read(source: str | Path | Preset, kind: str | None) -> tuple[keras.Model, AnySettings | None]:
    """Return the model in float32, and its run's settings; None if it is not from a run."""
    if kind not in (None, *CLASSES):
        raise ValueError(f"`kind` must be one of {', '.join(CLASSES)}. Received: kind={kind!r}.")
    if isinstance(source, Preset):
        with tempfile.TemporaryDirectory() as folder:
            source.save_to_preset(folder)
            return _read(folder, kind)
    read = getattr(vmae_keras, CLASSES[kind]).from_preset if kind else load
    run = Run(source)
    settings = run.settings() if run.exists() else None
    return read(source, dtype="float32", remat=False), settings


def _contract(
    model: keras.Model,
    settings: AnySettings | None,
    *,
    frame_size: tuple[int, int] | None,
    **others: Any,
) -> Contract:
    c = model.config
    ids = token_ids(c, settings, 1) if model.kind == "pretraining" else {}
    counts: dict[str, Any] = {name: array.shape[1] for name, array in ids.items()}
    height, width = frame_size or (c.height, c.width)
    return Contract(
        kind=model.kind,
        frames=c.frames,
        height=height,
        width=width,
        channels=c.channels,
        size=(c.height, c.width),
        labels=getattr(model, "labels", None),
        **evaluation_views(settings),
        version=vmae_keras.__version__,
        **{"visible": 0, "decoded": 0, **counts},
        **others,
    )


def _outputs(model: keras.Model, sample: Sample) -> np.ndarray:
    """Return the model's outputs, computed two clips at a time."""
    parts = [
        backend.predict(model, sample.chosen(slice(first, first + 2)).model_inputs)
        for first in range(0, len(sample), 2)
    ]
    outputs = np.concatenate(parts)
    if not np.isfinite(outputs).all():
        raise ArtifactError(
            f"The model itself gives numbers that are not finite, on {sample.name}. Train it again."
        )
    return outputs


def _write(
    contract: Contract, job: Path, path: Path, out: Path, say: Callable[[str], None], *options: str
) -> None:
    """Convert in a separate process, on the backend that writes the format."""
    failure = run_worker(
        "vmae_keras.export.worker",
        [str(job), str(path), *options],
        formats.BACKENDS[contract.format],
        job / "errors",
        say,
    )
    if failure:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(job / "errors", out / "errors.txt")
        raise ArtifactError(
            f"The conversion to {contract.format} failed: {failure}. All that the converter said is in "
            f"{out / 'errors.txt'}."
        )


def _compared(
    model: keras.Model,
    artifact: Artifact,
    samples: list[Sample],
    wanted: list[np.ndarray],
    tolerance: float | None,
) -> tuple[Comparison, Sample]:
    """Return the comparison, and the clip whose outputs differ most."""
    contract, name = artifact.contract, artifact.contract.outputs[0]
    rows, worst = [], []
    for each, expected in zip(samples, wanted, strict=True):
        step = contract.batch or 2
        parts = [
            artifact(each.chosen(slice(first, first + step)).inputs)[name]
            for first in range(0, len(each), step)
        ]
        found = np.concatenate(parts)
        rows.append(compared(each.name, found, expected, contract.kind == "classifier"))
        differences = [
            compared("", *pair, False).largest for pair in zip(found, expected, strict=True)
        ]
        number = int(np.argmax(differences))
        worst.append((differences[number], each.chosen([number])))
    timed = samples[0].chosen(np.arange(contract.batch or 1) % len(samples[0]))
    latency, model_latency = latencies(
        lambda: artifact(timed.inputs), lambda: backend.predict(model, timed.model_inputs)
    )
    comparison = Comparison(
        rows=tuple(rows),
        tolerance=TOLERANCES[contract.quantize] if tolerance is None else tolerance,
        bytes=artifact.bytes,
        model_bytes=4 * model.count_params(),
        latency=latency,
        model_latency=model_latency,
        clips_timed=len(timed),
        backend=keras.backend.backend(),
    )
    return comparison, max(worst, key=lambda each: each[0])[1]


def _first_layer(
    model: keras.Model, contract: Contract, job: Path, clip: Sample, tolerance: float, out: Path
) -> str:
    """Return a sentence that names the first layer that differs.

    A second artifact is written for it, which returns the output of every layer.
    """
    path = job / formats.module(contract.format).NAME
    _write(contract, job, path, out, lambda line: None, "--stages")
    found = Artifact(path)(clip.inputs)
    with recorded(stages(model)) as outputs:
        model(clip.model_inputs)
    wanted = {name: ops.convert_to_numpy(outputs[name]) for name in outputs if name in found}
    deviating = first_deviating(found, wanted, tolerance)
    if deviating is None:
        return "No single layer differs by more."
    name, difference = deviating
    return f"The first layer that differs by more is {name}: by {difference:.1e} of its largest output."


def _move(made: Path, out: Path) -> None:
    """Move all files of a folder into another one, replacing those of the same names."""
    out.mkdir(parents=True, exist_ok=True)
    for new in made.iterdir():
        old = out / new.name
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        shutil.move(new, old)
