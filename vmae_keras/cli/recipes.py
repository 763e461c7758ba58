"""Command `vmae recipes`."""

from typing import TYPE_CHECKING, Annotated

import typer

from vmae_keras.cli.shared.terminal import errors_for_people, say

if TYPE_CHECKING:
    from vmae_keras.recipes.page_files import Page


def main(
    name: Annotated[
        str | None, typer.Argument(help="A recipe, such as v1-k400-b or fine-tuning/v1-k400-b.")
    ] = None,
) -> None:
    """List the recipes, published ones and our own. With a NAME, print its page.

    A page is a TOML file with source, hardware, results and hyper-parameters. To train with a page of your
    own, use --recipe PAGE.toml.
    """
    with errors_for_people(ValueError):
        if name is None:
            _print_table()
        else:
            say("\n".join(page.text for page in _named(name)).removesuffix("\n"))


def _named(name: str) -> "list[Page]":
    from vmae_keras.recipes.page_files import STAGES, list_pages
    from vmae_keras.recipes.values import check_key

    stage, _, short = name.rpartition("/")
    found = {key: page for each in STAGES for key, page in list_pages(each).items()}
    check_key(short, found, "recipe")
    wanted = [list_pages(each).get(short) for each in STAGES if stage in ("", each)]
    if not any(wanted):
        raise ValueError(
            f"No recipe of {stage!r} is called {short!r}. Stages: {', '.join(STAGES)}."
        )
    return [page for page in wanted if page]


def _print_table() -> None:
    from rich.table import Table

    from vmae_keras.process.console import Console
    from vmae_keras.recipes.page_files import STAGES, list_pages

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("name", "stage", "variant"):
        table.add_column(column, no_wrap=True)
    for column in ("epochs", "batch", "published top-1"):
        table.add_column(column, justify="right", no_wrap=True)
    for stage in STAGES:
        for name, page in list_pages(stage).items():
            batch = page.values.get("batch_size", 0) * page.values.get("accumulate", 1)
            table.add_row(
                name,
                stage,
                page.variant,
                str(page.values["epochs"]),
                str(batch or "unknown"),
                _published(page),
            )
    console = Console()
    console.print(table)
    console.print("(in brackets: recalled, not read from a file)")


def _published(page: "Page") -> str:
    if not isinstance(page.published_top_1, float):
        return ""
    text = f"{page.published_top_1:.1f}"
    return f"({text})" if "top_1" in page.unchecked else text
