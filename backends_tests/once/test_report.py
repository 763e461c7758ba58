"""Tests of clauses and their report: recorded results, and the reasons for a failing report."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from backends_tests import report
from backends_tests.clauses import clauses
from backends_tests.support import ROOT

# Collecting and recording ------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """Write a project with three clauses and only the code that collects and records."""
    (tmp_path / "spec").mkdir()
    (tmp_path / "spec" / "SPEC.md").write_text(
        "".join(f"- **A-{i}** It MUST.\n" for i in (1, 2, 3))
    )
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntestpaths = backends_tests\nmarkers = clause(*ids)\n"
    )
    for folder in ("oracle", "once", "each_backend"):
        (tmp_path / "backends_tests" / folder).mkdir(parents=True)
    for name in ("__init__.py", "conftest.py", "clauses.py", "profiles.py"):
        shutil.copy(ROOT / "backends_tests" / name, tmp_path / "backends_tests")
    return tmp_path


def run(project, *arguments, **environment):
    inherited = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=project, env={**inherited, **environment}, capture_output=True, text=True
    )


def recorded(project, name):
    records = json.loads((project / "found" / f"{name}.json").read_text())
    assert len({record["check"] for record in records}) == len(records)
    return {record.pop("check").partition("::")[2]: record for record in records}


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_clause_that_does_not_exist_is_a_collection_error(project, workers):
    (project / "backends_tests/once/test_some.py").write_text(
        "import pytest\n@pytest.mark.clause('A-1', 'A-4')\ndef test_some(): pass\n"
    )
    result = run(project, "-n", workers)
    assert result.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    assert "test_some names clauses that spec/SPEC.md does not have: A-4" in result.stdout
    assert "1 error" in result.stdout and "passed" not in result.stdout


@pytest.mark.parametrize("workers", ["0", "2"])
def test_states_and_reasons_are_recorded(project, workers):
    (project / "backends_tests/once/test_some.py").write_text("""
import pytest

pytestmark = pytest.mark.clause("A-3")

@pytest.fixture
def broken():
    raise OSError

@pytest.fixture
def broken_at_the_end():
    yield
    raise OSError

@pytest.mark.clause("A-1", "A-3")
@pytest.mark.parametrize("value", [1, pytest.param(2, marks=pytest.mark.clause("A-2"))])
def test_passes(value): pass

def test_fails(): assert False
def test_breaks(broken): pass
def test_breaks_at_the_end(broken_at_the_end): pass
def test_skips(): pytest.skip("no device")

@pytest.mark.xfail(reason="https://example.org/1")
def test_gap(): assert False

