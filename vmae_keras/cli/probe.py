"""Command `vmae probe`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vmae_keras.cli.shared.folder import continued_by, locked, this_command
from vmae_keras.cli.shared.options import BackendOption, Workers, seed_option
from vmae_keras.cli.shared.terminal import (
    errors_for_people,
    import_keras_on,
    notes_for_people,
    progress_of,
    report_skipped,
)
from vmae_keras.data import Sampling
from vmae_keras.evaluation.probes import Probe

_LABELLED = "A list of `path label` lines, a CSV, or a folder with a folder for each class"


def main(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run of `vmae pretrain` or `vmae finetune`, a preset, a file or hf://owner/name.",
        ),
    ],
    train: Annotated[str, typer.Argument(metavar="TRAIN", help=f"{_LABELLED}.")],
    test: Annotated[
        str, typer.Argument(metavar="TEST", help="Test videos, in one of the same forms.")
    ],
    kind: Annotated[
        Probe,
        typer.Option(help="Probe on the features; knn trains nothing, neighbours vote."),
    ] = "attentive",
    out: Annotated[Path, typer.Option(help="Folder of features and results.")] = Path("probe"),
    random: Annotated[
        bool,
        typer.Option("--random", help="Give MODEL random weights, as a baseline."),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of training; default: linear 100, attentive 30."),
    ] = None,
    learning_rates: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="Learning rates to try; default: four that suit the kind."
        ),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(min=1, help="Clips per video; default: 5, with uniform sampling 2."),
    ] = None,
    crops: Annotated[int, typer.Option(min=1, help="Crops per clip.")] = 1,
    sampling: Annotated[
        Sampling | None,
        typer.Option(help="Sampling of frames; default: from the run's recipe, else dense."),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1, help="Distance between frames in dense sampling; default: the run's, else 4."
        ),
    ] = None,
    seed: Annotated[int, seed_option("held-out videos, initial weights and data order")] = 0,
    backend: BackendOption = None,
    workers: Workers = 0,
) -> None:
    """Evaluate a frozen encoder with a linear probe, an attentive probe or nearest neighbours.

    The learning rate (for knn, the number of neighbours) is chosen on a held-out fifth of TRAIN. Features
    of each video are computed once and stored, so a killed command resumes, and another kind reuses them.
    """
    with locked(out):
        import_keras_on(backend)
        from vmae_keras.backend import set_seed
        from vmae_keras.data.labelled import list_labelled, warn_of_one_class
        from vmae_keras.data.skipped import SkippedFiles
        from vmae_keras.data.splits import distinct
        from vmae_keras.data.views import CLIPS
        from vmae_keras.evaluation.frozen_encoder import FrozenEncoder
        from vmae_keras.evaluation.probes.encoded import Encoding, encoding_folder, size
        from vmae_keras.evaluation.probes.probing import check_sets, probe_features
        from vmae_keras.process.console import Console

        console = Console()
        pooling = None if kind == "attentive" else "mean"
        given = {"sampling": sampling, "stride": stride}
        with errors_for_people(ValueError, OSError, ArithmeticError):
            rates = _rates(learning_rates)
            # Drop duplicate rows: a held-out video must not also be in the training set.
            sets = {"train": distinct(list_labelled(train)), "test": list_labelled(test)}
            with notes_for_people():
                warn_of_one_class(check_sets(**sets))
                set_seed(seed)
                encoder = FrozenEncoder.from_preset(model, pooling, load_weights=not random)
            views = _sampling(model) | {name: value for name, value in given.items() if value}
            clips = clips or CLIPS[views["sampling"]]
        with continued_by(this_command(), out), errors_for_people(ValueError, ArithmeticError):
            encoding = Encoding(
                encoder,
                sets,
                encoding_folder(out, pooling),
                clips=clips,
                crops=crops,
                **views,
            )
            console.print(
                f"{len(sets['train'])} + {len(sets['test'])} videos, {clips} x {crops} views each: "
                f"{size(encoding.bytes)} of features in {encoding.folder}",
                soft_wrap=True,
            )
            skipped = SkippedFiles(out / "skipped.jsonl")
            with progress_of(console, "videos") as progress:
                encoding.run(skipped, workers, progress)
            with progress_of(console, "steps") as progress:
                found = probe_features(
                    encoding,
                    kind=kind,
                    epochs=epochs,
                    rates=rates,
                    seed=seed,
                    skipped=skipped.report(),
                    progress=progress,
                )
            found.write(out)
    report_skipped(console, found.skipped)
    sweep = found.sweep
    console.print(
        f"{kind} probe, {sweep.quantity} {sweep.values[sweep.best]:g} (of {len(sweep.values)} tried), "
        f"{found.videos} test videos: top-1 {100 * found.top_1:.1f} %, top-5 {100 * found.top_5:.1f} %, "
        f"mean class {100 * found.mean_class:.1f} %\n{out / 'sweep.png'}",
        soft_wrap=True,
    )


def _rates(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(rate) for rate in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--learning-rates takes numbers with commas between. Received: {text!r}. "
            "Give for example 1e-4,1e-3."
        ) from None


def _sampling(model: str) -> dict[str, Any]:
    """Return the sampling of the run's recipe, else that of the papers."""
    from vmae_keras.runs.run import Run
    from vmae_keras.runs.settings import evaluation_views

    run = Run(model)
    views = evaluation_views(run.settings() if run.exists() else None)
    return {name: views[name] for name in ("sampling", "stride")}
