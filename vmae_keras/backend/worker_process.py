"""Running of a module of this library in a worker process, on a chosen backend."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vmae_keras import backend


def run_worker(
    module: str,
    arguments: list[str],
    name: str,
    errors: Path,
    say: Callable[[str], None],
    started: Callable[[subprocess.Popen], None] = lambda process: None,
) -> str:
    """Run `python -m module arguments` with Keras on a backend. Return why it failed, or "" on success.

    Args:
        module: Name of the module.
        arguments: Command-line arguments.
        name: Name of the backend.
        errors: File for the standard error of the process.
        say: Function called with each line that the process prints.
        started: Function called with the process.
    """
    command = [sys.executable, "-m", module, *arguments]
    with open(errors, "w+", encoding="utf-8", errors="replace") as file:
        with subprocess.Popen(
            command,
            env=backend.environment(name),
            stdout=subprocess.PIPE,
            stderr=file,
            encoding="utf-8",
            errors="replace",
        ) as process:
            started(process)
            try:
                for line in process.stdout or ():
                    say(line.strip())
            except BaseException:  # including Ctrl-C: the result is no longer needed
                process.kill()
                raise
        file.seek(0)
        lines = [line.strip() for line in file if line.strip()]
    if process.returncode == 0:
        return ""
    if process.returncode < 0:  # for example, out of memory
        return f"killed by {signal.Signals(-process.returncode).name}"
    return lines[-1] if lines else f"exit code {process.returncode}"
