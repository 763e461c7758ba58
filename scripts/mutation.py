"""Mutation testing: change the library at random, one small change at a time, and check that a test fails.

    python scripts/mutation.py                             # 12 changes of each module, on torch
    python scripts/mutation.py --modules masks views --count 30 --seed 7

For each module of `MODULES` the script draws changes of operators, constants, conditions and return values
(`backends_tests/random_mutants.py`). The seed is today's date unless --seed is given. First, each test runs
once, and the lines that it executes are kept in build/mutation/lines; this takes about ten minutes. Then
each change is tested by the tests that run its line, the fastest first, until one fails. Results are
appended to build/mutation/results-BACKEND.jsonl, and changes with a result there are not repeated.

At the end it prints a table and the changes that no test noticed. The exit status is 1 if fewer than nine
in ten were noticed.
"""

import argparse
import datetime
import hashlib
import json
import os
import queue
import random
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from backends_tests import forked, mutant_runs  # noqa: E402
from backends_tests.random_mutants import Change, changed, changes  # noqa: E402
from backends_tests.support import SHARED  # noqa: E402

MODULES = {
    name: files.split()
    for name, files in {
        "masks": "masks.py",
        "tubelets": "tubelets.py",
        "target": "target.py",
        "positions": "positions.py",
        "layers": "layers.py",
        "model": "model.py",
        "encoder": "encoder.py",
        "classifier": "classifier.py",
        "sampling": "data/sampling.py",
        "augment": "data/crops.py data/augmentation.py",
        "mixing": "data/mixing.py",
        "views": "data/views.py",
        "optimizer": "training/optimizer.py",
        "loop": "training/loop.py",
        "callbacks": "training/callbacks.py",
        "checkpoint": "training/checkpoint.py",
        "pretraining data": "data/pretraining.py",
        "batches": "data/batches.py data/clips.py",
        "decode": "data/frames.py data/packets.py data/video.py data/timeline.py",
        "evaluate": "evaluation/classification.py",
    }.items()
}
NEEDED = 0.9  # minimum share of changes that the tests must notice
FIRST = 20  # tests to run before the slower ones are collected
SECONDS = 90.0  # of tests for each change, at most
# These run no library code in their own process, and are slow.
LEFT_OUT = (
    "test_mutants",
    "test_mutants_on_a_backend",
    "test_distribution",
    "test_processes_of_a_job",
)


def copied(folder: Path) -> Path:
    """Return a copy of the project in which changes are tested."""
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=ignored)
    return mutant_runs.prepared(folder)


def digest(*texts: bytes) -> str:
    """Return a short hash of some contents."""
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


class Progress:
    """Progress display: prints lines with the number done so far and the estimated time remaining."""

    def __init__(self, count: int):
        self.count, self.done, self.start = count, 0, time.monotonic()

    def say(self, text: str):
        self.done += 1
        left = (time.monotonic() - self.start) / self.done * (self.count - self.done)
        print(
            f"{self.done}/{self.count}  left {left // 60:.0f}:{left % 60:02.0f}  {text}", flush=True
        )


class Copies:
    """Copies of the project, each for one process at a time, on which functions run in parallel."""

    def __init__(self, folder: Path, jobs: int):
        self.jobs, self.free = jobs, queue.SimpleQueue()
        self.root = copied(folder / "as it is")  # no change touches this copy
        for job in range(jobs):
            shutil.copytree(self.root, folder / str(job))
            self.free.put(folder / str(job))

    def each(self, function, items: list):
        """Call function(copy, item) for every item."""

        def call(item):
            copy = self.free.get()
            try:
                function(copy, item)
            finally:
                self.free.put(copy)

        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(call, items))


def lines_of_tests(copies: Copies, folder: Path, stems: list[str]) -> dict[str, dict]:
    """Return {test: its seconds and the lines that it runs}, cached in `folder`."""
    sources = sorted((copies.root / "vmae_keras").rglob("*.py"))
    library = digest(*(path.read_bytes() for path in sources))
    files = [
        path.relative_to(copies.root)
        for part in ("once", "each_backend")
        for path in sorted((copies.root / "backends_tests" / part).glob("test_*.py"))
        if path.stem not in LEFT_OUT and (not stems or path.stem in stems)
    ]
    kept = {
        file: folder / f"{file.stem}-{digest((copies.root / file).read_bytes())}-{library}.json"
        for file in files
    }
    absent = [file for file in files if not kept[file].exists()]
    progress = Progress(len(absent))

    def collect(copy, file):
        out = copy / "lines.json"
        out.unlink(missing_ok=True)
        options = ["-pbackends_tests.line_tracer", f"--lines={out}"]
        names = [str(file.relative_to("backends_tests"))]
        forked.run(copy, [*options, *mutant_runs.arguments(names)], limit=1200)
        tests = json.loads(out.read_text("utf-8")) if out.exists() else {}
        if tests:
            kept[file].write_text(json.dumps(tests), "utf-8")
        progress.say(f"{file}: {len(tests)} tests" + ("" if tests else ", LEFT OUT"))

    copies.each(collect, absent)
    found = {}
    for path in kept.values():
        found |= json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def covering(tests: dict, file: str, change: Change) -> list[str]:
    """Return the tests that run a change's lines, the fastest first, within `SECONDS` in total."""
    found = [
        (test["seconds"], name)
        for name, test in tests.items()
        if not set(change.lines).isdisjoint(test["lines"].get(file, ()))
    ]
    total, names = 0.0, []
    for seconds, name in sorted(found):
        total += seconds
        if names and total > SECONDS:
            break
        names.append(name)
    return names


