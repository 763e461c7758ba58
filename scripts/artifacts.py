"""Test exported artifacts without Keras, each in an environment that has only its runtime.

    python scripts/artifacts.py --variant v2-s

The script exports a classifier of random weights in every format, installs the packages that each README.md
names, and runs the README's program there on a clip. The logits must equal those of Keras. On clips of
other shapes, or in float64, the program must end with an error. Needs `pip install -e '.[export]'`.

With v2-s it took 4.0 minutes on two CPU cores. It downloads 760 MB of packages. TensorFlow's environment
takes 2.2 GB of disk while it is checked; with --keep, all four take 2.8 GB.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CONSTRAINTS = Path(__file__).parent / "constraints.txt"
TOLERANCE = 1e-4  # share of the largest logit
CLASSES = 10
# Inputs that the programs must refuse, derived from a clip (1, T, H, W, C), and their names.
WRONG = {
    "half": ("half the frames", lambda clip: clip[:, ::2]),
    "channels": ("channels before height and width", lambda clip: clip.transpose(0, 1, 4, 2, 3)),
    "float64": ("float64", lambda clip: clip.astype("float64")),
}
# Packages that must be absent; the runtime and its dependencies are allowed.
UNWANTED = (
    "vmae_keras",
    "keras",
    "jax",
    "torch",
    "tensorflow",
    "ai_edge_litert",
    "onnx",
    "onnxruntime",
    "openvino",
)
BROUGHT = {
    "savedmodel": {"tensorflow", "keras"},
    "litert": {"ai_edge_litert"},
    "onnx": {"onnxruntime"},
    "openvino": {"openvino"},
}
IMPORTABLE = """
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name)])
"""
VERSIONS = """
import sys
from importlib.metadata import version
print(*[f"{name} {version(name)}" for name in sys.argv[1:]], sep=", ")
"""


class Failure(Exception):
    """Failed check."""


def classifier(variant):
    """Return a classifier, a clip, and the clip's logits."""
    from vmae_keras import VideoClassifier, VideoMAEConfig, backend

    config = VideoMAEConfig.variant(variant)
    labels = [f"class {number}" for number in range(CLASSES)]
    model = VideoClassifier(config, CLASSES, labels=labels, init_scale=1.0)
    clip = (1, config.frames, config.height, config.width, config.channels)
    clip = np.random.default_rng(1).integers(0, 256, clip, dtype=np.uint8)
    return model, clip, backend.predict(model, clip)


def card(folder):
    """Return the packages and the program in the README."""
    text = (folder / "README.md").read_text("utf-8")
    packages = re.findall(r"^ +pip install (.+)$", text, re.MULTILINE)
    programs = re.findall(r"^```python\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    if len(packages) != 1 or len(programs) != 1:
        raise Failure("the README has not one line `pip install` and one program")
    return packages[0].split(), programs[0]


def on_file(program, video):
    """Return the program with a file's video instead of zeros, and a last line that saves the logits."""
    program, count = re.subn(r'np\.zeros\(\(.+?\), "\w+"\)', f"np.load({str(video)!r})", program)
    if count != 1:
        raise Failure(f"the README's program has {count} arrays of zeros, not one")
    return program + f'np.save({str(logits_of(video))!r}, outputs["logits"])\n'


def logits_of(video):
    return video.with_name(f"{video.stem}-logits.npy")


def make_environment(path, packages):
    """Make an environment; return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", path], check=True)
    python = path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--constraint", CONSTRAINTS, *packages]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise Failure(f"pip cannot install {' '.join(packages)}: {last_line(done.stderr)}")
    return python


def isolated(python, *arguments, folder=None):
    """Run an interpreter that sees only its own environment, and not the working directory."""
    command = [python, "-I", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=300)


def megabytes(folder):
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(file.stat().st_size for file in files) / 1e6


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def error_of(done):
    """Return the last line of a traceback."""
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    after = re.split(r'^  File ".+\n(?:    .+\n)*', done.stderr, flags=re.MULTILINE)[-1]
    return " ".join(after.split())


def run_on(python, program, folder, name, video):
    """Run the program on a video in the artifact's folder; return the finished process and the logits."""
    path = folder / f"{name}.npy"
    np.save(path, video)
    script = folder / f"{name}.py"
    script.write_text(on_file(program, path.resolve()), "utf-8")
    logits_of(path).unlink(missing_ok=True)
    done = isolated(python, script.resolve(), folder=folder)
    return done, np.load(logits_of(path)) if done.returncode == 0 else None


def difference(found, wanted):
    """Return the largest difference of logits, relative to the largest expected; inf if shapes differ."""
    if found.shape != wanted.shape:
        return np.inf
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def check(name, folder, environment, clip, wanted, label, row):
    """Check a format; fill in its row of the table and yield the failures."""
    packages, program = card(folder)
    python = make_environment(environment, packages)
    row["packages"] = isolated(python, "-c", VERSIONS, *packages).stdout.strip()
    row["environment"] = f"{megabytes(environment):.0f} MB"
    unwanted = [each for each in UNWANTED if each not in BROUGHT[name]]
    if there := isolated(python, "-c", IMPORTABLE, *unwanted).stdout.split():
        yield f"its environment has {', '.join(there)}"
    done, logits = run_on(python, program, folder, "clip", clip)
    if done.returncode:
        raise Failure(f"the README's program failed: {error_of(done)}")
    share = difference(logits, wanted)
    row["difference"] = f"{share:.1e}"
    if not share <= TOLERANCE:
        yield f"its logits differ from Keras's by {share:.1e}"
    if last_line(done.stdout) != label:
        yield f"the README's program printed {last_line(done.stdout)!r}, not {label!r}"
    for what, (text, change) in WRONG.items():
        done, logits = run_on(python, program, folder, what, change(clip))
        row[what] = error_of(done)
        if done.returncode == 0:
            row[what] = f"no error: {difference(logits, wanted):.1e} from the clip's logits"
        if done.returncode <= 0:
            yield f"{text}: {row[what]}"


def show(rows):
    print(f"\n{'':12}{'packages':38}{'environment':13}difference")
    for name, row in rows.items():
        packages, size, share = (
            row.get(key, "-") for key in ("packages", "environment", "difference")
        )
        print(f"{name:12}{packages:38}{size:>11}  {share:>10}")
    for what, (text, _) in WRONG.items():
        print(f"\nOn {text}")
        for name, row in rows.items():
            print(f"{name:12}{row.get(what, '-')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variant", default="v2-s")
    parser.add_argument("--out", type=Path, default=Path("runs/artifacts"))
    parser.add_argument("--keep", action="store_true", help="keep the environments for inspection")
    arguments = parser.parse_args()
    from vmae_keras import backend

    backend.select()
    backend.import_keras()
    from vmae_keras.export.exporter import export_model

    began, rows, failures = time.monotonic(), {}, []
    model, clip, wanted = classifier(arguments.variant)
    with tempfile.TemporaryDirectory() as preset:
        model.save_to_preset(preset)
        for name in BROUGHT:
            print(f"{name} ...", flush=True)
            folder, row = arguments.out / name, rows.setdefault(name, {})
            environment = folder / "environment"
            try:
                export_model(preset, folder, name)
                label = model.labels[wanted[0].argmax()]
                for failure in check(name, folder, environment, clip, wanted, label, row):
                    failures.append(f"{name}: {failure}")
            except (Failure, ValueError, subprocess.SubprocessError) as error:
                failures.append(f"{name}: {error}")
            if not arguments.keep:
                shutil.rmtree(environment, ignore_errors=True)
    show(rows)
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes")
    if failures:
        print("\nFailed:", *failures, sep="\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
