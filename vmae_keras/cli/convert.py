"""vmae convert"""

import contextlib
import enum
from pathlib import Path
from typing import Annotated

import typer

from vmae_keras.backend import import_keras, select
from vmae_keras.cli.shared.folder import locked
from vmae_keras.cli.shared.options import BackendOption
from vmae_keras.cli.shared.terminal import errors_for_people, notes_for_people, say

Target = enum.Enum("Target", {name: name for name in ("keras", "official", "hf")}, type=str)


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A folder, a file or hf://owner/name: official V1 or V2, Hugging Face, mmaction2, a "
            "preset or a run of ours.",
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A folder; for `official` a .pth file.")
    ],
    to: Annotated[Target, typer.Option(help="Who is to read it.")] = Target.keras,
    verify: Annotated[
        bool,
        typer.Option(
            help="Run source and result, in their own frameworks where installed, and compare."
        ),
    ] = False,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="What no shape tells, as heads=6, frames=32; position_grid=None: trained at this size.",
        ),
    ] = None,
    backend: BackendOption = None,
):
    """Convert weights from and to the formats of other implementations.

    Every tensor is used once, or nothing is written. Names of classes travel along.
    """
    with errors_for_people(ValueError):
        select(backend and backend.value)
    import_keras()
    from vmae_keras.conversion.weight_files import convert as run
    from vmae_keras.recipes.overrides import config_changes

    folder = contextlib.nullcontext() if to is Target.official else locked(out)
    with folder, errors_for_people(ValueError, OSError), notes_for_people():
        changes = config_changes(change or [])
        for note in run(source, out, to.value, **changes):
            say(f"Not said in {out}: {note}.")
    say(out)
    if verify:
        _verify(source, out, changes)


def _verify(source, out, changes):
    from rich.table import Table

    from vmae_keras.conversion.verification import TOLERANCE, verify
    from vmae_keras.process.console import Console

    table = Table("compared with the source, as run here", "difference", box=None)
    rows = verify(source, out, **changes)
    for row in rows:
        table.add_row(row.what, f"not run: {row.why}" if row.why else f"{row.difference:.1e}")
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 100)
    console.print(table)
    if not all(row.passes for row in rows):
        say(
            f"Error: more than {TOLERANCE:g} of the largest output.",
            error=True,
            colour=typer.colors.RED,
        )
        raise typer.Exit(1)
