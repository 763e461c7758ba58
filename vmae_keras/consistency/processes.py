"""Worker processes, one per backend, because Keras fixes its backend when it is imported."""

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen

from vmae_keras import backend
from vmae_keras.backend.worker_process import run_worker
from vmae_keras.consistency import COMPARED_BACKENDS
from vmae_keras.consistency.setup import Setup

AT_ONCE = 2


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one backend's worker: a result or a failure, and the seconds it took."""

    result: Path | None
    failure: str = ""
    seconds: float = 0.0


def compute(
    setup: Setup,
    names: list[str],
    folder: Path,
    say: Callable[[str, str], None],
    ended: Callable[[str, Outcome], None],
) -> dict[str, Outcome]:
    """Run the workers, two at a time, and return their outcomes by backend.

    Args:
        setup: Model and data to compute.
        names: Backends.
        folder: Folder for the workers' files.
        say: Function of a backend and its current step; called from threads.
        ended: Function of a backend and its outcome; called from threads.
    """
    setup.save(folder / "setup.json")
    running: list[Popen] = []

    def work(name: str) -> Outcome:
        outcome = _outcome(name, folder, say, running)
        ended(name, outcome)
        return outcome

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            return dict(zip(names, pool.map(work, names), strict=True))
        except BaseException:  # including Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _outcome(
    name: str, folder: Path, say: Callable[[str, str], None], running: list[Popen]
) -> Outcome:
    if name not in backend.installed(COMPARED_BACKENDS):
        package = f"'vmae-keras[{name}]'" if name in backend.BACKENDS else name
        return Outcome(None, f"not installed. Install it: pip install {package}")
    began = time.monotonic()
    say(name, "starting")
    result = folder / f"{name}.safetensors"
    failure = run_worker(
        "vmae_keras.consistency.worker",
        [str(folder / "setup.json"), str(result)],
        name,
        folder / f"{name}.errors",
        lambda line: say(name, line),
        running.append,
    )
    return Outcome(None if failure else result, failure, time.monotonic() - began)
