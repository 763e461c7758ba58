"""Command `vmae predict`."""

from typing import Annotated

import typer

from vmae_keras.cli.shared.classifier import load_artifact, load_classifier
from vmae_keras.cli.shared.options import BackendOption, ClipsOption, CropsOption
from vmae_keras.cli.shared.terminal import errors_for_people, import_keras_on, say
from vmae_keras.process.text import one_line


def main(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL CLIP",
            help="A classifier (a run of `vmae finetune`, a preset, a file, hf://owner/name, or an "
            "artifact of `vmae export`), and a video file.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="The classifier, if CLIP is the only argument.")
    ] = None,
    clips: ClipsOption = None,
    crops: CropsOption = None,
    backend: BackendOption = None,
) -> None:
    """Classify a video, and print the five most probable classes."""
    *models, clip = [model, *names] if model else names
    if len(models) != 1:
        raise typer.BadParameter("Give one classifier and one video: vmae predict MODEL CLIP.")
    import tempfile
    from pathlib import Path

    with errors_for_people(ValueError, OSError):
        classifier, views = load_artifact(models[0], clips, crops)
    if classifier is None:
        import_keras_on(backend)
    from vmae_keras.data.skipped import SkippedFiles
    from vmae_keras.evaluation.prediction import predict

    with errors_for_people(ValueError, OSError), tempfile.TemporaryDirectory() as folder:
        if classifier is None:
            classifier, views = load_classifier(models[0], clips, crops)
        skipped = SkippedFiles(Path(folder) / "skipped.jsonl")
        (probabilities,) = predict(classifier, [clip], skipped=skipped, **views).values()
    names = [one_line(name) for name in classifier.labels or []] or [
        str(number) for number in range(len(probabilities))
    ]
    best = (-probabilities).argsort(kind="stable")[:5]
    width = max(len(names[number]) for number in best)
    for number in best:
        bar = "#" * round(40 * probabilities[number])
        say(f"{names[number]:{width}}  {100 * probabilities[number]:5.1f} %  {bar}".rstrip())
