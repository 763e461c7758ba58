"""The devices that train one model together, and what its processes have to agree on."""

import contextlib
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

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.process == 0

    @property
    def shares(self) -> int:
        """In how many parts a batch is divided."""
        return self.processes if self.parallel == "tensor" else self.count

    def check(self, batch_size: int, name: str = "batch_size"):
        """Raises DistributionError where the devices do not divide a batch of all of them together."""
        if batch_size % self.shares:
            raise DistributionError(
                f"`{name}` must be a multiple of the {self.shares} parts that the devices make of a "
                f"batch. Received: {name}={batch_size}. Take a multiple (--set {name}=...), or another "
                "number of devices."
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

    def watch(self, on_lost: Callable[[int, str], None]) -> Watch | None:
        """Has `on_lost(process, host)` called as soon as another process is gone; all must call it."""
        if self.processes == 1:
            return None
        mine = Watch.listen(self.processes, self.host) if self.first else None
        address = mine.address.encode() if mine else b""
        told = self.sum(np.frombuffer(address.ljust(256, b"\0"), "uint8"))
        if mine is None:
            address = told.astype("uint8").tobytes().rstrip(b"\0").decode()
            mine = Watch.connect(address, self.process, self.processes)
        mine.start(on_lost)
        return mine

    def sum(self, values) -> np.ndarray:
        """(k,) numbers of each process -> (k,) float32 sums over the processes; all must call it."""
        return np.asarray(values, "float32")

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether each holds in any process; all must call it."""
        return tuple(bool(total) for total in self.sum(flags))

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
