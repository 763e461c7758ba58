"""Test training under faults: Ctrl-C, SIGTERM, kill -9 of trainer and workers, a full disk, double starts.

    python scripts/faults.py --backend torch

The script draws clips and trains a small model on them without interruption, then repeatedly with faults at
random moments (`--seed`). Each output line names the fault and the result. A resumed run must end with
exactly the weights of the uninterrupted one. It takes some minutes, and exits with 1 if a check fails. The
disk is filled on a small file system of its own, and /dev/shm is replaced for one command. Both need root.
"""

import argparse
import contextlib
import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

# A command that saves at every row of the log instead of once a minute. HOLD is a pair of file descriptors:
# after its first checkpoint the run writes to the first and waits until it can read from the second.
COMMAND = """
import os
from vmae_keras.process import interrupts
interrupts.install()  # as `main` does, which comes too late here
from vmae_keras.training import callbacks
from vmae_keras.__main__ import main
callbacks.SAVE_SECONDS, callbacks.SAVE_SHARE = 0.0, 1e9
if "HOLD" in os.environ:
    end_interval = callbacks.Progress.on_epoch_end
    def hold(self, epoch, logs=None):
        end_interval(self, epoch, logs)
        callbacks.Progress.on_epoch_end = end_interval
        told, told_by = map(int, os.environ["HOLD"].split())
        os.write(told, b".")
        os.read(told_by, 1)
    callbacks.Progress.on_epoch_end = hold
main()
"""
INSTALLED = "from vmae_keras.__main__ import main; main()"
MODEL = {
    "height": 32,
    "width": 32,
    "frames": 4,
    "dim": 64,
    "depth": 2,
    "heads": 2,
    "mlp_dim": 128,
    "drop_path": 0.1,
    "batch_size": 4,
}
INTERRUPTS, KILLS, SECONDS = 20, 5, 10.0
NEAR_THE_END = 20  # steps, two rows of the log; a run may end before it notices a signal
WORKERS = 2
BAD = ("Traceback", "Exception ignored", "leaked", "Error in atexit")
LIMIT = 300


class Faults:
    def __init__(self, folder, backend, epochs, seed):
        self.folder, self.random = folder, random.Random(seed)
        self.environment = {**os.environ, "KERAS_BACKEND": backend}
        self.clips, self.unbroken = folder / "clips", folder / "unbroken"
        changes = [f"--set={name}={value}" for name, value in (MODEL | {"epochs": epochs}).items()]
        self.options = [*changes, "--workers", str(WORKERS)]
        self.failed = 0

    def start(self, *arguments, program=COMMAND, before=(), hold=()):
        """Start the command in its own process group, as a terminal does."""
        held = {"HOLD": " ".join(map(str, hold))} if hold else {}
        return subprocess.Popen(
            [*before, sys.executable, "-c", program, *map(str, arguments)],
            env=self.environment | held,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            process_group=0,
            pass_fds=hold,
        )

    def train(self, run, **options):
        """Start or resume a run."""
        resume = ["--resume", "--workers", str(WORKERS)] if (run / "run.json").exists() else None
        begin = [self.clips, *self.options]
        return self.start("pretrain", "--out", run, *(resume or begin), **options)

    @contextlib.contextmanager
    def held(self, run):
        """Start a run and hold it after its first checkpoint until the block ends."""
        (heard, told), (told_by, wake) = os.pipe(), os.pipe()
        process = self.train(run, hold=(told, told_by))
        os.close(told)
        os.close(told_by)
        os.read(heard, 1)
        yield process
        os.close(heard)
        os.close(wake)

    def report(self, what, problems, result=""):
        """Print one line."""
        self.failed += bool(problems)
        parts = [what, *([result.strip()] if result else []), *problems]
        print(f"{'FAILED' if problems else 'ok'}: {'; '.join(parts)}", flush=True)

    def ended(self, process, codes):
        """Wait for the end; return (problem, seconds, output)."""
        began = time.monotonic()
        try:
            text, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return [f"did not end within {LIMIT} s"], LIMIT, process.communicate()[0]
        took = time.monotonic() - began
        problems = [f"printed {word!r}: {text[-2000:]}" for word in BAD if word in text]
        if process.returncode not in codes:
            problems.append(f"exit code {process.returncode}: {text[-2000:]}")
        if not self.gone(process.pid):
            problems.append("left processes behind")
            os.killpg(process.pid, signal.SIGKILL)
        return problems, took, text

    def gone(self, group):
        """Return whether all processes of a group end within a minute."""
        for _ in range(600):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.1)
        return False

    def finish(self, run, log=True):
        """Resume a run to its end; return how it differs from the uninterrupted one."""
        process = self.train(run)
        problems, _, _ = self.ended(process, {0})
        return problems or self.differences(run, log)

    def differences(self, run, log=True):
        mine, theirs = weights(run), weights(self.unbroken)
        if mine is None or mine.keys() != theirs.keys():
            return ["has other weights than the unbroken run"]
        changed = [name for name in theirs if not np.array_equal(mine[name], theirs[name])]
        problems = [f"{len(changed)} weights differ from the unbroken run's"] if changed else []
        if log and rows(run) != rows(self.unbroken):
            problems.append("log.csv differs from the unbroken run's")
        left = [str(path) for path in run.rglob("*") if path.suffix == ".partial"]
        left += map(str, run.glob("*/writing"))
        return [*problems, *(f"left {path}" for path in left)]


