"""Test the lowest versions that pyproject.toml allows, on one backend, in a separate environment.

    python scripts/minimum.py --backend jax

The script pretrains on a few clips, reconstructs one of them and runs some of the tests. It keeps the
environment in build/minimum-BACKEND until pyproject.toml changes.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = [f"backends_tests/each_backend/test_{name}.py" for name in ("batches", "parity", "saving")]


def lowest(project: dict, extras: list[str]) -> list[str]:
    """Return a constraint NAME==VERSION for each requirement NAME>=VERSION of a pyproject's extras."""
    optional = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(each for name in extras for each in optional[name])]
    bounds = (re.match(r"([\w-]+)>=([\d.]+)", each) for each in requirements)
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def prepare(folder: Path, backend: str) -> Path:
    """Return the Python of an environment of the lowest versions, creating it if necessary."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    python, constraints = folder / "bin/python", folder / "constraints.txt"
    stamp = folder / "pyproject.toml"
    if not stamp.exists() or stamp.read_text("utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pinned = lowest(tomllib.loads(text)["project"], ["dev", backend])
        constraints.write_text("\n".join(pinned), "utf-8")
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints]
        subprocess.run([*install, "--editable", f"{ROOT}[dev,{backend}]"], check=True)
        stamp.write_text(text, "utf-8")
    return python


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("jax", "tensorflow", "torch"), default="jax")
    backend = parser.parse_args().backend
    python = prepare(ROOT / "build" / f"minimum-{backend}", backend)
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}

    def run(*arguments):
        subprocess.run([python, *arguments], check=True, cwd=ROOT, env=environment)

    with tempfile.TemporaryDirectory() as folder:
        clips, out = f"{folder}/clips", f"{folder}/run"
        run("-m", "vmae_keras", "synthesize", clips, "--count", "24")
        run(
            "-m",
            "vmae_keras",
            "pretrain",
            clips,
            "--out",
            out,
            "--workers",
            "1",
            "--set",
            "epochs=2",
        )
        run("-m", "vmae_keras", "reconstruct", out, str(min(Path(clips).glob("*.mp4"))))
    # Later versions fix the causes of these warnings.
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=", *TESTS)


if __name__ == "__main__":
    sys.exit(main())
