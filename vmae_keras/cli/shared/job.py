"""Jobs: training in one process, or in several that start and end together."""

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from vmae_keras.cli.shared.terminal import say
from vmae_keras.process import interrupts

if TYPE_CHECKING:
    from vmae_keras.distribution import Devices

ALIKE_SECONDS = 1.0  # time for processes that fail with the same error to print it
LOST_SECONDS = 5.0  # time until the loss of another process is detected


def start_devices(backend: str, devices: int | None, parallel: str | None, again: str) -> "Devices":
    """Return the devices to train on. On PyTorch with several, run this command in a process for each.

    `backend` is the name that `vmae_keras.backend.select` returned.

    After this call, the loss of a process ends the others, which print that `again` resumes the run.

    Raises:
        typer.Exit: The command has run in other processes.
    """
    from vmae_keras import distribution

    if backend == "torch" and (devices or 1) > 1 and distribution.detect() is None:
        raise typer.Exit(_in_processes(devices or 1))
    started = distribution.start(backend, devices, parallel or "data")
    if started.processes > 1:
        _end_together(started, again)
    return started


def batch_changes(devices: "Devices", batch_per_device: int | None) -> list[str]:
    """Return the KEY=VALUE override of the global batch size for a batch size per device."""
    return [f"batch_size={batch_per_device * devices.shares}"] if batch_per_device else []


def _in_processes(count: int) -> int:
    """Run this command in several processes; return the exit code of the first that fails."""
    with held_port() as port:
        return _with_port(count, port)


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """Yield a port for a process to listen on, reserved until the block ends.

    The socket that reserves it does not listen. On Linux, another socket can still listen on the port if
    both set SO_REUSEADDR, as servers do.
    """
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("localhost", 0))
        port = place.getsockname()[1]
        if sys.platform != "linux":
            place.close()
        yield port


def _with_port(count: int, port: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    common = {
        "OMP_NUM_THREADS": str(max(1, (cores or 1) // count)),
        **os.environ,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    command = [sys.executable, "-m", "vmae_keras", *sys.argv[1:]]
    processes: list[subprocess.Popen] = []
    received: list[int] = []

    def pass_on(
        number: int, _: object
    ) -> None:  # on Ctrl-C, the terminal signals all processes too; they count it once
        received.append(number)
        for process in processes:
            process.send_signal(number)

    for each in interrupts.SIGNALS:
        signal.signal(each, pass_on)
    for rank in range(count):
        environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(subprocess.Popen(command, env=environment))
    for number in received:  # signals received while processes were being started
        for process in processes:
            process.send_signal(number)
    failed = None
    while any(process.poll() is None for process in processes):
        time.sleep(0.1)
        if failed is None and any(process.returncode for process in processes):
            failed = time.monotonic()
        if failed and time.monotonic() - failed > 2 * LOST_SECONDS:
            for process in processes:  # they may wait for one that never joined the job
                process.kill()
    codes = [process.returncode for process in processes if process.returncode]
    if codes and received:
        return 128 + received[0]
    return next((code if code > 0 else 128 - code for code in codes), 0)


def _end_together(devices: "Devices", again: str) -> None:
    over = threading.Event()

    def lost(process: int, host: str) -> None:
        if over.is_set():
            return
        say(
            f"Error: process {process} of {devices.processes} (on {host}) is gone, and the others "
            f"cannot train without it. All up to the last checkpoint is saved.\n"
            f"Continue, on any number of devices, with: {again}",
            error=True,
            colour=typer.colors.RED,
        )
        sys.stderr.flush()
        os._exit(1)  # other threads would wait forever

    def end() -> None:
        if (
            not devices.left
        ):  # after an error, already printed; JAX would wait for the other processes
            over.set()
            sys.stdout.flush()
            sys.stderr.flush()
            time.sleep(ALIKE_SECONDS)
            number = interrupts.received()
            os._exit(128 + number if number else 1)

    atexit.register(end)
    devices.watch(lost)


def wait_for_peer_failure(devices: "Devices") -> None:
    """Wait after a backend error: if another process is gone, the watcher reports that and exits."""
    time.sleep(LOST_SECONDS if devices.processes > 1 else 0)