def weights(run):
    found = sorted((run / "checkpoints").glob("step-*.safetensors"))
    return load_file(found[-1]) if found else None


def last_step(run):
    """Return the step of a run's last checkpoint, or 0."""
    found = sorted((run / "checkpoints").glob("step-*.safetensors"))
    return int(found[-1].stem.removeprefix("step-")) if found else 0


def rows(run):
    with open(run / "log.csv", newline="", encoding="utf-8") as file:
        return [(row["step"], row["loss"], row["validation_loss"]) for row in csv.DictReader(file)]


def begin(faults):
    process = faults.start("synthesize", faults.clips, "--count", 60)
    faults.report("clips are drawn", faults.ended(process, {0})[0])
    process = faults.train(faults.unbroken)
    problems, took, _ = faults.ended(process, {0})
    faults.report("an uninterrupted run", problems, f"{took:.1f} s")
    return not faults.failed


def signals(faults, number, count):
    """Send signals to all processes of the terminal at random moments; resume the run each time."""
    code, name = 128 + number, signal.Signals(number).name
    run = faults.folder / f"{name}-0"
    for _ in range(count):
        run = another_if_done(faults, run, log=False)
        moment = faults.random.uniform(0, SECONDS)
        process = faults.train(run)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        over, left = process.poll() is not None, last_step(faults.unbroken) - last_step(run)
        if not over:
            os.killpg(process.pid, number)
        # Before Python installs its handlers, the signal ends the process by the system's default.
        problems, took, text = faults.ended(process, {0} if over else {code, -number, 0})
        swallowed = not over and left > NEAR_THE_END
        if process.returncode == 0 and (swallowed or "Done: " not in text):
            problems.append("the signal was swallowed")
        if process.returncode == code and "Stopped" in text and "Continue with: " not in text:
            problems.append("did not say how to continue")
        said = next((line for line in text.splitlines() if line.startswith("Stopped")), "")
        result = f"exit code {process.returncode} after {took:.2f} s. {said}"
        faults.report(f"{name} after {moment:.2f} s", problems, result)
    faults.report(f"{run.name} resumed to its end", faults.finish(run, log=False))


def another_if_done(faults, run, log):
    """Return the run or, if it has finished, the folder of another one."""
    if last_step(run) < last_step(faults.unbroken):
        return run
    faults.report(f"{run.name} resumed to its end", faults.differences(run, log))
    name, _, attempt = run.name.rpartition("-")
    return run.with_name(f"{name}-{int(attempt) + 1}")


def kills(faults):
    """Kill the trainer with kill -9 at random moments, which must release its lock and end its workers.

    Every second moment is counted from the first checkpoint, so that it falls in training.
    """
    run = faults.folder / "killed-0"
    for number in range(2 * KILLS):
        run = another_if_done(faults, run, log=True)
        training = number % 2
        moment = faults.random.uniform(0, 1.0 if training else SECONDS)
        begun = faults.held(run) if training else contextlib.nullcontext(faults.train(run))
        with begun as process:
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        process.kill()
        problems, _, text = faults.ended(process, {-signal.SIGKILL, 0})
        if "is being written by" in text:
            problems.append("was refused although the run before was killed")
        where = "of training" if training else "from the start on"
        faults.report(f"kill -9 of the trainer after {moment:.2f} s {where}", problems)
    faults.report(f"{run.name} resumed to its end", faults.finish(run))


