"""README.md and docs/: examples that tests run, links that lead somewhere, generated pages up to date."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from backends_tests.examples import PAGES, examples, run_by_tests
from backends_tests.support import ROOT, imported

TEXTS = [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]


def anchors(page):
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.casefold()).replace(" ", "-") for title in titles}


def dead_links(page):
    """Return the links of a page to files of this repository, or to headings, that do not exist."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith("    ")]
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", "\n".join(lines)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(link)
    return dead


def left_out(run):
    """Return the Python blocks that are not among those that tests run."""
    return [
        f"{page}:\n{text}" for page in PAGES for text in examples(page) if (page, text) not in run
    ]


def test_every_python_example_is_run_by_a_test():
    run = run_by_tests()
    assert not left_out(run), "No test runs these examples:\n" + "\n".join(left_out(run))
    assert len(left_out(run[1:])) == 1 and len(run) >= 8


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](page.md#one) [b](page.md#two) [c](nothing.md) [d](#one)\n", "utf-8")
    assert dead_links(page) == ["page.md#two", "nothing.md"]


def test_the_index_links_every_page():
    index = (ROOT / "docs/index.md").read_text("utf-8")
    linked = {str(Path("docs", link)) for link in re.findall(r"\]\(([\w/-]+\.md)\)", index)}
    assert linked == set(PAGES) - {"README.md", "docs/index.md"}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def pinned(package):
    text = (ROOT / "scripts/constraints.txt").read_text("utf-8")
    return re.search(rf"^{package}==(.+)$", text, re.MULTILINE)[1]


def test_the_reference_is_what_the_script_generates():
    for package in ("typer", "click"):  # which lay out the help
        if (version := importlib.metadata.version(package)) != pinned(package):
            pytest.skip(f"{package} {version} is not the pinned one")
    _, output = imported(
        "import sys; sys.argv[1:] = ['--check']; import runpy\n"
        "try: runpy.run_path('scripts/reference.py', run_name='__main__')\n"
        "except SystemExit as error: print(error)"
    )
    assert output.strip() == ""
