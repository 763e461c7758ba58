"""Conversion of predictions to pixels, with mean and deviation estimated for each hidden tubelet.

A model trained on normalised targets predicts a hidden tubelet only up to its mean and deviation. The true
ones would show more than the model knows: with them, even predicted noise gives a coarse picture of the
clip. By default, mean and deviation are therefore fitted to the visible tubelets. The true ones are
available as "oracle", and the row's label says so.

Arrays are NumPy. A clip is uint8 (T, H, W, C). Tokens are (N, P) in [0, 1], row-major over the grid,
flattened as (p0, p1, p2, channel), channel fastest. Ids are token numbers, in any order.

Source: clauses TUBE-1, TUBE-2, TARGET-2, RECON-1, IMAGE-6; the fit at borders is ours.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

LABELS = {
    "seamless": "reconstruction (brightness and contrast fitted to the visible patches)",
    "visible": "reconstruction (brightness and contrast interpolated from the visible patches)",
    "oracle": "reconstruction (oracle: true brightness and contrast of the hidden patches)",
    "pixels": "reconstruction (predicted pixels)",
}
GREY = 128
# Weights in `seamless_statistics`, tuned on synthetic and real clips. Neighbours in time may differ more
# than neighbours in space, because things move. A mean may move freely from its interpolated value, a
# deviation hardly: noise in predictions would pull every deviation to zero.
TIME_BORDERS = 0.3
KEEP_MEAN, KEEP_DEVIATION = 0.003, 3.0
Tubelet = tuple[int, int, int]
Statistics = tuple[np.ndarray, np.ndarray]
# Mean and std per channel. MAE's target applies them before it normalises all channels of a patch together.
Standard = tuple[Sequence[float], Sequence[float]]


def cut(video: np.ndarray, tubelet: Tubelet) -> np.ndarray:
    """(T, H, W, C) -> (N, P): cut a clip into tubelets.

    Raises:
        ValueError: A side of the clip is not a multiple of the tubelet's.
    """
    if video.ndim != 4 or any(
        side % part for side, part in zip(video.shape[:3], tubelet, strict=True)
    ):
        raise ValueError(
            "`video` must be (T, H, W, C) with T, H and W multiples of the tubelet. "
            f"Received: shape={video.shape}, tubelet={tuple(tubelet)}."
        )
    (t, h, w), (p0, p1, p2) = _grid(video.shape, tubelet), tubelet
    cells = video.reshape(t, p0, h, p1, w, p2, -1).transpose(0, 2, 4, 1, 3, 5, 6)
    return cells.reshape(t * h * w, -1)


def join(tokens: np.ndarray, shape: tuple[int, int, int, int], tubelet: Tubelet) -> np.ndarray:
    """(N, P) -> (T, H, W, C): join tubelets into a clip of the given shape, the inverse of `cut`."""
    cells = tokens.reshape(*_grid(shape, tubelet), *tubelet, shape[3])
    return cells.transpose(0, 3, 1, 4, 2, 5, 6).reshape(shape)


def paste(tokens: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a copy of `tokens` (N, P) in which `values` (M, P) replace those of `ids` (M)."""
    pasted = tokens.copy()
    pasted[ids] = values
    return pasted


def masked_clip(video: np.ndarray, visible: np.ndarray, tubelet: Tubelet) -> np.ndarray:
    """Return the clip as the encoder sees it, with all tubelets grey that are not `visible`."""
    tokens = cut(video, tubelet)
    return join(paste(np.full_like(tokens, GREY), visible, tokens[visible]), video.shape, tubelet)


def tubelet_statistics(
    tokens: np.ndarray, channels: int, standard: Standard | None = None
) -> Statistics:
    """Return mean and unbiased deviation of each tubelet and channel, two arrays (N, C).

    They normalise the target. With `standard`, they are those of MAE's target, in units of the tokens.
    """
    pixels = tokens.reshape(len(tokens), -1, channels)
    if standard is None:
        return pixels.mean(1), pixels.std(1, ddof=1)
    mean, std = map(np.asarray, standard)
    values = ((pixels - mean) / std).reshape(len(tokens), -1)
    spread = np.sqrt(values.var(1, ddof=1, keepdims=True) + 1e-6)
    return values.mean(1, keepdims=True) * std + mean, spread * std


