"""Command `vmae export`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmae_keras.backend import import_keras, select, set_environment
from vmae_keras.cli.shared.folder import continued_by, locked, this_command
from vmae_keras.cli.shared.options import BackendOption
from vmae_keras.cli.shared.terminal import errors_for_people, notes_for_people, say
from vmae_keras.export import DType, Format, Quantization
from vmae_keras.process import interrupts
from vmae_keras.variants import Kind

if TYPE_CHECKING:
    from vmae_keras.export.comparison import Comparison


def main(
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run, a preset, a file or hf://owner/name.")
    ],
    format: Annotated[Format, typer.Option(help="Output format.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder; default: MODEL/exported-FORMAT, or exported-FORMAT if MODEL is no folder."
        ),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(help="Kind of model to export; default: the one that MODEL holds."),
    ] = None,
    quantize: Annotated[
        Quantization | None,
        typer.Option(
            help="LiteRT: `fp16` halves the size, `int8-dynamic` quarters it, `int8` quarters it and also "
            "quantizes activations. OpenVINO: `fp16`."
        ),
    ] = None,
    input: Annotated[
        DType,
        typer.Option(help="Dtype of input videos: levels 0 to 255, or floats in [0, 1]."),
    ] = "uint8",
    batch: Annotated[
        str, typer.Option(metavar="dynamic|N", help="Batch size in clips: any, or fixed to N.")
    ] = "dynamic",
    frame_size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Size of input frames, which the artifact resizes and centre-crops; default: the model's.",
        ),
    ] = None,
    videos: Annotated[
        str | None,
        typer.Option(
            help="Videos for the comparison and for int8 calibration; default: the run's videos, else "
            "synthetic clips."
        ),
    ] = None,
    clips: Annotated[
        int, typer.Option(min=2, help="Number of clips to compare on, half real, half noise.")
    ] = 8,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Largest allowed difference, relative to the largest output; default: 1e-4 in "
            "float32, .01 in fp16, .1 in int8.",
        ),
    ] = None,
    backend: BackendOption = None,
) -> None:
    """Export a model to run without Keras, and compare the artifact with the model.

    The artifact takes raw clips; scaling, mean and std are included. On any backend, SavedModel and LiteRT
    are written with TensorFlow, and ONNX and OpenVINO with PyTorch, in a separate process.
    """
    import time

    began = time.monotonic()

    def say_when(line: str) -> None:
        interrupts.check()
        seconds = int(time.monotonic() - began)
        say(f"{seconds // 60}:{seconds % 60:02d} {line}")

    name = "-".join(["exported", format, *([quantize] if quantize else [])])
    folder = out or (Path(source) if Path(source).is_dir() else Path()) / name
    with locked(folder):
        with errors_for_people(ValueError):
            number = _batch(batch)
            size = _size(frame_size) if frame_size else None
            # On a GPU, compute the model in float32, not TF32, and leave memory for the converter.
            set_environment(select(backend))
        import_keras()
        from vmae_keras.export.comparison import InexactArtifact
        from vmae_keras.export.exporter import export_model

        continued = continued_by(this_command(), folder)
        with continued, errors_for_people(ValueError), notes_for_people():
            try:
                comparison = export_model(
                    source,
                    folder,
                    format,
                    kind=kind,
                    quantize=quantize,
                    dtype=input,
                    batch=number,
                    frame_size=size,
                    videos=videos,
                    clips=clips,
                    tolerance=tolerance,
                    say=say_when,
                )
            except InexactArtifact as error:
                _show(error.comparison)
                raise
    _show(comparison)
    say(folder)


def _show(comparison: "Comparison") -> None:
    from rich.table import Table

    from vmae_keras.export.card import costs
    from vmae_keras.process.console import Console

    table = Table("artifact and model on", "largest difference", "mean", "same top-1", box=None)
    for row in comparison.rows:
        table.add_row(f"{row.count} clips: {row.clips}", *row.figures)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 100)
    console.print(table, *costs(comparison), sep="\n")


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--batch must be `dynamic` or a number from 1. Received: {text!r}.")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ValueError(f"--frame-size must be like 360x640. Received: {text!r}.")
    return int(match[1]), int(match[2])
