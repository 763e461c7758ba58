"""Command `vmae reconstruct`."""

from pathlib import Path
from typing import Annotated

import typer

from vmae_keras.backend import import_keras, select
from vmae_keras.cli.shared.options import BackendOption, seed_option
from vmae_keras.cli.shared.terminal import errors_for_people, say
from vmae_keras.pictures import Statistics


def main(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    clip: Annotated[Path, typer.Argument(help="A video file.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Path of the picture and the video, without suffix; default: RUN/reconstruction-CLIP."
        ),
    ] = None,
    statistics: Annotated[
        Statistics,
        typer.Option(
            help="Brightness and contrast of hidden patches: `seamless` fits them to the visible "
            "patches, `visible` interpolates between visible patches, `oracle` uses the true values, "
            "which flatters the model."
        ),
    ] = "seamless",
    seed: Annotated[int, seed_option("the mask")] = 0,
    backend: BackendOption = None,
) -> None:
    """Mask most of a clip, reconstruct it, and write a picture (.png) and a video (.mp4).

    They show three rows: the clip, the part visible to the model, and the reconstruction.
    """
    from vmae_keras.runs.run import Run

    folder = Run(run)
    with errors_for_people(ValueError, OSError):
        settings = folder.settings()
        select(backend or settings.backend)
    import_keras()
    from vmae_keras.data.video import UnreadableVideo
    from vmae_keras.pictures.reconstruction import reconstruct_file
    from vmae_keras.runs.run import RunError
    from vmae_keras.weights.tensor_files import WeightsError

    out = out or folder.folder / f"reconstruction-{clip.stem}"
    with errors_for_people(RunError, WeightsError, UnreadableVideo, OSError):
        paths = reconstruct_file(folder, clip, out, statistics=statistics, seed=seed)
    for path in paths:
        say(path)