@pytest.mark.xfail(reason="closed", strict=True)
def test_closed_gap(): pass
""")
    (project / "backends_tests/once/test_unmarked.py").write_text("def test_unmarked(): pass\n")
    assert run(project, "-n", workers, "--clauses=found").returncode == 1
    assert [file.name for file in (project / "found").iterdir()] == ["library.json"]
    found = recorded(project, "library")
    assert {name: sorted(record["clauses"]) for name, record in found.items() if "[" in name} == {
        "test_passes[1]": ["A-1", "A-3"],
        "test_passes[2]": ["A-1", "A-2", "A-3"],
    }
    assert {name: (record["state"], record["note"]) for name, record in found.items()} == {
        "test_passes[1]": ("pass", ""),
        "test_passes[2]": ("pass", ""),
        "test_fails": ("fail", ""),
        "test_breaks": ("fail", ""),
        "test_breaks_at_the_end": ("fail", ""),
        "test_skips": ("skip", "Skipped: no device"),
        "test_gap": ("gap", "https://example.org/1"),
        "test_closed_gap": ("fail", ""),
    }


def test_each_folder_has_its_implementation(project):
    for folder in ("oracle", "once", "each_backend"):
        (project / f"backends_tests/{folder}/test_{folder}.py").write_text(
            "import pytest\n@pytest.mark.clause('A-1')\ndef test_some(): pass\n"
        )
    result = run(project, "--clauses=found", KERAS_BACKEND="numpy")
    assert result.returncode == 0, result.stdout
    files = sorted(file.name for file in (project / "found").iterdir())
    assert files == ["library.json", "numpy.json", "oracle.json"]


# The report --------------------------------------------------------------------------------------


def check(state="pass", ids=None, note=""):
    return {
        "clauses": list(clauses()) if ids is None else ids,
        "check": "a check",
        "state": state,
        "note": note,
    }


@pytest.fixture
def printed(tmp_path, capsys):
    """Print the report of a complete run with some implementations changed; return (status, text)."""

    def run(**changes):
        names = ("oracle", "library", "jax", "tensorflow", "torch", "hugging_face")
        for name, records in {**{name: [check()] for name in names}, **changes}.items():
            if records is not None:
                (tmp_path / f"{name}.json").write_text(json.dumps(records))
        status = report.main([str(tmp_path)])
        return status, capsys.readouterr().out

    return run


def cells(text, clause):
    [line] = [line for line in text.splitlines() if line.startswith(f"{clause} ")]
    return line.split()[-6:]


def without(clause):
    return [check(ids=[other for other in clauses() if other != clause])]


def test_the_specification_is_read_whole():
    text = (ROOT / "spec" / "SPEC.md").read_text()
    assert len(clauses()) == text.count("\n- **") > 70
    assert clauses()["TUBE-1"].startswith("Token ids MUST be row-major")


def test_a_complete_run_is_content(printed):
    status, text = printed()
    assert status == 0
    assert all(cells(text, clause) == ["pass"] * 6 for clause in clauses())
    assert (
        "Every clause has a passing test without a backend, or on each of jax, tensorflow, torch."
        in text
    )


def test_a_clause_without_a_test_on_one_backend_fails(printed):
    status, text = printed(library=[], tensorflow=without("TUBE-1"))
    assert status == 1
    assert cells(text, "TUBE-1") == ["pass", "-", "pass", "-", "pass", "pass"]
    assert "No passing test on tensorflow: TUBE-1." in text


def test_a_test_without_a_backend_suffices_and_shows_in_a_column_of_its_own(printed):
    status, text = printed(jax=[], tensorflow=[], torch=None)
    assert status == 1
    assert cells(text, "TUBE-1") == ["pass", "pass", "-", "-", "-", "pass"]
    assert "Not recorded: torch." in text and "No passing test" not in text


@pytest.mark.parametrize("name", ["oracle", "library", "jax", "hugging_face"])
def test_a_failed_test_shows_and_fails(printed, name):
    status, text = printed(**{name: [check(), check("fail", ["TUBE-1"])]})
    assert status == 1
    assert "FAIL" in cells(text, "TUBE-1") and "FAIL" not in cells(text, "TUBE-2")
    assert f"FAIL, {name}: TUBE-1: a check" in text


def test_a_skip_is_not_a_pass(printed):
    status, text = printed(
        library=[], jax=[*without("POS-1"), check("skip", ["POS-1"], "no device")]
    )
    assert status == 1
    assert cells(text, "POS-1") == ["pass", "-", "skip", "pass", "pass", "pass"]
    assert "No passing test on jax: POS-1." in text and "skip, jax: POS-1: no device" in text


def test_a_clause_whose_tests_were_skipped_in_part_is_shown_as_such(printed):
    status, text = printed(library=[check(), check("skip", ["DECODE-1"], "no videos")])
    assert status == 0
    assert cells(text, "DECODE-1") == ["pass", "partly", "pass", "pass", "pass", "pass"]
    assert "skip, library: DECODE-1: no videos" in text and "1 skipped." in text


def test_a_gap_shows_with_its_reason_and_is_not_a_pass(printed):
    gap = check("gap", ["POS-1"], "https://example.org/1")
    status, text = printed(jax=[check(), gap])
    assert status == 0
    assert cells(text, "POS-1") == ["pass", "pass", "gap", "pass", "pass", "pass"]
    assert "gap, jax: POS-1: https://example.org/1" in text
    status, text = printed(library=[], jax=[*without("POS-1"), gap])
    assert status == 1 and "No passing test on jax: POS-1." in text


def test_a_peer_may_deviate_and_leave_clauses_out(printed):
    status, text = printed(hugging_face=[check("deviates", ["BLOCK-2"], "epsilon 1e-12")])
    assert status == 0
    assert cells(text, "BLOCK-2")[-1] == "deviates" and cells(text, "BLOCK-1")[-1] == "-"
    assert "deviates, hugging_face: BLOCK-2: epsilon 1e-12" in text


def test_the_library_may_not_deviate(printed):
    status, text = printed(torch=[check(), check("deviates", ["BLOCK-2"], "epsilon 1e-12")])
    assert status == 1 and "deviates, torch: BLOCK-2: a check" in text


def test_what_was_not_recorded_is_said(printed):
    status, text = printed(hugging_face=None, oracle=None)
    assert status == 0
    assert "Not recorded: hugging_face." in text and "Not recorded: oracle." in text


def test_an_unknown_clause_fails(printed):
    status, text = printed(torch=[check(), check(ids=["TUBE-9"])])
    assert status == 1 and "Not in spec/SPEC.md: TUBE-9: torch, a check" in text


def test_another_implementation_gets_a_column(printed):
    status, text = printed(mine=[check(ids=["TUBE-1"])])
    assert status == 0
    assert text.splitlines()[0].split()[-1] == "mine"
