"""Tests that docstrings start with a verb or a noun, not with a clause that leaves the subject unsaid."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("vmae_keras", "spec", "scripts", "backends_tests")
BAD_START = re.compile(r"(What|Of|Whose|And|How|Whether|That|As|The same)\b")


def badly_begun(source: str) -> list[str]:
    """Return the names of everything whose docstring starts badly; "module" for the module."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        getattr(node, "name", "module")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, documented) and BAD_START.match(ast.get_docstring(node) or "")
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_start_with_a_verb_or_a_noun(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in badly_begun(path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


def test_a_docstring_that_starts_badly_is_found():
    source = '''
"""What a file holds."""

class Sizes:
    """Sizes of a model."""

    def total(self):
        """The same for all layers."""

async def wait():
    """
    Whether it has ended.
    """

def asked():
    """Ask, as users do."""

def plain(): ...
'''
    assert badly_begun(source) == ["module", "wait", "total"]
