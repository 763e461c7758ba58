"""The Python examples of README.md, docs/ and the public names, and the tests that run them."""

import ast
import inspect
import re
import textwrap

import vmae_keras
from backends_tests.support import ROOT

PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]


def examples(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


def example(page: str, start: str = "") -> str:
    """Return the one block of a page that starts with `start`."""
    (found,) = [text for text in examples(page) if text.startswith(start)]
    return found


def docstring_example(name: str) -> str:
    """Return the one example of a public name's docstring."""
    text = inspect.getdoc(getattr(vmae_keras, name))
    (found,) = re.findall(r"^Example:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    return textwrap.dedent(found)


def replaced(text: str, **values: str) -> str:
    """Return an example with each of `values`, which must occur in it, replaced."""
    for old, new in values.items():
        assert old in text, f"{old!r} is not in the example"
        text = text.replace(old, new)
    return text


def run_by_tests() -> list[tuple[str, str]]:
    """Return (page, text) of each `example(...)` that a test on each backend asks for."""
    found = []
    for path in sorted((ROOT / "backends_tests/each_backend").glob("test_*.py")):
        for test in ast.parse(path.read_text("utf-8")).body:
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                calls = (node for node in ast.walk(test) if isinstance(node, ast.Call))
                found += [
                    [part.value for part in call.args]
                    for call in calls
                    if getattr(call.func, "id", None) == "example"
                ]
    return [(arguments[0], example(*arguments)) for arguments in found]
