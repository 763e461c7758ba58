"""Display times of a video's frames, from the time stamps of its packets. Clauses DECODE-4 and DECODE-5."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

# With more ticks per frame than this, the time stamps have jumps and do not describe a video.
MOST_TICKS_PER_FRAME = 100
# In ticks. Longer gaps are pauses.
LONGEST_USUAL_GAP = 4
# Maximum number of frames that a decoder holds back to reorder them (H.264, HEVC).
MOST_REORDERED = 16
# In frames. Maximum error of a time stamp shared by several frames, at a constant frame rate.
MOST_LATE = 1.5
# If a larger share of time stamps is missing or out of order, none of them identifies its frame reliably.
MOST_BAD_STAMPS = 0.1


class Packets(NamedTuple):
    """Packets of a video stream in decoding order, with one column per property.

    Args:
        pts: Display time stamps.
        dts: Decoding time stamps.
        pos: Offsets in the file; None if an earlier packet contains the packet's first bytes.
        sizes: Sizes in bytes.
        keys: Identities of key frame packets; None for other frames.
        shows: Flags, true if the packet becomes a displayed frame.
    """

    pts: Sequence[int | None]
    dts: Sequence[int | None]
    pos: Sequence[int | None]
    sizes: Sequence[int]
    keys: Sequence[tuple | None]
    shows: Sequence[bool]


@dataclass(frozen=True)
class Timeline:
    """Display times of a video's frames, in ticks. A tick is the video's usual frame period.

    Args:
        positions: (N,) ticks at which the N frames appear, ascending; each frame stays until the next. At
            a constant frame rate, ticks are frame numbers: 0, 1, 2, ...
        rate: Ticks per second.
        numbers: (P,) frame number of each packet, -1 if it is not displayed.
        ordered: True if the time stamps determine the order of the frames. If only decoding does, frames
            are numbered as they are decoded, and a key frame's entry in `numbers` is a lower bound.
    """

    positions: np.ndarray
    rate: float
    numbers: np.ndarray
    ordered: bool

    @property
    def ticks(self) -> int:
        return int(self.positions[-1]) + 1

    def frames_at(self, ticks: np.ndarray) -> np.ndarray:
        """Return the numbers of the frames displayed at the given ticks: (T,) -> (T,)."""
        shown = np.searchsorted(self.positions, ticks, side="right") - 1
        return np.clip(shown, 0, len(self.positions) - 1)


def timeline_of(
    packets: Packets,
    time_base: Fraction,
    *,
    reordered: bool,
    stored: bool,
    stated_rate: float,
) -> Timeline:
    """Compute the display times of a video's frames.

    Args:
        packets: Packets of the video. At least one must become a displayed frame.
        time_base: Seconds per unit of the time stamps.
        reordered: True if display order differs from decoding order.
        stored: True if the file stores display times.
        stated_rate: Frames per second to use if there are no usable time stamps.
    """
    places = np.flatnonzero(packets.shows)
    pts, dts, pos = (
        [column[place] for place in places.tolist()]
        for column in (packets.pts, packets.dts, packets.pos)
    )
    shared = None in pos and pos[0] is not None
    if shared:
        # In an MPEG program stream, one time stamp may cover several frames. Stamps of the frames after
        # the first are guessed by the demuxer, not always well.
        stored = False
        dts = [None if place is None else stamp for place, stamp in zip(pos, dts, strict=True)]
    numbers = np.full(len(packets.shows), -1)
    kept, times = _in_order(pts, reordered)
    enough = len(kept) >= (1 - MOST_BAD_STAMPS) * len(pts)
    # The order of reordered frames that share a time stamp is unknown.
    ordered = stored and enough and not (reordered and len(set(times.tolist())) < len(times))
    if ordered:
        order = np.argsort(times, kind="stable")
        times = _spread(times[order])
        numbers[places[kept[order]]] = np.arange(len(kept))
    else:
        numbers[places] = np.arange(len(places))
        times = _times_in_order(pts if stored else [None], dts, shared)
    positions, period = ticks_of(times)
    rate = 1 / (period * float(time_base)) if period else stated_rate
    return Timeline(positions, rate, numbers, ordered)


def _times_in_order(pts: list[int | None], dts: list[int | None], shared: bool) -> np.ndarray:
    """Return (N,) ascending time stamps of frames that are numbered as they are decoded.

    Args:
        pts: Display time stamps.
        dts: Decoding time stamps.
        shared: True if several frames share a stamp, which may belong to the next frame.
    """
    if None not in pts:
        return _spread(np.sort(np.array(pts, np.int64)))
    # Decoding time stamps are slightly early, but have the same spacing.
    kept, times = _in_order(dts, reordered=False)
    last = np.append(np.diff(times) > 0, True)[: len(times)]  # the last of repeated stamps
    kept, times = kept[last], times[last]
    if len(kept) < 2:
        return np.zeros(len(dts))
    places = np.arange(len(dts))
    if shared:
        usual = np.median(np.diff(times) / np.diff(kept))
        late = abs(times - times[0] - usual * (kept - kept[0])) / usual
        if (late < MOST_LATE).all():
            last = np.flatnonzero(late < 0.5)[-1]  # the median of rounded stamps is slightly off
            period = (times[last] - times[0]) / (kept[last] - kept[0]) if last else usual
            return times[0] + period * (places - kept[0])
        return _spread(np.repeat(times, np.diff([0, *kept[1:], len(dts)])))
    period = (times[-1] - times[0]) / (kept[-1] - kept[0])
    beyond = np.minimum(places - kept[0], 0) + np.maximum(places - kept[-1], 0)
    return np.interp(places, kept, times) + period * beyond


def _spread(times: np.ndarray) -> np.ndarray:
    """Spread frames that share a time stamp, by the usual gap if it fits: (N,) ascending -> (N,)."""
    if times[0] == times[-1] or (times[1:] > times[:-1]).all():
        return times
    distinct, counts = np.unique(times, return_counts=True)
    gaps = np.diff(distinct) / counts[:-1]
    usual = np.median(gaps)
    steps = np.minimum(np.append(gaps, usual), usual)
    places = np.arange(len(times)) - np.repeat(np.cumsum(counts) - counts, counts)
    return times + places * np.repeat(steps, counts)


def ticks_of(times: np.ndarray) -> tuple[np.ndarray, float]:
    """Convert (N,) ascending time stamps to (N,) ticks at which the frames appear, and the tick's period.

    A first estimate divides each gap by the median gap. It is inexact: the median of stamps rounded to
    milliseconds is off (33 for 33.37), so a long pause would be wrong by several ticks. The second estimate
    divides by the mean tick of all gaps without pauses. The period, in units of the stamps, is the total
    length divided by the number of ticks.

    If there are more than MOST_TICKS_PER_FRAME ticks per frame, the longest gaps count as one tick each. If
    all stamps are equal, each frame is a tick, and the period is 0.
    """
    gaps = np.diff(times)
    if not len(gaps) or gaps.min() == gaps.max():
        return np.arange(len(times)), float(gaps[0]) if len(gaps) else 0.0
    median = np.median(gaps[gaps > 0])
    steps = np.rint(gaps / median)
    usual = steps <= LONGEST_USUAL_GAP
    steps = np.rint(gaps * (steps[usual].sum() / gaps[usual].sum()))
    most = MOST_TICKS_PER_FRAME * len(times)
    if steps.sum() >= most:
        ascending = np.sort(steps)
        jumps = steps > ascending[np.cumsum(ascending) < most][-1]
        gaps, steps = np.where(jumps, median, gaps), np.where(jumps, 1, steps)
        times = np.concatenate([[0], np.cumsum(gaps)])
    period = (times[-1] - times[0]) / steps.sum()
    return np.floor((times - times[0]) / period + 0.5).astype(np.int64), float(period)


def _in_order(stamps: Sequence[int | None], reordered: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the ascending indices of the stamps that are consistent with decoding order, and these stamps.

    Without reordering, a longest subsequence that never decreases is consistent. With reordering, a stamp
    is rejected if it is later than all of the following MOST_REORDERED + 1 stamps, or earlier than all of
    the preceding ones.
    """
    kept = np.arange(len(stamps))
    if None in stamps:
        kept = np.flatnonzero([stamp is not None for stamp in stamps])
        stamps = [stamp for stamp in stamps if stamp is not None]
    times = np.array(stamps, np.int64)
    span = MOST_REORDERED + 1
    if not reordered:
        fits = _longest_ascending(times)
    elif (abs(np.argsort(times, kind="stable") - np.arange(len(times))) < span).all():
        fits = slice(None)
    else:
        spans = np.lib.stride_tricks.sliding_window_view(times, span)
        fits = np.ones(len(times), bool)
        fits[:-span] &= times[:-span] <= spans[1:].max(axis=1)
        fits[span:] &= times[span:] >= spans[:-1].min(axis=1)
    return kept[fits], times[fits]


def _longest_ascending(times: np.ndarray) -> np.ndarray | slice:
    """Return the indices of a longest non-decreasing subsequence."""
    if (times[1:] >= times[:-1]).all():
        return slice(None)
    ends: list[int] = []  # smallest last time of a subsequence, by its length
    lengths = []
    for time in times.tolist():
        length = bisect.bisect_right(ends, time)
        ends[length : length + 1] = [time]
        lengths.append(length)
    indices, wanted = [], len(ends) - 1
    for index in reversed(range(len(times))):
        if lengths[index] == wanted:
            indices.append(index)
            wanted -= 1
    return np.array(indices[::-1])
