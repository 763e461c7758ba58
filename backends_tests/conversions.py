"""Conversion of models to artifacts in kept processes, so that frameworks are imported only once."""

import contextlib
import io
import json
import runpy
import subprocess
import sys
import warnings
from unittest import mock

from backends_tests.support import BACKEND, ROOT
from vmae_keras.backend import environment

# Runs a module for each input line, and replies with what it printed. Converters print too.
SERVER = """
import json, sys
from backends_tests.conversions import run_module

answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    print(json.dumps(run_module(*json.loads(line))), file=answers, flush=True)
"""


def run_module(module: str, arguments: list[str]) -> str:
    """Run a module in this process as `python -m` does; return its output."""
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [module, *arguments]),
        contextlib.redirect_stdout(printed),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # from converters; pytest turns warnings into errors
        runpy.run_module(module, run_name="__main__")
    return printed.getvalue()


class Conversions:
    """Replacement for `run_worker` that converts here, or in one kept process per other backend."""

    def __init__(self):
        self.servers = contextlib.ExitStack()
        self.started = {}

    def __call__(self, module, arguments, name, errors, say):
        printed = self._elsewhere(name, module, arguments) if name != BACKEND else None
        for line in (printed or run_module(module, arguments)).splitlines():
            say(line)
        return ""

    def _elsewhere(self, name, *job):
        if name not in self.started:
            self.started[name] = self.servers.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SERVER],
                    env=environment(name),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    encoding="utf-8",
                    cwd=ROOT,
                )
            )
        server = self.started[name]
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())