def tried(copy: Path, file: str, change: Change, tests: list[str]) -> dict:
    """Test one change; return the outcome and the test that noticed it."""
    path = copy / "vmae_keras" / file
    source, start = path.read_text("utf-8"), time.monotonic()
    path.write_text(changed(source, change), "utf-8")
    result = {"state": "survived" if tests else "no test", "test": ""}
    try:
        for some in (tests[:FIRST], tests[FIRST:]):
            if not some:
                continue
            names = [name.removeprefix("backends_tests/") for name in some]
            status, text = forked.run(
                copy, ["-x", *mutant_runs.arguments(names)], limit=2 * SECONDS
            )
            if status == 0:
                continue
            failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - |$)", text, re.M)
            state = "noticed" if status is not None else "took too long"
            result = {"state": state, "test": failed[1] if failed else f"exit status {status}"}
            break
    finally:
        path.write_text(source, "utf-8")
    return result | {"tests": len(tests), "seconds": round(time.monotonic() - start, 1)}


def drawn(root: Path, module: str, count: int, seed: int) -> list[tuple[str, str, Change]]:
    """Draw changes of a module: (file, digest of its source, change) of each."""
    every = []
    for file in MODULES[module]:
        source = (root / "vmae_keras" / file).read_text("utf-8")
        every += [(file, digest(source.encode()), change) for change in changes(source)]
    return random.Random(f"{seed} {module}").sample(every, min(count, len(every)))


def report(results: dict[str, list[dict]]) -> bool:
    """Print a row for each module and the unnoticed changes; return whether enough were noticed."""
    print(f"\n{'module':12}{'noticed':>9}{'of':>6}{'share':>8}")
    total, noticed = 0, 0
    for module, found in results.items():
        good = sum(each["state"] in ("noticed", "took too long") for each in found)
        print(f"{module:12}{good:9}{len(found):6}{good / max(len(found), 1):8.0%}")
        total, noticed = total + len(found), noticed + good
    print(f"{'all':12}{noticed:9}{total:6}{noticed / max(total, 1):8.1%}\n")
    for found in results.values():
        for each in found:
            if each["state"] in ("survived", "no test"):
                where = f"vmae_keras/{each['file']}:{each['line']}"
                print(f"{each['state']}: {where}  {each['old']}  ->  {each['new']}")
    return noticed >= NEEDED * total


def main(arguments=None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=list(MODULES))
    parser.add_argument("--count", type=int, default=12, help="changes per module")
    parser.add_argument("--seed", type=int, default=int(f"{datetime.date.today():%Y%m%d}"))
    parser.add_argument("--backend", default="torch", choices=("torch", "tensorflow", "jax"))
    parser.add_argument(
        "--tests", nargs="*", default=[], help="test files, such as test_masks; default: all"
    )
    parser.add_argument("--jobs", type=int, default=2, help="parallel processes")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutation")
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}, {given.backend}")
    os.environ |= mutant_runs.environment(given.backend) | {"VMAE_SHARED": str(SHARED)}
    (lines := given.out / "lines" / given.backend).mkdir(parents=True, exist_ok=True)
    kept = given.out / f"results-{given.backend}.jsonl"
    known = {}
    if kept.exists():
        for line in kept.read_text("utf-8").splitlines():
            result = json.loads(line)
            known[result["key"]] = result
    with tempfile.TemporaryDirectory() as folder:
        copies = Copies(Path(folder), given.jobs)
        tests = lines_of_tests(copies, lines, given.tests)
        results, absent = defaultdict(list), []
        for module in given.modules:
            for file, source, change in drawn(copies.root, module, given.count, given.seed):
                key = f"{file} {source} {change.node} {change.variant}"
                if key in known:
                    results[module].append(known[key])
                else:
                    absent.append((module, key, file, change))
        # Alternate between the modules, so that an interrupted run has some changes of each.
        random.Random(given.seed).shuffle(absent)
        progress = Progress(len(absent))

        def attempt(copy, item):
            module, key, file, change = item
            texts = {"line": change.line, "old": change.old, "new": change.new}
            result = {"key": key, "file": file} | texts
            result |= tried(copy, file, change, covering(tests, file, change))
            with kept.open("a", encoding="utf-8") as out:
                out.write(json.dumps(result) + "\n")
            results[module].append(result)
            what = f"{change.old} -> {change.new}"
            progress.say(f"{result['state']}: {file}:{change.line}  {what}  {result['seconds']} s")

        copies.each(attempt, absent)
    return 0 if report({module: results[module] for module in given.modules}) else 1


if __name__ == "__main__":
    sys.exit(main())
