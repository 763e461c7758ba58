"""Decodes packets into whole frames in order. Clause DECODE-6.

Frames carry the index of their packet, which decoders hand on as its time stamp.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from vmae_keras.data.timeline import MOST_REORDERED

OnDamage = Callable[[str], None]
Numbered = Iterator[tuple[int, VideoFrame]]
# Index of a packet, its frame, and a fault: why the frame is damaged, or why there is none.
Decoded = Iterator[tuple[int, VideoFrame | None, str | None]]


class NotAsFromTheStart(Exception):
    """Decoding from a key frame may give other frames than decoding from the start."""


def decode(packets: Iterator[Packet], index: int) -> Decoded:
    """Yield (index of its packet, frame, fault) for each frame, in the order of showing.

    `index` is that of the first packet. A fault is the reason why the frame of a packet is damaged, or
    why there is none.
    """
    latest = index
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if packet.size:
                # Decoders hand this on to the frame, whatever order they give frames in.
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
    """Tell faults first: hold frames back until those have come that were decoded before them.

    A frame may be made from such a frame, though it is shown before it.

    Args:
        first: index of the first packet.
        shows: whether each packet becomes a frame.
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
            awaited.clear()  # some packets give no frame
        while held and held[0][0] < min(awaited, default=first):
            yield held.popleft()
    yield from held


def whole(
    decoded: Decoded, keys: Sequence[bool], on_damage: OnDamage
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the frames that are not damaged, each with the index of its packet.

    Those that are decoded after a damaged one are left out up to the next key frame, as they are made
    from it; `on_damage` is then called, once. Frames before the first key frame are left out too.

    Args:
        keys: whether each packet is of a key frame.
    """
    begun = told = False
    # The first and the last packet of damaged frames since the last whole key frame.
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
    """Leave out frames whose number is above that of the next one; if `strict`, NotAsFromTheStart."""
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
