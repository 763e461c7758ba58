"""Recipes as pages: a small TOML file for each run, which people read and training takes its values from.

A page has facts (where it comes from, on what it ran, what came out) and a table [values] of a recipe's
fields. Those of the package lie in `vmae_keras/recipes/pages/<stage>/<name>.toml`.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vmae_keras.recipes.values import check_key, read_toml, typed

FOLDER = Path(__file__).resolve().parent / "pages"
STAGES = ("pretraining", "fine-tuning", "distillation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """What a page says; a user's own needs nothing but values.

    Args:
        stage: one of `STAGES`.
        paper, source: of a published run, where it is described and the file that was read.
        command: how to run it.
        variant, data, classes, start: of the model, what it saw, and the page that it starts from.
        hardware: as published, or as run by us.
        published_top_1, our_top_1: a percentage, or words where there is none.
        unchecked: values that are in no file that was read.
        unknown: values that no source states, so that the user has to.
        values: fields of the stage's recipe; those left out have their defaults.
    """

    path: Path
    stage: str
    values: dict[str, Any]
    paper: str | None = None
    source: str | None = None
    command: str | None = None
    variant: str | None = None
    data: str | None = None
    classes: int | None = None
    start: str | None = None
    hardware: str | None = None
    published_top_1: float | str = "none"
    our_top_1: float | str = "not run"
    unchecked: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def text(self) -> str:
        """The page as it is written."""
        return self.path.read_text("utf-8")

    def recipe(self, kind: type, changes: Mapping[str, Any] | None = None):
        """The recipe, of a dataclass `kind`, with some values changed.

        Raises:
            ValueError: unknown keys, values of a wrong type or out of range, or values that are missing.
        """
        fields = {field.name: field for field in dataclasses.fields(kind)}
        try:
            for key in self.values:
                check_key(key, fields, "value of a recipe")
            values = {
                key: typed(key, value, fields[key].type) for key, value in self.values.items()
            }
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        values |= changes or {}
        needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
        missing = [name for name in (*needed, *self.unknown) if name not in values]
        if missing:
            raise ValueError(
                f"The recipe {self.name!r} does not say: {', '.join(dict.fromkeys(missing))}. "
                f"Give them, as in --set {missing[0]}=VALUE."
            )
        return kind(**values).fitted(self.values, changes or {})


@functools.cache
def read_page(path: Path, stage: str) -> Page:
    """The page in a file, of a stage.

    Raises:
        OSError, ValueError: it cannot be read, is of another stage, or has keys that no page has.
    """
    facts = {field.name: field.type for field in dataclasses.fields(Page) if field.name != "path"}
    try:
        content = read_toml(path)
        for key in content:
            check_key(key, facts, "key of a recipe page")
        found = {"stage": stage, **content}
        if found["stage"] != stage:
            raise ValueError(f"It is a page of {found['stage']}, and one of {stage} is needed.")
        if "values" not in found:
            raise ValueError("It has no table [values].")
        return Page(
            path=path, **{key: typed(key, value, facts[key]) for key, value in found.items()}
        )
    except ValueError as error:
        raise ValueError(f"The recipe page {path} cannot be used: {error}") from error


def list_pages(stage: str) -> dict[str, Page]:
    """The package's pages of a stage by their names, in order."""
    return {path.stem: read_page(path, stage) for path in sorted((FOLDER / stage).glob("*.toml"))}


class Recipes(Mapping):
    """The package's recipes of a stage by their names; a page is read when it is asked for.

    A page of which no source states all values is in none but `choose`.
    """

    def __init__(self, stage: str, kind: type):
        self.stage, self.kind = stage, kind

    def __getitem__(self, name: str):
        path = FOLDER / self.stage / f"{name}.toml"
        if not path.is_file() or read_page(path, self.stage).unknown:
            raise KeyError(name)
        return read_page(path, self.stage).recipe(self.kind)

    def __iter__(self) -> Iterator[str]:
        return (name for name, page in list_pages(self.stage).items() if not page.unknown)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def choose(self, name: str, changes: Mapping[str, Any] | None = None):
        """The recipe of a page by its name, or by the path of a page of the user's, with changes.

        Raises:
            OSError, ValueError: there is no such page, it cannot be used, or values are missing.
        """
        if name.endswith(".toml"):
            page = read_page(Path(name).absolute(), self.stage)
        else:
            known = list_pages(self.stage)
            if name not in known:
                raise ValueError(
                    f"`--recipe` must be one of {', '.join(known)}, or the path of a page (.toml). "
                    f"Received: {name!r}."
                )
            page = known[name]
        return page.recipe(self.kind, changes)
