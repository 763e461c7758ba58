"""Prediction target: the pixels of the decoded tubelets."""

import numpy as np
from keras import ops

from vmae_keras.backend import AnyTensor
from vmae_keras.config import VideoMAEConfig


def pixels(tubelets: AnyTensor) -> AnyTensor:
    """Convert uint8 or float tubelets to float32 in [0, 1]; float input must be in [0, 1] already."""
    if "int" in str(tubelets.dtype):
        return ops.cast(tubelets, "float32") / 255.0
    return ops.cast(tubelets, "float32")


def standardised(tubelets: AnyTensor, config: VideoMAEConfig) -> AnyTensor:
    """Normalise pixels (B, K, P) of any dtype by mean and std -> float32 (B, K, P). Clause INPUT-2."""
    repeat = config.tubelet_size // config.channels
    mean, std = (
        np.tile(np.asarray(values, np.float32), repeat) for values in (config.mean, config.std)
    )
    return (pixels(tubelets) - ops.convert_to_tensor(mean)) / ops.convert_to_tensor(std)


def compute_target(tubelets: AnyTensor, config: VideoMAEConfig) -> AnyTensor:
    """Return the target of pixels (B, M, P) of any dtype: float32 (B, M, P).

    With `norm_pix`, each channel of each tubelet is normalised to mean 0 and (unbiased) deviation 1, with
    the epsilon added to the deviation, outside the root. `mae_target` starts from pixels after mean and
    std, normalises all channels of a tubelet together, and adds the epsilon inside the root.

    Source: official `engine_for_pretraining.py`; clauses TARGET-1 to TARGET-4; MAE, IMAGE-6.
    """
    x = standardised(tubelets, config) if config.mae_target else pixels(tubelets)
    if not config.norm_pix:
        return x
    count, size = x.shape[1:]
    together = 1 if config.mae_target else config.channels
    x = ops.reshape(x, (-1, count, size // together, together))
    # Subtract the first pixel: the mean of equal pixels would round, and the small divisor magnify that.
    x = x - x[:, :, :1]
    x = x - ops.mean(x, axis=2, keepdims=True)
    variance = ops.sum(ops.square(x), axis=2, keepdims=True) / (size // together - 1)
    spread = ops.sqrt(variance + 1e-6) if config.mae_target else ops.sqrt(variance) + 1e-6
    return ops.reshape(x / spread, (-1, count, size))
