"""Writer of scalars for TensorBoard. Each scalar is in the file when `add` returns.

tensorboardX's own writer uses a thread that dies if the disk is full, and then waits for it forever.
"""

import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from vmae_keras.backend import hidden

with hidden("torch"):  # tensorboardX would import torch if it is installed, which takes seconds
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import masked_crc32c
    from tensorboardX.summary import scalar


class TensorBoard:
    """Writer of a new event file in a folder.

    Args:
        purge_step: Step from which on TensorBoard discards the scalars of earlier files.
        writes: Whether to write at all.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, purge_step: int, writes: bool = True) -> None:
        self._writes = writes
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
        self._write(Event(wall_time=time.time(), step=purge_step, file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def add(self, name: str, value: float, step: int) -> None:
        """Append a value to the curve `name`."""
        self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))

    def _write(self, event: Any) -> None:
        if not self._writes:
            return
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        record = (length, _checksum(length), data, _checksum(data))
        with open(self._path, "ab", buffering=0) as file:
            file.write(b"".join(record))


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
