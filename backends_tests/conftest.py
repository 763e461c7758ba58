"""Refuses clauses that spec/SPEC.md does not have; `--clauses FOLDER` records what tests found."""

from pathlib import Path

import pytest

from backends_tests import clauses


def pytest_addoption(parser):
    parser.addoption(
        "--clauses",
        type=Path,
        metavar="FOLDER",
        help="record there, one file per implementation, what the tests found for each clause",
    )


def pytest_configure(config):
    folder = config.getoption("--clauses")
    if folder and not hasattr(config, "workerinput"):  # xdist's workers report to the controller
        config.pluginmanager.register(clauses.Recorder(folder))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    for item in (node for node in report.result or () if isinstance(node, pytest.Item)):
        marks = item.iter_markers("clause")
        ids = list(dict.fromkeys(clause for mark in marks for clause in mark.args))
        if unknown := clauses.unknown(ids):
            report.outcome = "failed"
            report.longrepr = (
                f"{item.nodeid} names clauses that spec/SPEC.md does not have: {', '.join(unknown)}"
            )
        if ids:
            owner = clauses.implementation(item.path)
            item.user_properties += [("clauses", ids), ("implementation", owner)]
    return report
