"""Command `vmae convert`."""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from vmae_keras.backend import import_keras, select
from vmae_keras.cli.shared.folder import locked
from vmae_keras.cli.shared.options import BackendOption
from vmae_keras.cli.shared.terminal import errors_for_people, notes_for_people, say
from vmae_keras.conversion import Target


def main(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A folder, a file or hf://owner/name: official V1 or V2, Hugging Face, mmaction2, a "
            "preset, or a run of `vmae`.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Output folder or .keras file; for `official`, a .pth file."
        ),
    ],
    to: Annotated[Target, typer.Option(help="Output format.")] = "keras",
    verify: Annotated[
        bool,
        typer.Option(
            help="Compare outputs of source and result, each run in its own framework if installed."
        ),
    ] = False,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set what weight shapes do not reveal, such as heads=6 or frames=32; position_grid=None "
            "if trained at this size.",
        ),
    ] = None,
    backend: BackendOption = None,
) -> None:
    """Convert weights from and to the formats of other implementations.

    Every tensor is used exactly once, or nothing is written. Class names are kept.
    """
    with errors_for_people(ValueError):
        select(backend)
    import_keras()
    from vmae_keras.conversion.weight_files import convert, is_keras_file
    from vmae_keras.recipes.overrides import config_changes

    one_file = to == "official" or (to == "keras" and is_keras_file(out))
    folder = contextlib.nullcontext() if one_file else locked(out)
    with folder, errors_for_people(ValueError, OSError), notes_for_people():
        changes = config_changes(change or [])
        for note in convert(source, out, to, **changes):
            say(f"Not stored in {out}: {note}.")
    say(out)
    if verify:
        _verify(source, out, changes)


def _verify(source: str, out: Path, changes: dict[str, Any]) -> None:
    from rich.table import Table

    from vmae_keras.conversion.verification import TOLERANCE, verify
    from vmae_keras.process.console import Console

    table = Table("compared with the source, run here", "difference", box=None)
    rows = verify(source, out, **changes)
    for row in rows:
        table.add_row(row.name, f"not run: {row.reason}" if row.reason else f"{row.difference:.1e}")
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 100)
    console.print(table)
    if not all(row.passes for row in rows):
        say(
            f"Error: a difference exceeds {TOLERANCE:g} of the largest output.",
            error=True,
            colour=typer.colors.RED,
        )
        raise typer.Exit(1)