def killed_worker(faults):
    run = faults.folder / "worker"
    with faults.held(run) as process:
        os.kill(faults.random.choice(workers(process.pid)), signal.SIGKILL)
    problems, took, text = faults.ended(process, {1})
    wanted = ("was killed by SIGKILL", "fewer --workers", "Continue with: ", "is saved up to step")
    problems += [f"did not say {each!r}: {text[-500:]}" for each in wanted if each not in text]
    faults.report("kill -9 of a worker", problems, f"exit code 1 after {took:.2f} s")
    faults.report("run without a worker resumed to its end", faults.finish(run, log=False))


def workers(parent):
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            started_by = (path / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1]
            if started_by == str(parent) and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def full_disk(faults):
    """Fill a small file system while a run writes to it, then while features are written."""
    disk = faults.folder / "disk"
    disk.mkdir()
    size = sum(path.stat().st_size for path in faults.unbroken.rglob("*") if path.is_file())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={4 * size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        print("not run: a full disk, as this user cannot mount a file system")
        return
    try:
        run = disk / "run"
        ballast = disk / "ballast"
        with faults.held(run) as process:
            fill(ballast)
        problems, _, text = faults.ended(process, {1})
        wanted = ("No space is left on the disk", "Continue with: ")
        problems += [f"did not say {each!r}: {text[-500:]}" for each in wanted if each not in text]
        said = next((line for line in text.splitlines() if line.startswith("Error: ")), "")
        faults.report("disk full while a run is saved", problems, said)
        process = faults.start(
            "features", faults.unbroken, faults.clips, "--out", disk / "features"
        )
        problems, _, text = faults.ended(process, {1})
        problems += [f"did not say {each!r}: {text[-500:]}" for each in wanted if each not in text]
        faults.report("disk full while features are written", problems)
        ballast.unlink()
        faults.report("with room again, resumed to its end", faults.finish(run, log=False))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(path):
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def full_shared_memory(faults):
    """Start workers while /dev/shm is full."""
    inside = 'mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero > /dev/shm/full; exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", inside, "sh"]
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        print("not run: a full /dev/shm, as this user cannot mount a file system")
        return
    run = faults.folder / "shared-memory"
    problems, took, _ = faults.ended(faults.train(run, before=before), {0})
    faults.report("/dev/shm full", problems or faults.differences(run), f"{took:.1f} s")


def two_starts(faults):
    """Check that a second start in the folder, and a resume during the run, are refused."""
    run = faults.folder / "two"
    with faults.held(run) as first:
        for name, options in (("start", (faults.clips,)), ("--resume", ("--resume",))):
            second = faults.start("pretrain", "--out", run, *options, program=INSTALLED)
            problems, took, text = faults.ended(second, {1})
            if f"process {first.pid} on " not in text:
                problems.append(f"does not name the other process: {text[-500:]}")
            faults.report(f"a second {name} in a folder", problems, f"refused after {took:.2f} s")
    problems, _, _ = faults.ended(first, {0})
    faults.report("the first one runs to its end", problems or faults.differences(run))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default=os.environ.get("KERAS_BACKEND", "jax"))
    parser.add_argument(
        "--epochs", type=int, default=20, help="epochs; a run should take over ten seconds"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    arguments = parser.parse_args()
    folder = arguments.out.absolute() / f"{arguments.backend}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True)
    faults = Faults(folder, arguments.backend, arguments.epochs, arguments.seed)
    began = time.monotonic()
    if begin(faults):
        signals(faults, signal.SIGINT, INTERRUPTS)
        signals(faults, signal.SIGTERM, KILLS)
        kills(faults)
        killed_worker(faults)
        full_disk(faults)
        full_shared_memory(faults)
        two_starts(faults)
    minutes = (time.monotonic() - began) / 60
    print(f"{arguments.backend}: {faults.failed} failed, {minutes:.1f} minutes")
    sys.exit(bool(faults.failed))


if __name__ == "__main__":
    main()
