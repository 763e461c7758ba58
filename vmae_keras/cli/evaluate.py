"""Command `vmae evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmae_keras.cli.shared.classifier import load_classifier
from vmae_keras.cli.shared.folder import continued_by, locked, this_command
from vmae_keras.cli.shared.options import (
    BackendOption,
    ClipsOption,
    CropsOption,
    LabelledVideos,
    ModelArgument,
    Workers,
)
from vmae_keras.cli.shared.terminal import (
    errors_for_people,
    import_keras_on,
    progress_of,
    report_skipped,
)

if TYPE_CHECKING:
    from vmae_keras.data.files import VideoFile
    from vmae_keras.evaluation.classification import Evaluation


def main(
    model: ModelArgument,
    data: LabelledVideos,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder; default: MODEL/evaluation, or evaluation if MODEL is no folder."
        ),
    ] = None,
    clips: ClipsOption = None,
    crops: CropsOption = None,
    backend: BackendOption = None,
    workers: Workers = 0,
) -> None:
    """Evaluate a classifier on labelled videos: top-1, top-5, mean class accuracy, confusion matrix.

    The prediction for a video is the mean of its views' probabilities. If killed, the same command resumes.
    Broken files are listed and excluded from all metrics.
    """
    folder = out or (Path(model) if Path(model).is_dir() else Path()) / "evaluation"
    with locked(folder):
        import_keras_on(backend)
        from vmae_keras.data.labelled import list_labelled

        with errors_for_people(ValueError, OSError):
            files = list_labelled(str(data))
        measure(model, files, folder, this_command(), clips=clips, crops=crops, workers=workers)


def measure(
    model: str | Path,
    files: "Sequence[VideoFile]",
    folder: Path,
    again: str,
    *,
    clips: int | None = None,
    crops: int | None = None,
    workers: int = 0,
) -> "Evaluation":
    """Evaluate a preset, write the results to a folder, and print progress and metrics.

    Args:
        again: Command line that resumes the evaluation.
    """
    from vmae_keras.data.skipped import SkippedFiles
    from vmae_keras.evaluation.classification import evaluate
    from vmae_keras.process.console import Console

    console = Console()
    with errors_for_people(ValueError, OSError, ArithmeticError):
        classifier, views = load_classifier(model, clips, crops)
    with continued_by(again, folder), errors_for_people(ValueError, ArithmeticError):
        skipped = SkippedFiles(folder / "skipped.jsonl")
        with progress_of(console, "videos") as progress:
            found = evaluate(
                classifier,
                files,
                labels=classifier.labels,
                skipped=skipped,
                workers=workers,
                folder=folder,
                progress=progress,
                **views,
            )
        found.write(folder)
    report_skipped(console, found.skipped)
    console.print(
        f"{found.videos} videos, {views['clips']} x {views['crops']} views each: "
        f"top-1 {100 * found.top_1:.1f} %, top-5 {100 * found.top_5:.1f} %, "
        f"mean class {100 * found.mean_class:.1f} %\n{folder / 'confusion.png'}",
        soft_wrap=True,
    )
    return found
