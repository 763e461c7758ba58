"""When the frames of a video are shown, from its packets' time stamps. Clauses DECODE-4 and DECODE-5."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

# With more ticks than this per frame the time stamps jump: they do not describe a video.
MOST_TICKS_PER_FRAME = 100
# Ticks; longer gaps are pauses.
LONGEST_USUAL_GAP = 4
# A decoder holds back at most this many frames to put them in order (H.264, HEVC).
MOST_REORDERED = 16
# Frames; a stamp that several frames share is at most this far off in a video of constant frame rate.
MOST_LATE = 1.5
# If more stamps than this share are missing or out of order, none of them tells which frame it is of.
MOST_BAD_STAMPS = 0.1


class Packets(NamedTuple):
    """The packets of a video stream in the order in which they are decoded, a column for each property.

    pts, dts: time stamps of showing and of decoding.
    pos: where a packet begins in the file; None where another packet has brought its first bytes.
    sizes: bytes.
    keys: what tells the packet of a key frame from all others; None of another frame.
    shows: whether a packet becomes a frame that is shown.
    """

    pts: Sequence[int | None]
    dts: Sequence[int | None]
    pos: Sequence[int | None]
    sizes: Sequence[int]
    keys: Sequence[tuple | None]
    shows: Sequence[bool]


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown, counted in ticks, the video's usual frame period.

    positions: (N,) ticks at which the N frames appear, ascending; a frame stays until the next.
        At a constant frame rate ticks and frames are the same: 0, 1, 2, ...
    rate: ticks per second.
    numbers: (P,) number of the frame that each packet becomes, -1 where it is not shown.
    ordered: whether the stamps tell the order of the frames. Where only decoding tells it, frames are
        numbered as they come, and of `numbers` those of key frames are the least that they can have.
    """

    positions: np.ndarray
    rate: float
    numbers: np.ndarray
    ordered: bool

    @property
    def ticks(self) -> int:
        return int(self.positions[-1]) + 1

    def frames_at(self, ticks: np.ndarray) -> np.ndarray:
        """(T,) ticks -> (T,) numbers of the frames shown then."""
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
    """Find when the frames of a video are shown.

    Args:
        packets: of the video; at least one shows a frame.
        time_base: seconds in a unit of the stamps.
        reordered: whether frames are shown in another order than they are decoded in.
        stored: whether the file stores when its frames are shown.
        stated_rate: frames per second, where no stamps tell.
    """
    places = np.flatnonzero(packets.shows)
    pts, dts, pos = (
        [column[place] for place in places.tolist()]
        for column in (packets.pts, packets.dts, packets.pos)
    )
    shared = None in pos and pos[0] is not None
    if shared:
        # In an MPEG program stream several frames may come with the time stamps of the first one;
        # those of the others are guessed, not always well.
        stored = False
        dts = [None if place is None else stamp for place, stamp in zip(pos, dts, strict=True)]
    numbers = np.full(len(packets.shows), -1)
    kept, times = _in_order(pts, reordered)
    enough = len(kept) >= (1 - MOST_BAD_STAMPS) * len(pts)
    # Of reordered frames with one stamp it is not known which comes first.
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
    """Return (N,) ascending time stamps of frames that are numbered as they come.

    Args:
        shared: whether several frames have one stamp, which may be that of the next frame.
    """
    if None not in pts:
        return _spread(np.sort(np.array(pts, np.int64)))
    # Stamps of decoding are a moment early, but as far apart.
    kept, times = _in_order(dts, reordered=False)
    last = np.append(np.diff(times) > 0, True)[: len(times)]  # of those that are repeated
    kept, times = kept[last], times[last]
    if len(kept) < 2:
        return np.zeros(len(dts))
    places = np.arange(len(dts))
    if shared:
        usual = np.median(np.diff(times) / np.diff(kept))
        late = abs(times - times[0] - usual * (kept - kept[0])) / usual
        if (late < MOST_LATE).all():
            last = np.flatnonzero(late < 0.5)[-1]  # the median of rounded stamps is a bit off
            period = (times[last] - times[0]) / (kept[last] - kept[0]) if last else usual
            return times[0] + period * (places - kept[0])
        return _spread(np.repeat(times, np.diff([0, *kept[1:], len(dts)])))
    period = (times[-1] - times[0]) / (kept[-1] - kept[0])
    beyond = np.minimum(places - kept[0], 0) + np.maximum(places - kept[-1], 0)
    return np.interp(places, kept, times) + period * beyond


def _spread(times: np.ndarray) -> np.ndarray:
    """Move frames with one time stamp apart, by a usual gap if there is room: (N,) ascending -> (N,)."""
    if times[0] == times[-1] or (times[1:] > times[:-1]).all():
        return times
    distinct, counts = np.unique(times, return_counts=True)
    gaps = np.diff(distinct) / counts[:-1]
    usual = np.median(gaps)
    steps = np.minimum(np.append(gaps, usual), usual)
    places = np.arange(len(times)) - np.repeat(np.cumsum(counts) - counts, counts)
    return times + places * np.repeat(steps, counts)


def ticks_of(times: np.ndarray) -> tuple[np.ndarray, float]:
    """(N,) ascending time stamps -> (N,) ticks at which the frames appear, and the stamps of a tick.

    The median gap counts the ticks of each gap, but not well: the median of stamps rounded to
    milliseconds is off (33 for 33.37), so that a long pause would be off by ticks. So the mean tick of
    gaps without pauses counts them again. The period is the whole length divided by their sum.

    Gaps that would make more than MOST_TICKS_PER_FRAME ticks of each frame count as one tick, the
    longest first. Where all stamps are equal, a tick is a frame, and the stamps of a tick are 0.
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
    """Return the indices of the stamps that fit the order of decoding, ascending, and these stamps.

    Where frames are reordered, a stamp does not fit that is after all the next ones, or before all the
    last ones, of more frames than can be reordered. Else those fit that nowhere run backwards.
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
    """Return the indices of a longest subsequence that nowhere descends."""
    if (times[1:] >= times[:-1]).all():
        return slice(None)
    ends: list[int] = []  # the least time at which a subsequence of each length ends
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
