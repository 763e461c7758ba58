"""The devices that train one model together, and communication between its processes."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from vmae_keras.distribution.watch import Watch

_LONGEST_TEXT = 300  # bytes; an address of `Watch` is a host name of at most 253 and 39 more


class DistributionError(ValueError):
    """The requested devices do not exist, or cannot work together as requested."""


class Devices:
    """A single device, which needs no communication; the base class of each backend's devices.

    Attributes:
        count: Number of devices in all processes.
        parallel: "data", "fsdp" or "tensor".
        process, processes: Rank of this process, and number of processes.
        host: Host at which the others reach process 0; None if process 0 finds out itself.
        left: Whether `leave` has been called.

    Example:
        from vmae_keras import AdamW, VideoMAE, VideoMAEConfig, distribution, pretraining_dataset

        devices = distribution.start()
        config = VideoMAEConfig.variant("tiny")
        batches = pretraining_dataset(
            "clips", config, batch_size=2, part=devices.process, parts=devices.processes
        )
        with devices.scope():
            model = VideoMAE(config)
            model.compile(AdamW(1e-3))
            devices.join(model)  # from here on, all devices have the same weights
            model.fit(devices.batches(batches), steps_per_epoch=2, shuffle=False)
    """

    def __init__(
        self, count: int = 1, parallel: str = "data", process: int = 0, processes: int = 1
    ) -> None:
        self.count, self.parallel = count, parallel
        self.host: str | None = None
        self.process, self.processes = process, processes
        self._watch: Watch | None = None
        self.left = False

    @property
    def first(self) -> bool:
        """Return whether this is process 0, the only one that writes files."""
        return self.process == 0

    @property
    def shares(self) -> int:
        """Return the number of parts into which a batch is divided."""
        return self.processes if self.parallel == "tensor" else self.count

    def check(self, batch_size: int, pairs: bool = False) -> None:
        """Raise DistributionError if the global batch size cannot be divided over the devices.

        Args:
            batch_size: Global batch size.
            pairs: Whether clips are mixed in pairs, each of which must be in one process.
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
        """Return the context in which to build, compile and train models."""
        return contextlib.nullcontext()

    def local(self) -> contextlib.AbstractContextManager:
        """Return the context in which to build and use a model that only this process has."""
        return contextlib.nullcontext()

    def join(self, model: Any) -> None:
        """Make a built and compiled model's weights equal on all devices, and make `fit` keep them so."""
        if getattr(model, "optimizer", None) and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)

    def batches(self, batches: Iterable) -> Iterable:
        """Convert this process's parts of the batches, as NumPy arrays, to what `fit` takes."""
        return batches

    def share(self, arrays: tuple, batch_size: int) -> tuple[tuple | None, int]:
        """Return the rows to pass to `fit` and `evaluate`, and their batch size.

        All processes call it with the same arrays. Rows that cannot be divided over the devices are
        dropped; the result is None if no rows are left.
        """
        kept = self.divisible(arrays)
        if kept is None or self.processes == 1:
            return kept, batch_size
        batches = np.split(np.arange(_length(kept)), range(batch_size, _length(kept), batch_size))
        mine = [np.split(batch, self.processes)[self.process] for batch in batches]
        return _rows(kept, np.concatenate(mine)), batch_size // self.processes

    def divisible(self, arrays: tuple) -> tuple | None:
        """Return as many rows as can be divided over the devices; None if there are none."""
        count = _length(arrays) // self.shares * self.shares
        return _rows(arrays, slice(count)) if count else None

    def watch(self, on_lost: Callable[[int, str], None]) -> None:
        """Start to watch the other processes. All processes must call it.

        Args:
            on_lost: Function of a process and its host, called as soon as that process is gone.
        """
        watch = Watch.listen(self.processes, self.host) if self.first else None
        address = self._text_of_first(watch.address if watch else "")
        watch = watch or Watch.connect(address, self.process, self.processes)
        watch.start(on_lost)
        self._watch = watch

    def _text_of_first(self, text: str) -> str:
        """Return process 0's text in every process. The others pass "", and all must call it.

        Every backend can sum numbers, and not all can send a text. So process 0 adds the bytes of its text,
        which float32 holds exactly, and the others add zeros.
        """
        padded = text.encode().ljust(_LONGEST_TEXT, b"\0")
        total = self.sum(np.frombuffer(padded, "uint8"))
        return total.astype("uint8").tobytes().rstrip(b"\0").decode()

    def leave(self) -> None:
        """End the watch: from now on, processes may end one by one."""
        self.left = True
        if self._watch:
            self._watch.leave()

    def sum(self, values: Any) -> np.ndarray:
        """Sum (k,) numbers over the processes, to (k,) in float32. All processes must call it."""
        return np.asarray(values, "float32")

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is set in any process. All processes must call it."""
        return tuple(bool(total) for total in self.sum(flags))

    def wait(self) -> None:
        """Wait for all processes to call it."""
        self.sum([0])

    def same(self, text: str) -> bool:
        """Return whether all processes pass the same text. All processes must call it."""
        # Each bit of the digest is summed, which float32 does exactly for up to 2^24 processes. The texts
        # are equal if every sum is 0 or the number of processes.
        digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), "uint8")
        own = np.unpackbits(digest).astype("int64")
        return self.processes == 1 or bool(np.all(self.sum(own) == self.processes * own))

    def mean(self, logs: dict[str, float]) -> dict[str, float]:
        """Return the mean over all devices of the logs that `fit` gives each process."""
        return logs


def _length(arrays: tuple) -> int:
    first = arrays[0]
    return len(next(iter(first.values())) if isinstance(first, dict) else first)


def _rows(arrays: tuple, rows: slice | np.ndarray) -> tuple:
    return tuple(
        {name: array[rows] for name, array in each.items()}
        if isinstance(each, dict)
        else each[rows]
        for each in arrays
    )
