"""Tests that the public names are stated alike everywhere, documented with an example, and annotated."""

import ast
import inspect
import types

import pytest

import vmae_keras
from backends_tests.examples import docstring_example
from backends_tests.support import ROOT

PACKAGE = ROOT / "vmae_keras"
STUB = ast.parse((PACKAGE / "__init__.pyi").read_text("utf-8"))


def test_names_agree():
    assert set(vmae_keras.__all__) <= set(dir(vmae_keras))
    stated = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in STUB.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {
        name: f"vmae_keras.{home}.{name}" if home else f"vmae_keras.{name}"
        for name, home in vmae_keras._HOME.items()
    }
    assert stated == homes and sorted(homes) == sorted(vmae_keras.__all__)
    assert (PACKAGE / "py.typed").is_file()


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'vmae_keras' has no attribute 'Vit'"):
        vmae_keras.Vit  # noqa: B018


@pytest.mark.parametrize("name", vmae_keras.__all__)
def test_each_name_is_documented_with_an_example(name):
    ast.parse(docstring_example(name))


def unannotated(function):
    """Return the parameters of a function that have no annotation, and "return"."""
    signature = inspect.signature(function)
    named = {**signature.parameters}
    named.pop("self", None)
    found = [name for name, each in named.items() if each.annotation is each.empty]
    return found + ["return"] * (signature.return_annotation is signature.empty)


@pytest.mark.parametrize("name", vmae_keras.__all__)
def test_each_name_is_annotated(name):
    value = getattr(vmae_keras, name)
    if inspect.isclass(value):
        functions = [value.__init__]
    elif isinstance(value, types.ModuleType):
        functions = [
            each
            for each in vars(value).values()
            if inspect.isroutine(each) and each.__module__ == value.__name__
        ]
    else:
        functions = [value]
    assert [unannotated(each) for each in functions] == [[]] * len(functions)


def test_a_missing_annotation_is_found():
    def half(one: int, two, *rest: str): ...

    assert unannotated(half) == ["two", "return"]
