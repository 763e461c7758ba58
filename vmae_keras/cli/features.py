"""Command `vmae features`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vmae_keras.cli.shared.folder import continued_by, locked, this_command
from vmae_keras.cli.shared.options import BackendOption
from vmae_keras.cli.shared.terminal import (
    errors_for_people,
    import_keras_on,
    notes_for_people,
    progress_of,
    report_skipped,
)
from vmae_keras.evaluation import FeatureFormat
from vmae_keras.variants import Pooling


def main(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run of `vmae pretrain` or `vmae finetune`, a preset, a file or hf://owner/name.",
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Videos: a folder, a glob, a file, a list or a CSV."),
    ],
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("features"),
    stride: Annotated[
        int, typer.Option(min=1, help="Frames between the starts of consecutive windows.")
    ] = 4,
    sampling_stride: Annotated[
        int, typer.Option(min=1, help="Distance between sampled frames in a window.")
    ] = 1,
    pooling: Annotated[
        Literal[Pooling, "none"],
        typer.Option(help="Pooling of a window's tokens; none keeps all tokens."),
    ] = "mean",
    format: Annotated[
        FeatureFormat,
        typer.Option(
            help="Output format. npy has the times of the windows in a .json beside it, safetensors in "
            "the same file."
        ),
    ] = "npy",
    crop: Annotated[
        bool,
        typer.Option(
            help="Centre-crop frames to the model's size, instead of squeezing the whole frame into it."
        ),
    ] = True,
    batch_windows: Annotated[int, typer.Option(min=1, help="Windows per batch.")] = 8,
    backend: BackendOption = None,
) -> None:
    """Write features of sliding windows over videos of any length, one file for each video.

    If killed, the same command resumes. Broken files are listed.
    """
    with locked(out):
        import_keras_on(backend)
        from vmae_keras.data.files import list_videos
        from vmae_keras.data.skipped import SkippedFiles
        from vmae_keras.evaluation.features import extract_features
        from vmae_keras.evaluation.frozen_encoder import FrozenEncoder
        from vmae_keras.process.console import Console

        console = Console()
        with errors_for_people(ValueError, OSError, ArithmeticError):
            files = list_videos(data)
            with notes_for_people():
                encoder = FrozenEncoder.from_preset(model, None if pooling == "none" else pooling)
        with (
            continued_by(this_command(), out),
            errors_for_people(ValueError, ArithmeticError),
            progress_of(console, "videos") as progress,
        ):
            found = extract_features(
                encoder,
                files,
                out,
                skipped=SkippedFiles(out / "skipped.jsonl"),
                stride=stride,
                sampling_stride=sampling_stride,
                crop=crop,
                format=format,
                batch_windows=batch_windows,
                progress=progress,
            )
    report_skipped(console, found.skipped)
    console.print(
        f"Features of {len(found.files)} of {len({file.path for file in files})} videos: {out}",
        soft_wrap=True,
    )
    if not found.files:
        raise typer.Exit(1)
