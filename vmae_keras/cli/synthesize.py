"""Command `vmae synthesize`."""

from pathlib import Path
from typing import Annotated

import typer

from vmae_keras.cli.shared.folder import locked
from vmae_keras.cli.shared.options import seed_option
from vmae_keras.cli.shared.terminal import errors_for_people, say


def main(
    folder: Annotated[Path, typer.Argument(help="Output folder.")],
    count: Annotated[int, typer.Option(min=1, help="Number of clips.")] = 600,
    seed: Annotated[int, seed_option("the clips")] = 0,
) -> None:
    """Generate clips of moving shapes, to try the commands without any data."""
    from vmae_keras.data.synthetic import write_moving_shapes

    with locked(folder), errors_for_people(OSError):
        paths = write_moving_shapes(folder, count, seed=seed)
    say(f"{len(paths)} clips in {folder}")