def normalise(tokens: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """(N, P), (N, C), (N, C) -> (N, P): compute VideoMAE's target, (x - mean) / (deviation + 1e-6)."""
    pixels = tokens.reshape(len(tokens), -1, mean.shape[1])
    return ((pixels - mean[:, None]) / (deviation[:, None] + 1e-6)).reshape(tokens.shape)


def denormalise(prediction: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """(M, P), (M, C), (M, C) -> (M, P): invert `normalise`."""
    pixels = prediction.reshape(len(prediction), -1, mean.shape[1])
    return (pixels * (deviation[:, None] + 1e-6) + mean[:, None]).reshape(prediction.shape)


def visible_statistics(
    video: np.ndarray, visible: np.ndarray, tubelet: Tubelet, standard: Standard | None = None
) -> Statistics:
    """Interpolate mean and deviation of every token from the visible tubelets only.

    Weights fall with the fourth power of the distance on the grid. Visible tokens keep their own values.
    Returns two arrays (N, C) in units of [0, 1].
    """
    seen = cut(video, tubelet)[visible] / 255
    mean, deviation = tubelet_statistics(seen, video.shape[3], standard)
    grid = _grid(video.shape, tubelet)
    place = np.stack(np.unravel_index(np.arange(np.prod(grid)), grid), 1)
    squared = ((place[:, None] - place[visible]) ** 2).sum(2)
    weight = 1 / np.maximum(squared, 1e-6) ** 2
    weight /= weight.sum(1, keepdims=True)
    return weight @ mean, weight @ deviation


def seamless_statistics(
    video: np.ndarray,
    visible: np.ndarray,
    decoded: np.ndarray,
    prediction: np.ndarray,
    tubelet: Tubelet,
    standard: Standard | None = None,
) -> Statistics:
    """Fit mean and deviation of every token so that the reconstruction has the faintest seams.

    A hidden tubelet is mean + deviation * prediction, with both unknown per channel. Where two tubelets
    meet, their pixels, extrapolated in space to the common border, should be equal. The unknowns minimise
    the squared differences over all borders, with a weak pull towards `visible_statistics`; conjugate
    gradients find them. Only visible pixels and predictions are used. Tokens neither visible nor decoded
    keep the interpolated values.

    `prediction` is (M, P), normalised. Returns two arrays (N, C) in units of [0, 1].
    """
    grid, channels = _grid(video.shape, tubelet), video.shape[3]
    tokens = cut(video, tubelet)
    seen = tokens[visible] / 255
    relief = np.zeros(tokens.shape)
    relief[decoded] = prediction
    relief[visible] = normalise(seen, *tubelet_statistics(seen, channels, standard))
    shown, free = np.zeros(len(tokens), bool), np.zeros(len(tokens), bool)
    shown[visible] = shown[decoded] = free[decoded] = True
    free[visible] = False
    start = np.stack(visible_statistics(video, visible, tubelet, standard))
    start = start.reshape(2, *grid, channels)
    borders = _borders(relief.reshape(*grid, *tubelet, channels), shown.reshape(grid))

    def pull(values: np.ndarray) -> np.ndarray:
        """Return half the gradient of the borders' squared differences with respect to the unknowns."""
        total = np.zeros_like(values)
        for before, after, gram in borders:
            meeting = np.concatenate([values[before], values[after]])
            force = np.einsum("ij...,j...->i...", gram, meeting)
            total[before] += force[:2]
            total[after] += force[2:]
        return total * free.reshape(1, *grid, 1)

    keep = np.reshape([KEEP_MEAN, KEEP_DEVIATION], (2, 1, 1, 1, 1))
    change = _conjugate_gradients(lambda values: pull(values) + keep * values, -pull(start))
    mean, deviation = (start + change).reshape(2, -1, channels)
    return mean, np.maximum(deviation, 0)


def reconstruction(
    video: np.ndarray,
    visible: np.ndarray,
    decoded: np.ndarray,
    prediction: np.ndarray,
    tubelet: Tubelet,
    statistics: str = "seamless",
    standard: Standard | None = None,
) -> np.ndarray:
    """Return the clip with predictions in its hidden tubelets, as uint8 video (T, H, W, C).

    Visible tubelets are shown unchanged, even if decoded. Hidden tubelets that are not decoded are grey.

    Args:
        prediction: (M, P) for the M `decoded` ids: normalised, or pixels in [0, 1] if `statistics` is
            "pixels".
        statistics: A key of `LABELS`, which describe the choices.
        standard: Mean and std per channel for predictions of MAE's target, normalised or not; else None.

    Raises:
        ValueError: `statistics` is not one of `LABELS`, or `prediction` is not (M, P).
    """
    tokens = cut(video, tubelet)
    if statistics not in LABELS:
        raise ValueError(f"`statistics` must be one of {list(LABELS)}. Received: {statistics!r}.")
    expected = (len(decoded), tokens.shape[1])
    if prediction.shape != expected:
        raise ValueError(
            f"`prediction` must have one row of P values per decoded id, shape {expected}. "
            f"Received: shape={prediction.shape}. Pass one clip at a time, without a batch axis."
        )
    if statistics != "pixels":
        if statistics == "seamless":
            levels = seamless_statistics(video, visible, decoded, prediction, tubelet, standard)
        elif statistics == "visible":
            levels = visible_statistics(video, visible, tubelet, standard)
        else:
            levels = tubelet_statistics(tokens / 255, video.shape[3], standard)
        prediction = denormalise(prediction, *(level[decoded] for level in levels))
    elif standard is not None:
        mean, std = (np.tile(values, len(prediction[0]) // len(values)) for values in standard)
        prediction = prediction * std + mean
    filled = np.full_like(tokens, GREY)
    filled = paste(filled, decoded, np.rint(np.clip(prediction, 0, 1) * 255))
    return join(paste(filled, visible, tokens[visible]), video.shape, tubelet)


def _grid(shape: Sequence[int], tubelet: Tubelet) -> tuple[int, ...]:
    return tuple(side // part for side, part in zip(shape[:3], tubelet, strict=True))


def _borders(relief: np.ndarray, shown: np.ndarray) -> list[tuple[tuple, tuple, np.ndarray]]:
    """Return the borders of each axis: indices of the cells before, of those after, and a quadratic form.

    The squared difference at a border is a quadratic form (4, 4, ..., C) in the means and deviations of the
    two tubelets that meet there. `relief` is (t, h, w, p0, p1, p2, C).
    """
    borders = []
    for axis in range(3):
        every = (slice(None),) * axis
        before, after = (*every, slice(None, -1)), (*every, slice(1, None))
        side = relief.shape[3 + axis]
        end, begin = relief.take(side - 1, 3 + axis), relief.take(0, 3 + axis)
        if axis > 0 and side > 1:  # extrapolated by half a pixel, to the border
            end = 1.5 * end - 0.5 * relief.take(side - 2, 3 + axis)
            begin = 1.5 * begin - 0.5 * relief.take(1, 3 + axis)
        end, begin = end[before], begin[after]
        end = end.reshape(*end.shape[:3], math.prod(end.shape[3:-1]), end.shape[-1])
        begin = begin.reshape(end.shape)
        one = np.ones_like(end)
        terms = np.stack([one, end, -one, -begin])
        gram = np.einsum("i...nc,j...nc->ij...c", terms, terms) / end.shape[3]
        gram *= (shown[before] & shown[after])[..., None] * (1 if axis else TIME_BORDERS)
        borders.append(((slice(None), *before), (slice(None), *after), gram))
    return borders


def _conjugate_gradients(operator: Callable, target: np.ndarray, limit: int = 200) -> np.ndarray:
    """Solve operator(x) = target for a symmetric positive operator, starting from zero."""
    solution, rest, step = np.zeros_like(target), target.copy(), target.copy()
    size = first = (rest**2).sum()
    for _ in range(limit):
        if size <= 1e-9 * first:
            break
        image = operator(step)
        length = size / (step * image).sum()
        solution += length * step
        rest -= length * image
        size, before = (rest**2).sum(), size
        step = rest + size / before * step
    return solution
