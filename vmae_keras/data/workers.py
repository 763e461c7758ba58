"""Worker processes that make the elements of a data set.

Each worker sends arrays through a pipe. Grain's own workers use named shared memory instead: a full
/dev/shm (64 MB in a container) kills them, and a killed worker leaves segments that must be cleaned up.
"""

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Sequence
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection
from typing import Any

import grain
import numpy as np

from vmae_keras.process import interrupts
from vmae_keras.process.failures import Unfinished

AHEAD = 2  # elements of each worker that are queued in this process
_RAW = hasattr(os, "readv")  # avoids an intermediate copy, which takes four times as long
_CONTEXT = multiprocessing.get_context(
    "spawn"
)  # threads and an initialised GPU do not survive a fork


class WorkerDied(Unfinished):
    """Raised when a worker process ends or is killed before it has finished."""

    def __init__(self, workers: int, exit_code: int | None) -> None:
        if exit_code is not None and exit_code < 0:
            how = f"was killed by {signal.Signals(-exit_code).name}"
            if exit_code == -signal.SIGKILL:
                how += ", as the system does when memory runs out"
        else:
            how = f"ended with exit code {exit_code}; its own messages are above"
        super().__init__(
            f"A process that decodes videos {how}. Use fewer --workers (received: {workers}) or smaller "
            "batches."
        )


class WorkerDataset(grain.IterDataset):
    """Data set of the elements of `source` in order. Worker k modulo `workers` makes element k.

    Args:
        source: Random access to elements, which are dicts of arrays. Pickled once per worker.
        workers: Number of worker processes.
    """

    def __init__(self, source: Sequence[Any], workers: int) -> None:
        super().__init__()
        self._source, self._workers = source, workers

    def __iter__(self) -> "WorkerIterator":
        return WorkerIterator(self._source, self._workers)


class WorkerIterator(grain.DatasetIterator):
    """Iterator that starts the workers at the first element, and stops them when closed or exhausted.

    Raises:
        WorkerDied: A worker ended before it made the next element. Raised while iterating.
    """

    def __init__(self, source: Sequence[Any], workers: int) -> None:
        super().__init__()
        self._source, self._count = source, workers
        self._next = 0
        self._workers: list[_Worker] = []
        # Also stops the workers if the program exits without closing the iterator. It must run before
        # Python waits for its child processes.
        self._finalize = util.Finalize(self, _end, args=(self._workers,), exitpriority=10)

    def __next__(self) -> Any:
        if self._closed or self._next >= len(self._source):
            _end(self._workers)
            raise StopIteration
        if not self._workers:
            self._start()
        try:
            element = self._workers[self._next % self._count].take()
        except BaseException:
            _end(self._workers)
            raise
        self._next += 1
        return element

    def _start(self) -> None:
        # Before signals are held, because starting the tracker would unblock them again.
        resource_tracker.ensure_running()
        with interrupts.held():
            for place in range(self._count):
                self._workers.append(_Worker(self._source, self._next, place, self._count))

    def get_state(self) -> dict[str, int]:
        return {"next": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        _end(self._workers)
        self._next = state["next"]

    def close(self) -> None:
        super().close()
        self._finalize()


class _Worker:
    """Worker process with its pipe and the thread that prefetches from it."""

    def __init__(self, source: Sequence, first: int, place: int, count: int) -> None:
        self._count = count
        self._reader, writer = _CONTEXT.Pipe(duplex=False)
        # This worker's elements, from `first` on.
        numbers = range(first + (place - first) % count, len(source), count)
        self.process = _CONTEXT.Process(
            target=_work, args=(source, numbers, writer), daemon=True, name=f"decoding-{place}"
        )
        self.process.start()
        writer.close()  # so that the pipe ends with the process
        self._elements: queue.Queue[Any] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def take(self) -> Any:
        element = self._elements.get()
        if isinstance(element, BaseException):
            raise element
        return element

    def _read(self) -> None:
        try:
            while True:
                self._elements.put(_receive(self._reader))
        except (EOFError, OSError):
            self.process.join()
            self._elements.put(WorkerDied(self._count, self.process.exitcode))
        except Exception as error:
            self._elements.put(error)

    def end(self) -> None:
        self.process.kill()  # it has nothing to clean up
        while self._thread.is_alive():  # it may be waiting for space in the queue
            with contextlib.suppress(queue.Empty):
                self._elements.get(timeout=0.01)
        self._reader.close()
        self.process.join()


def _end(workers: "list[_Worker]") -> None:
    while workers:
        workers.pop().end()


def _work(source: Sequence, numbers: range, writer: Connection) -> None:
    """Make elements in a worker, then wait for the main process to end."""
    for number in numbers:
        try:
            element = source[number]
        except Exception as error:
            error.add_note(f"In a worker process:\n{traceback.format_exc()}")
            element = error
        try:
            _send(writer, element)
        except BrokenPipeError:
            break
        if isinstance(element, Exception):
            break
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(0)


def _send(writer: Connection, element: Any) -> None:
    """Write an element to a pipe: its structure, then the raw bytes of each array."""
    buffers: list[pickle.PickleBuffer] = []
    structure = pickle.dumps(element, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    writer.send((structure, [array.nbytes for array in arrays]))
    for array in arrays:
        if not _RAW:
            writer.send_bytes(array)
            continue
        while array:
            array = array[os.write(writer.fileno(), array) :]


def _receive(reader: Connection) -> Any:
    structure, sizes = reader.recv()
    arrays = [np.empty(size, np.uint8) for size in sizes]
    for array in arrays:
        if not _RAW:
            reader.recv_bytes_into(array)
            continue
        rest = array.data
        while rest:
            count = os.readv(reader.fileno(), [rest])
            if not count:
                raise EOFError
            rest = rest[count:]
    return pickle.loads(structure, buffers=arrays)
