"""A module of ours in a process of its own, on a backend of its own."""

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
    """Runs `python -m module arguments` with Keras on a backend; returns why it failed, "" if it did not.

    Args:
        name: of the backend.
        errors: file that keeps what the process writes to standard error.
        say: is called with each line that it prints.
        started: is called with the process.
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
                for line in process.stdout:
                    say(line.strip())
            except BaseException:  # Ctrl-C among them: nobody waits for it any more
                process.kill()
                raise
        file.seek(0)
        lines = [line.strip() for line in file if line.strip()]
    if process.returncode == 0:
        return ""
    if process.returncode < 0:  # as when memory runs out
        return f"killed by {signal.Signals(-process.returncode).name}"
    return lines[-1] if lines else f"exit code {process.returncode}"
