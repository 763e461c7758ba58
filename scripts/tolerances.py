"""Measure the noise behind each tolerance again: python scripts/tolerances.py [--write]

The script runs the tests that compare within tolerances (`backends_tests/compare.py`) on each backend, with
several seeds of weights and batches, and `vmae consistency`. It prints the largest error under each
tolerance of `spec/tolerances.toml` and where it occurred, and names the tolerances that are more than
fifteen times or less than three times as large. With --write it updates these figures in the table; the
tolerances stay unchanged.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from spec.tolerances import MOST, PATH, TOLERANCES  # noqa: E402
from vmae_keras import VideoMAEConfig, backend  # noqa: E402
from vmae_keras.consistency import comparison, processes  # noqa: E402
from vmae_keras.consistency.setup import Setup  # noqa: E402

LABELS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
LEAST = 3  # times the noise


def tests(records, folder, name):
    """Return the tests of a folder that recorded errors on a backend.

    Without records, return all test files that may record.
    """
    lines = [line for line in recorded(records) if line.get("backend", name) == name]
    found = sorted({line["test"] for line in lines if f"/{folder}/" in line["test"]})
    return found or [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "backends_tests" / folder).glob("test_*.py"))
        if re.search(r"\b(assert_close|assert_within|record)\(", path.read_text("utf-8"))
    ]


def recorded(records):
    for path in records.glob("*.jsonl"):
        yield from map(json.loads, path.read_text("utf-8").splitlines())


def run_tests(records, chosen, seed, workers, name="torch"):
    """Run tests; return False if one failed. Measurements are recorded in either case."""
    print(f"{len(chosen)} files or tests, {LABELS[name]}, seed {seed}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=line",
            "-n",
            str(workers),
            "--dist",
            "loadfile",
            "--no-loadscope-reorder",
            *chosen,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={
            **os.environ,
            "KERAS_BACKEND": name,
            "VMAE_ERRORS": str(records),
            "VMAE_SEED": str(seed),
        },
    )
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
    return done.returncode == 0


def run_consistency(records, seeds):
    """Compare the backends as `vmae consistency` does."""
    names = backend.installed(processes.NAMES)
    names_of = {quantity: name for name, quantity in comparison.QUANTITIES.items()}
    with open(records / "consistency.jsonl", "a", encoding="utf-8") as file:
        for variant in ("tiny", "demo"):
            for seed in range(seeds):
                print(f"vmae consistency, {variant}, seed {seed}", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory() as folder:
                    setup = Setup(VideoMAEConfig.variant(variant), seed=seed)
                    outcomes = processes.compute(
                        setup, names, Path(folder), lambda *_: None, lambda *_: None
                    )
                    results = {
                        name: comparison.Result(outcome.result)
                        for name, outcome in outcomes.items()
                        if outcome.result
                    }
                    for row in filter(lambda row: row.tolerance, comparison.compare(results)):
                        (one, other), worst = row.worst
                        line = {
                            "tolerance": f"consistency.{names_of[row.quantity]}.{row.precision}",
                            "error": worst.value,
                            "test": f"{one} and {other}, {variant} {worst.weight}".rstrip(),
                        }
                        file.write(json.dumps(line) + "\n")


def measured(records):
    """Return {tolerance: (largest error, its test, the largest errors of the other backends)}."""
    worst = collections.defaultdict(dict)
    for line in recorded(records):
        of = worst[line["tolerance"]]
        label = LABELS.get(line.get("backend"), "")
        test = re.sub(r"^backends_tests/\w+/", "", line["test"])
        of[label] = max(of.get(label, (-1.0, "")), (line["error"], test))
    found = {}
    for name, errors in worst.items():
        (label, (error, test)), *others = sorted(errors.items(), key=lambda item: -item[1][0])
        rest = ", ".join(f"{label or 'elsewhere'} {error:.1e}" for label, (error, _) in others)
        place = f"{label}, {test}" if label else test
        found[name] = error, f"{place}; {rest}" if rest else place
    return found


def rewritten(text, found):
    """Return the table's text with the measured figures; everything else stays the same."""
    for name, (error, where) in found.items():
        heading = rf'^\["?{re.escape(name)}"?\]\n(?:.*\n)*?'
        for field, value in (("measured", f"{error:.1e}"), ("where", json.dumps(where))):
            text, count = re.subn(
                rf"({heading}{field} = ).*", lambda match, v=value: match[1] + v, text, flags=re.M
            )
            assert count == 1, f"{name} has {count} fields `{field}`"
    return text


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="update the figures in the table")
    parser.add_argument(
        "--backends",
        default=",".join(backend.installed()),
        help="backends to measure, separated by commas",
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2, help="processes per test run")
    parser.add_argument(
        "--records", type=Path, help="folder of records; existing records count too"
    )
    parser.add_argument(
        "--read", action="store_true", help="only read --records, without running tests"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        records = arguments.records or Path(temporary)
        records.mkdir(parents=True, exist_ok=True)
        passed = True
        if not arguments.read:
            for seed in range(arguments.seeds):
                runs = [("each_backend", name) for name in arguments.backends.split(",")]
                for folder, name in (*runs, *((f, "torch") for f in ("oracle", "once", "peers"))):
                    chosen = tests(records, folder, name)
                    passed &= run_tests(records, chosen, seed, arguments.workers, name)
            run_consistency(records, arguments.seeds)
        found = measured(records)
    out = []
    for name, tolerance in TOLERANCES.items():
        error, where = found.get(name, (None, "not measured"))
        if error is None:
            out.append(name)
            print(f"{name}: not measured")
            continue
        times = tolerance.value / error if error else float("inf")
        print(f"{name}: {error:.1e} ({where}); {tolerance.value:.1e} is {times:.1f} times")
        if times < LEAST or (times > MOST and not tolerance.why):
            out.append(name)
    if out:
        print(f"\nOutside of {LEAST} to {MOST} times the noise, or not measured: {', '.join(out)}")
    if arguments.write:
        PATH.write_text(rewritten(PATH.read_text("utf-8"), found), "utf-8")
    sys.exit(bool(out) or not passed)


if __name__ == "__main__":
    main()
