"""From a model to an artifact that was compared with it."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import ops

import vmae_keras
from vmae_keras import backend, masks
from vmae_keras.classifier import VideoClassifier
from vmae_keras.data.augment import luma
from vmae_keras.data.decode import UnreadableVideo
from vmae_keras.data.files import list_videos
from vmae_keras.data.finetune_augment import resize_linearly
from vmae_keras.data.pipeline import read_clip
from vmae_keras.data.stream import NoReadableVideo
from vmae_keras.data.synthetic import moving_shapes
from vmae_keras.encoder import VideoEncoder
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
from vmae_keras.export.contract import ArtifactError, Contract
from vmae_keras.export.serving import recorded
from vmae_keras.model import VideoMAE
from vmae_keras.presets import load
from vmae_keras.training.run import AnySettings, Run, Settings, test_views
from vmae_keras.worker_process import run_worker

MODELS = {"classifier": VideoClassifier, "encoder": VideoEncoder, "pretrain": VideoMAE}
_KINDS = {"classifier": "classifier", "encoder": "encoder", "pretraining": "pretrain"}
DRAWN = "drawn shapes"
CALIBRATION = 16  # clips that int8's ranges are measured on


def export(
    source: str | Path,
    out: str | Path,
    format: str,
    *,
    what: str | None = None,
    quantize: str | None = None,
    dtype: str = "uint8",
    batch: int | None = None,
    frame_size: tuple[int, int] | None = None,
    videos: str | Path | None = None,
    clips: int = 8,
    tolerance: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Writes a model as an artifact, runs it in its own runtime, and compares it with the model.

    The folder `out` gets the artifact, README.md and comparison.json.

    Args:
        source: a run or a preset, see `Preset.from_preset`.
        format: one of `contract.FORMATS`.
        what: "classifier", "encoder" or "pretrain"; None for what the source holds.
        quantize: see `contract.QUANTIZATIONS`; None for float32.
        dtype: of the video: "uint8", or "float32" in [0, 1].
        batch: clips of a batch; None for any number.
        frame_size: (height, width) of the frames that come; they are resized and cropped in the graph.
            None for the model's own.
        videos: real clips to compare on and to measure int8's ranges on, see `list_videos`; None for those
            of the run, or else clips that are drawn.
        clips: to compare on, half of them real, half of them noise.
        tolerance: largest difference allowed, as a share of the largest output; None for `TOLERANCES`'.
        say: is called with a line before each part.

    Raises:
        ArtifactError: packages are missing, or the conversion failed.
        InexactArtifact: the numbers differ by more than the tolerance; it names the first layer whose
            output does. The artifact stays, to be looked at.
        ValueError: a setting that does not fit. WeightsError, HubError: the source cannot be read.

    Source: clauses EXPORT-1 to EXPORT-6.
    """
    say(f"reading {source}")
    model, settings = _read(source, what)
    what = _KINDS[model.kind]
    contract = _contract(
        model, settings, what=what, format=format, quantize=quantize, dtype=dtype, batch=batch,
        frame_size=frame_size, source=str(source),
    )  # fmt: skip
    formats.check_installed(format, writing=True)
    calibration = CALIBRATION if quantize == "int8" else 0
    kind, real = _real_clips(videos, settings, contract, max((clips + 1) // 2, calibration))
    if calibration and kind == DRAWN:
        raise ArtifactError(
            "int8 measures its ranges on real clips, and there are none. Give some (--videos FOLDER), or "
            "use int8-dynamic, which measures nothing."
        )
    say(f"computing with {keras.backend.backend()}")
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (clips // 2, *real.shape[1:]), dtype=np.uint8)
    ids = _ids(model.config, settings, generator, what, (clips + 1) // 2)
    samples = {
        name: _inputs(levels, ids, contract)
        for name, levels in ((kind, real[: (clips + 1) // 2]), ("noise", noise))
        if len(levels)
    }
    wanted = {name: _outputs(model, given) for name, (_, given) in samples.items()}
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / formats.module(format).NAME
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder)
        model.save_to_preset(job / "model")
        (job / "contract.json").write_text(contract.to_json(), "utf-8")
        if calibration:
            np.save(job / "clips.npy", contract.pixels(real[:calibration]))
        _write(contract, job, path, say)
        say(f"comparing with what {format}'s own runtime computes")
        comparison = _compared(model, Artifact(path), samples, wanted, tolerance)
        comparison.save(out / "comparison.json")
        write_card(out / "README.md", path, contract, comparison)
        if not comparison.passes:
            say("looking for the first layer that differs")
            found = _first_layer(model, contract, job, next(iter(samples.values())), comparison)
            raise InexactArtifact(
                f"The artifact differs from its model by {comparison.largest:.1e} of the largest output, "
                f"more than {comparison.tolerance:g}. {found} {path} stays, to be looked at. Give a larger "
                "tolerance to allow that.",
                comparison,
            )
    return comparison


def _read(source, what):
    """The model in float32, and the settings of its run, if it is of one."""
    if what not in (None, *MODELS):
        raise ValueError(f"`what` must be one of {', '.join(MODELS)}. Received: what={what!r}.")
    read = MODELS[what].from_preset if what else load
    run = Run(source)
    return read(source, dtype="float32"), run.settings() if run.exists() else None


def _contract(model, settings, *, what, frame_size, **others):
    c = model.config
    ids = _ids(c, settings, np.random.default_rng(0), what, 1)
    height, width = frame_size or (c.height, c.width)
    return Contract(
        what=what, frames=c.frames, height=height, width=width, channels=c.channels,
        size=(c.height, c.width), labels=getattr(model, "labels", None),
        **test_views(settings), version=vmae_keras.__version__,
        **{name: ids[name].shape[1] if ids else 0 for name in ("visible", "decoded")}, **others,
    )  # fmt: skip


def _ids(config, settings, generator, what, count):
    """Of a pretraining model `visible` and `decoded` of some clips: as the run masks, else as V1 does."""
    if what != "pretrain":
        return {}
    r = settings.recipe if isinstance(settings, Settings) else None
    mask = r and {"kind": r.mask, "ratio": r.mask_ratio, "decoder_ratio": r.decoder_mask_ratio}
    clips = [masks.pretraining(config.grid, generator, **(mask or {})) for _ in range(count)]
    return {name: np.stack([clip[name] for clip in clips]) for name in ("visible", "decoded")}


def _real_clips(videos, settings: AnySettings | None, contract, count):
    """What they are, and uint8 (count or fewer, T, H0, W0, C): given, the run's own, or drawn."""
    sizes = {name: getattr(contract, name) for name in ("frames", "height", "width", "channels")}
    chosen = videos or (settings and settings.data)
    generator = np.random.default_rng(0)
    clips = []
    try:
        files = list_videos(chosen) if chosen else []
    except (OSError, ValueError):  # the run's videos have gone
        if videos:
            raise
        files = []
    for index in generator.permutation(len(files)):
        if len(clips) < count:
            with contextlib.suppress(UnreadableVideo):
                clips.append(
                    read_clip(
                        files[index].path,
                        sampling=contract.sampling,
                        stride=contract.stride,
                        **sizes,
                    )
                )
    if clips:
        return f"videos of {chosen}", np.stack(clips)
    if videos:
        raise NoReadableVideo(f"None of the {len(files)} files of {videos} can be read.")
    drawn = [
        moving_shapes(generator, contract.frames, (contract.height, contract.width))
        for _ in range(count)
    ]
    clips = np.stack(drawn)
    return DRAWN, clips if contract.channels == 3 else luma(clips)


def _inputs(levels, ids, contract):
    """uint8 (n, T, H0, W0, C) -> what the artifact is given, and what the model is, resized beforehand."""
    mine = {name: rows[: len(levels)] for name, rows in ids.items()}
    video = contract.pixels(levels)
    seen = video
    if contract.resizes:
        resized, (y, x) = contract.crop
        box = (0, 0, contract.width, contract.height)
        seen = np.stack([resize_linearly(clip, box, resized) for clip in levels])
        seen = seen[:, :, y : y + contract.size[0], x : x + contract.size[1]]
        if contract.dtype == "uint8":
            seen = np.rint(seen * 255).astype("uint8")
    return {"video": video, **mine}, {"video": seen, **mine} if mine else seen


def _outputs(model, given):
    """The model's outputs, two clips at a time."""
    return np.concatenate(
        [backend.predict(model, _clips(given, first, 2)) for first in range(0, _count(given), 2)]
    )


def _clips(given, first, count):
    if isinstance(given, dict):
        return {name: array[first : first + count] for name, array in given.items()}
    return given[first : first + count]


def _count(given):
    return len(given["video"] if isinstance(given, dict) else given)


def _write(contract, job, path, say, *options):
    """Converts, in a process of its own: whatever Keras computes with here, with what writes the format."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    name = formats.BACKENDS[contract.format]
    say(f"writing {contract.format} with {name}")
    failure = run_worker(
        "vmae_keras.export.worker", [str(job), str(path), *options], name, job / "errors", say
    )
    if failure:
        raise ArtifactError(f"The conversion to {contract.format} failed: {failure}")


def _compared(model, artifact, samples, wanted, tolerance):
    contract, name = artifact.contract, artifact.contract.outputs[0]
    rows = []
    for kind, (inputs, _) in samples.items():
        step = contract.batch or 2
        found = np.concatenate(
            [
                artifact(_clips(inputs, first, step))[name]
                for first in range(0, len(wanted[kind]), step)
            ]
        )
        rows.append(compared(kind, found, wanted[kind], contract.what == "classifier"))
    inputs, given = next(iter(samples.values()))
    timed = min(contract.batch or 1, _count(given))
    latency, model_latency = latencies(
        lambda: artifact(_clips(inputs, 0, timed)),
        lambda: backend.predict(model, _clips(given, 0, timed)),
    )
    return Comparison(
        rows=tuple(rows),
        tolerance=TOLERANCES[contract.quantize] if tolerance is None else tolerance,
        bytes=artifact.bytes, model_bytes=4 * model.count_params(), latency=latency,
        model_latency=model_latency, clips_timed=timed, backend=keras.backend.backend(),
    )  # fmt: skip


def _first_layer(model, contract, job, sample, comparison):
    """A sentence that names it, from a second artifact which gives what each layer returns."""
    inputs, given = (_clips(each, 0, 1) for each in sample)
    path = job / formats.module(contract.format).NAME
    _write(contract, job, path, lambda line: None, "--stages")
    found = Artifact(path)(inputs)
    with recorded(model) as outputs:
        model(given)
    wanted = {name: ops.convert_to_numpy(outputs[name]) for name in outputs if name in found}
    deviating = first_deviating(found, wanted, comparison.tolerance)
    if deviating is None:
        return "No layer of the first clip differs by more; the clips that do are in the table."
    name, difference = deviating
    return f"The first layer that differs by more is {name}: by {difference:.1e} of its largest output."
