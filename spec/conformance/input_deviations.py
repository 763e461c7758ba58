"""Known deviations of the input's normalisation, of tubelets and of positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spec import position_reference
from spec.conformance.deviations import Deviation, applied, configured


def _channel_slowest(tokens: np.ndarray, channels: int) -> np.ndarray:
    """Reorder the values of tubelets (B, K, P) by channel, p0, p1, p2."""
    return tokens.reshape(*tokens.shape[:2], -1, channels).swapaxes(2, 3).reshape(tokens.shape)


def _columns_before_rows(tubelets: Callable) -> Callable:
    def deviating(video, tubelet):
        t, h, w = (size // part for size, part in zip(video.shape[1:4], tubelet, strict=True))
        order = np.arange(t * h * w).reshape(t, h, w).swapaxes(1, 2).reshape(-1)
        return tubelets(video, tubelet)[:, order]

    return deviating


def _halves(sinusoid: Callable) -> Callable:
    def deviating(count, dim):
        table = sinusoid(count, dim)
        return np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)

    return deviating


def _without_positions(of: str) -> Callable:
    """Replace the position tables of one width with zeros."""

    def patch(forward: Callable) -> Callable:
        def deviating(config, *rest, **named):
            def blank(sinusoid):
                return lambda count, dim: sinusoid(count, dim) * (dim != getattr(config, of))

            with applied(
                [Deviation("", "", "sinusoid_positions", blank, module=position_reference)]
            ):
                return forward(config, *rest, **named)

        return deviating

    return patch


def _row_first(planar_positions: Callable) -> Callable:
    def deviating(height, width, dim):
        across, down = np.split(planar_positions(height, width, dim), 2, axis=1)
        return np.concatenate([down, across], axis=1)

    return deviating


INPUT = [
    configured(
        "encoder_tubelets",
        "INPUT-2",
        "mean and std of .5 instead of ImageNet's",
        mean=lambda config: (0.5,) * config.channels,
        std=lambda config: (0.5,) * config.channels,
    ),
    configured(
        "encoder_tubelets",
        "INPUT-2",
        "the encoder sees pixels in [0, 1]",
        mean=lambda config: (0.0,) * config.channels,
        std=lambda config: (1.0,) * config.channels,
    ),
    Deviation("TUBE-1", "token ids run over rows before columns", "tubelets", _columns_before_rows),
    Deviation(
        "TUBE-2",
        "the embedding reads tubelets with the channel slowest",
        "encoder_tubelets",
        lambda read: lambda config, *rest: _channel_slowest(read(config, *rest), config.channels),
    ),
    Deviation(
        "TUBE-2",
        "the target has tubelets with the channel slowest",
        "target",
        lambda target: (
            lambda config, *rest: _channel_slowest(target(config, *rest), config.channels)
        ),
    ),
    Deviation(
        "POS-1",
        "sines in the first half, cosines in the second",
        "sinusoid_positions",
        _halves,
        module=position_reference,
    ),
    Deviation(
        "POS-1",
        "positions counted from 1",
        "sinusoid_positions",
        lambda sinusoid: lambda count, dim: sinusoid(count + 1, dim)[1:],
        module=position_reference,
    ),
    Deviation("EMBED-2", "no positions in the encoder", "forward", _without_positions("dim")),
    Deviation("DEC-1", "no positions in the decoder", "forward", _without_positions("decoder_dim")),
    Deviation(
        "IMAGE-4", "the row's half first", "planar_positions", _row_first, module=position_reference
    ),
]
