"""Pytest plugin that records which lines of the library each passed test runs in its own process.

    pytest -p backends_tests.line_tracer --lines lines.json ...

The file holds, for each test, its seconds and {file: lines}. Lines run by worker processes are missing.
"""

import json
import os
import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest

LIBRARY = str(Path(__file__).resolve().parents[1] / "vmae_keras") + os.sep


class Tracer:
    """Tracer that records the lines of the library that run between `begin` and `end`."""

    def __init__(self):
        self.lines = defaultdict(set)

    def begin(self):
        self.lines = defaultdict(set)
        threading.settrace(self.call)
        sys.settrace(self.call)

    def end(self):
        sys.settrace(None)
        threading.settrace(None)
        return {name: sorted(lines) for name, lines in self.lines.items()}

    def call(self, frame, event, argument):
        name = frame.f_code.co_filename
        if not name.startswith(LIBRARY):
            return None
        lines = self.lines[name.removeprefix(LIBRARY)]
        lines.add(frame.f_lineno)

        def line(frame, event, argument):
            lines.add(frame.f_lineno)
            return line

        return line


tracer, tests = Tracer(), {}


def pytest_addoption(parser):
    parser.addoption("--lines", type=Path, required=True, help="the file to write")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    tracer.begin()
    try:
        return (yield)
    finally:
        lines = tracer.end()
        if item.nodeid in tests:
            tests[item.nodeid]["lines"] = lines


def pytest_runtest_logreport(report):
    if report.passed:
        test = tests.setdefault(report.nodeid, {"seconds": 0.0})
        test["seconds"] += report.duration
    else:
        tests.pop(report.nodeid, None)


def pytest_sessionfinish(session):
    session.config.getoption("--lines").write_text(json.dumps(tests), "utf-8")
