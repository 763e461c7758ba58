"""Decoding of packets into undamaged frames in display order. Clause DECODE-6.

Each frame carries the index of its packet. The index is passed through the decoder as the time stamp.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from vmae_keras.data.timeline import MOST_REORDERED

OnDamage = Callable[[str], None]
Numbered = Iterator[tuple[int, VideoFrame]]
# Packet index, frame, and fault: the reason why the frame is damaged or missing.
Decoded = Iterator[tuple[int, Any, str | None]]  # packet index, VideoFrame or None, fault


class NotAsFromTheStart(Exception):
    """Raised when decoding from a key frame may give different frames than decoding from the start."""


def decode(packets: Iterator[Packet], index: int) -> Decoded:
    """Yield (packet index, frame, fault) for each frame, in display order.

    `index` is the index of the first packet. The fault is the reason why a packet's frame is damaged or
    missing.
    """
    latest = index
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if packet.size:
                # Decoders pass this on to the frame, in whatever order they return frames.
                packet.pts = latest = index
                index += 1
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            yield latest, None, error.strerror
            continue
        for frame in frames:
            place = latest if frame.pts is None else frame.pts
            yield place, frame, "a frame is damaged" if frame.is_corrupt else None


def settled(decoded: Decoded, first: int, shows: Sequence[bool]) -> Decoded:
    """Yield faults first: delay each frame until all frames that were decoded before it have arrived.

    A frame may be predicted from a frame that is displayed later, so a fault of that frame must come first.

    Args:
        first: Index of the first packet.
        shows: Flags, one per packet: true if it becomes a displayed frame.
    """
    held: deque[tuple[int, VideoFrame | None, str | None]] = deque()
    awaited: set[int] = set()
    for each in decoded:
        index, _, fault = each
        if index == first and not (held or awaited):
            first += 1
            yield each
            continue
        if index > first:
            awaited.update(i for i in range(first, index) if shows[i])
        first = max(first, index + 1)
        awaited.discard(index)
        if fault:
            yield each
        else:
            held.append(each)
        if len(held) > MOST_REORDERED:
            awaited.clear()  # some packets yield no frame
        while held and held[0][0] < min(awaited, default=first):
            yield held.popleft()
    yield from held


def whole(
    decoded: Decoded, keys: Sequence[bool], on_damage: OnDamage
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the undamaged frames, each with the index of its packet.

    Frames decoded after a damaged one may be predicted from it, so they are dropped up to the next key
    frame. `on_damage` is then called, once. Frames before the first key frame are dropped too.

    Args:
        keys: Flags, one per packet: true if it belongs to a key frame.
    """
    begun = told = False
    # The first and last packet of damaged frames since the last undamaged key frame.
    damaged: tuple[int, int] | None = (-1, -1) if any(keys) and not keys[0] else None
    for index, frame, fault in decoded:
        if fault:
            damaged = (index if damaged is None else damaged[0], index)
            if not told and (begun or keys[index]):
                on_damage(fault)
                told = True
        elif damaged is None or index < damaged[0]:
            begun = True
            yield index, frame
        elif index > damaged[1] and (frame.key_frame or keys[index]):
            begun, damaged = True, None
            yield index, frame


def ascending(numbered: Numbered, strict: bool = False) -> Numbered:
    """Drop frames whose number is above that of the next frame; if `strict`, raise NotAsFromTheStart."""
    latest, held = -1, None
    for number, frame in numbered:
        if held and held[0] < number:
            latest = held[0]
            yield held
        elif strict and (held or number <= latest):
            raise NotAsFromTheStart
        held = None
        if number == latest + 1:
            latest = number
            yield number, frame
        elif number > latest:
            held = number, frame
    if held:
        yield held
