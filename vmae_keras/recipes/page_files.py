"""Recipe pages: small TOML files, each with the facts and hyper-parameters of one run.

A page states its source, hardware and results, and has a table [values] with fields of a recipe. The
package's pages are in `vmae_keras/recipes/pages/<stage>/<name>.toml`.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vmae_keras.recipes.values import check_key, read_toml, typed

FOLDER = Path(__file__).resolve().parent / "pages"
STAGES = ("pretraining", "fine-tuning", "distillation")

if TYPE_CHECKING:
    from vmae_keras.recipes.base import TrainingRecipe

Recipe = TypeVar("Recipe", bound="TrainingRecipe")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """Content of a page. A user's own page needs only `values`.

    Args:
        path: Path of the file.
        stage: One of `STAGES`.
        values: Fields of the stage's recipe. Those left out have their defaults.
        paper, source: Paper that describes a published run, and file that the values were read from.
        command: Command to run it.
        variant, data, classes, start: Variant of the model, data set, number of classes, and page of the
            run that it starts from.
        hardware: Hardware as published, or as used by us.
        published_top_1, our_top_1: Percentage, or text if there is none.
        unchecked: Values that are not in any file that was read.
        unknown: Values that no source states, so that the user must set them.
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
        """Text of the file."""
        return self.path.read_text("utf-8")

    def recipe(
        self, recipe_class: type[Recipe], changes: Mapping[str, Any] | None = None
    ) -> Recipe:
        """Return the recipe, a dataclass of the given class, with some values changed.

        Raises:
            ValueError: Keys are unknown, values are missing, of the wrong type or out of range.
        """
        fields = {field.name: field for field in dataclasses.fields(recipe_class)}
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
        return recipe_class(**values).fitted(self.values, changes or {})


@functools.cache
def read_page(path: Path, stage: str) -> Page:
    """Read a page of a stage from a file.

    Raises:
        OSError, ValueError: The file cannot be read, is of another stage, or has unknown keys.
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
    """Return the package's pages of a stage by name, in order."""
    return {path.stem: read_page(path, stage) for path in sorted((FOLDER / stage).glob("*.toml"))}


class Recipes(Mapping[str, Recipe]):
    """Mapping of the package's recipes of a stage by name. Pages are read on access.

    Pages with unknown values are left out. They can only be used with `choose`.
    """

    def __init__(self, stage: str, recipe_class: type[Recipe]) -> None:
        self.stage, self.recipe_class = stage, recipe_class

    def __getitem__(self, name: str) -> Recipe:
        path = FOLDER / self.stage / f"{name}.toml"
        if not path.is_file() or read_page(path, self.stage).unknown:
            raise KeyError(name)
        return read_page(path, self.stage).recipe(self.recipe_class)

    def __iter__(self) -> Iterator[str]:
        return (name for name, page in list_pages(self.stage).items() if not page.unknown)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def choose(self, name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
        """Return the recipe of a page with changes. `name` may also be the path of a user's page.

        Raises:
            OSError, ValueError: There is no such page, it is invalid, or values are missing.
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
        return page.recipe(self.recipe_class, changes)
