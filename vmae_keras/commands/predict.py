"""vmae predict"""

from pathlib import Path
from typing import Annotated

import typer

from vmae_keras.commands.classifier import load_classifier
from vmae_keras.commands.options import BackendOption, ClipsOption, CropsOption, ModelArgument
from vmae_keras.commands.terminal import errors_for_people, import_keras_on


def predict(
    model: ModelArgument,
    clip: Annotated[Path, typer.Argument(help="A video file.")],
    clips: ClipsOption = None,
    crops: CropsOption = None,
    backend: BackendOption = None,
):
    """Tell what a classifier takes a video for: the five most probable classes."""
    import_keras_on(backend)
    import tempfile

    from vmae_keras.data.skipped import SkippedFiles
    from vmae_keras.predict import predict as run

    with errors_for_people(ValueError, OSError), tempfile.TemporaryDirectory() as folder:
        classifier, views = load_classifier(model, clips, crops)
        skipped = SkippedFiles(Path(folder) / "skipped.jsonl")
        probabilities = run(classifier, clip, skipped=skipped, **views)
    names = classifier.labels or [str(number) for number in range(classifier.classes)]
    best = (-probabilities).argsort(kind="stable")[:5]
    width = max(len(names[number]) for number in best)
    for number in best:
        bar = "#" * round(40 * probabilities[number])
        typer.echo(f"{names[number]:{width}}  {100 * probabilities[number]:5.1f} %  {bar}".rstrip())
