"""Tests that no module of the package holds a function or class of its own name."""

import ast

from backends_tests.support import ROOT


def namesakes(folder):
    """Return the modules and packages in a folder that define a function or class of their own name."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        name = path.parent.name if path.name == "__init__.py" else path.stem
        body = ast.parse(path.read_text("utf-8")).body
        if any(getattr(node, "name", None) == name for node in body):
            found.append(str(path.relative_to(folder)))
    return found


def test_no_module_holds_a_function_of_its_own_name():
    assert namesakes(ROOT / "vmae_keras") == []


def test_a_function_of_its_modules_name_is_found(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "__init__.py").write_text("class target: ...\n")
    (tmp_path / "masks.py").write_text("def masks(): ...\n")
    (tmp_path / "plan.py").write_text("class Plan: ...\n\n\ndef read(plan): ...\n")
    assert namesakes(tmp_path) == ["masks.py", "target/__init__.py"]
