"""Known deviations of the target, the loss and the optimiser."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from spec import reference, training_reference
from spec.conformance.deviations import Deviation, configured


def _biased(statistics: Callable) -> Callable:
    def deviating(config, *rest):
        mean, variance = statistics(config, *rest)
        pixels = math.prod(config.tubelet) * (config.channels if config.mae_target else 1)
        return mean, variance * (pixels - 1) / pixels

    return deviating


def _jointly(statistics: Callable) -> Callable:
    """Compute the statistics over all P values, as mae_st does."""

    def deviating(config, video, ids):
        raw = dataclasses.replace(config, norm_pix=False)
        pixels = reference.target(raw, video, ids)[..., None, None]  # (B, K, P, 1, 1)
        return pixels.mean(2), pixels.var(2, ddof=1)

    return deviating


def _epsilon_inside(target: Callable) -> Callable:
    def deviating(config, video, decoded):
        expected = target(config, video, decoded)
        if not config.norm_pix or config.mae_target:  # MAE's epsilon is inside the root anyway
            return expected
        _, variance = reference.statistics(config, video, decoded)
        pixels = expected.reshape(*variance.shape[:2], -1, config.channels)
        return (pixels * (np.sqrt(variance) + 1e-6) / np.sqrt(variance + 1e-6)).reshape(
            expected.shape
        )

    return deviating


def _per_token(predictions: np.ndarray, target: np.ndarray) -> np.ndarray:
    return ((predictions - target) ** 2).mean(-1)


def _of_each_clip(loss: Callable) -> Callable:
    def deviating(predictions, target, weight=None):
        every = np.ones(predictions.shape[:2]) if weight is None else weight
        clips = zip(predictions, target, every, strict=True)
        return np.mean([loss(*(each[None] for each in clip)) for clip in clips])

    return deviating


TARGET_AND_LOSS = [
    configured("target", "TARGET-2", "pixels not normalised", norm_pix=lambda config: False),
    Deviation("TARGET-2", "biased variance", "statistics", _biased, site="statistics"),
    Deviation(
        "TARGET-2",
        "normalised over all channels at once",
        "statistics",
        _jointly,
        site="statistics",
    ),
    Deviation("TARGET-2", "epsilon inside the root", "target", _epsilon_inside),
    Deviation(
        "TARGET-1",
        "pixels after mean and std",
        "_pixels",
        lambda pixels: (
            lambda config, *rest: (
                (pixels(config, *rest) - np.asarray(config.mean)) / np.asarray(config.std)
            )
        ),
    ),
    Deviation(
        "LOSS-2",
        "divided by the number of decoded tokens",
        "loss",
        lambda loss: (
            lambda predictions, target, weight=None: np.mean(
                _per_token(predictions, target) * (1 if weight is None else weight)
            )
        ),
        site="loss",
    ),
    Deviation(
        "LOSS-2",
        "visible tokens count too",
        "loss",
        lambda loss: lambda predictions, target, weight=None: loss(predictions, target),
        site="loss",
    ),
    Deviation("LOSS-2", "mean of the clips' losses", "loss", _of_each_clip, site="loss"),
    configured(
        "_pixels", "IMAGE-6", "MAE's target of pixels in [0, 1]", mae_target=lambda config: False
    ),
]


# Optimiser ---------------------------------------------------------------------------------------

OPTIMISER = [
    Deviation(
        "OPT-2",
        "every weight decays",
        "decayed",
        lambda decayed: lambda name, shape: True,
        module=training_reference,
        site="decay",
    ),
    Deviation(
        "OPT-2",
        "no weight decays",
        "decayed",
        lambda decayed: lambda name, shape: False,
        module=training_reference,
        site="decay",
    ),
]
