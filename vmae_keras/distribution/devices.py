"""The devices that train one model together, and what its processes have to agree on."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable

import numpy as np

from vmae_keras.distribution.watch import Watch


class DistributionError(ValueError):
    """The devices asked for are not there, or cannot work together as asked."""


class Devices:
    """One device, on which nothing has to be done; the base of each backend's many.

    `vmae_keras.distribution` shows how they are used.

    Attributes:
        count: devices of all processes together.
        parallel: "data", "fsdp" or "tensor".
        process, processes: this one's number, and how many there are.
        host: under which the others reach the first process; None where it finds that out itself.
    """

    def __init__(self, count=1, parallel="data", process=0, processes=1):
        self.count, self.parallel, self.host = count, parallel, None
        self.process, self.processes = process, processes
        self._watch, self.left = None, False

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.process == 0

    @property
    def shares(self) -> int:
        """In how many parts a batch is divided."""
        return self.processes if self.parallel == "tensor" else self.count

    def check(self, batch_size: int, pairs: bool = False):
        """Raises DistributionError where the devices do not divide a batch of all of them together.

        With `pairs` clips are mixed in pairs, which one process has to hold.
        """
        parts = self.processes * 2 if pairs and self.processes > 1 else 1
        parts = math.lcm(self.shares, parts)
        if batch_size % parts:
            raise DistributionError(
                f"`batch_size` must be a multiple of {parts} to be divided"
                f"{' in pairs of mixed clips' if pairs else ''}. Received: batch_size={batch_size}, "
                f"devices={self.count}, processes={self.processes}. Take a multiple (--set "
                "batch_size=...), or another number of devices."
            )

    def scope(self) -> contextlib.AbstractContextManager:
        """In it models are built, compiled and trained."""
        return contextlib.nullcontext()

    def local(self) -> contextlib.AbstractContextManager:
        """In it a model is built and used that this process has for itself."""
        return contextlib.nullcontext()

    def join(self, model):
        """Makes the weights of a built and compiled model equal everywhere, and `fit` keep them so."""
        if getattr(model, "optimizer", None) and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)

    def batches(self, batches: Iterable) -> Iterable:
        """This process's parts of batches, as NumPy arrays -> what `fit` takes."""
        return batches

    def share(self, arrays: tuple, batch_size: int) -> tuple[tuple | None, int]:
        """Arrays that every process has -> what `fit` and `evaluate` take of them, and its batch size.

        Rows that the devices cannot divide are left out; None where none are left.
        """
        arrays = self.divisible(arrays)
        if arrays is None or self.processes == 1:
            return arrays, batch_size
        batches = np.split(
            np.arange(_length(arrays)), range(batch_size, _length(arrays), batch_size)
        )
        mine = [np.split(batch, self.processes)[self.process] for batch in batches]
        return _rows(arrays, np.concatenate(mine)), batch_size // self.processes

    def divisible(self, arrays: tuple) -> tuple | None:
        """As many of the rows as the devices can divide; None where there are none."""
        count = _length(arrays) // self.shares * self.shares
        return _rows(arrays, slice(count)) if count else None

    def watch(self, on_lost: Callable[[int, str], None]):
        """Has `on_lost(process, host)` called as soon as another process is gone; all must call it."""
        mine = Watch.listen(self.processes, self.host) if self.first else None
        address = mine.address.encode() if mine else b""
        told = self.sum(np.frombuffer(address.ljust(256, b"\0"), "uint8"))
        if mine is None:
            address = told.astype("uint8").tobytes().rstrip(b"\0").decode()
            mine = Watch.connect(address, self.process, self.processes)
        mine.start(on_lost)
        self._watch = mine

    def leave(self):
        """Ends what `watch` began: from here on processes may end one by one."""
        self.left = True
        if self._watch:
            self._watch.leave()

    def sum(self, values) -> np.ndarray:
        """(k,) numbers of each process -> (k,) float32 sums over the processes; all must call it."""
        return np.asarray(values, "float32")

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether each holds in any process; all must call it."""
        return tuple(bool(total) for total in self.sum(flags))

    def wait(self):
        """Until all processes are here."""
        self.sum([0])

    def same(self, text: str) -> bool:
        """Return whether all processes say the same; all must call it."""
        # Bits, of which float32 counts 2^24 processes exactly: all have a bit, or none has it.
        digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), "uint8")
        own = np.unpackbits(digest).astype("int64")
        return self.processes == 1 or bool(np.all(self.sum(own) == self.processes * own))

    def mean(self, logs: dict[str, float]) -> dict[str, float]:
        """What `fit` tells each process -> what holds for all devices together."""
        return logs


def _length(arrays):
    first = arrays[0]
    return len(next(iter(first.values())) if isinstance(first, dict) else first)


def _rows(arrays, rows):
    return tuple(
        {name: array[rows] for name, array in each.items()}
        if isinstance(each, dict)
        else each[rows]
        for each in arrays
    )
