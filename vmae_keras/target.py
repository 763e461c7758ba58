"""What the model has to predict: the pixels of the decoded tubelets."""

import numpy as np
from keras import ops

from vmae_keras.config import VideoMAEConfig


def pixels(tubelets):
    """uint8 or float tubelets -> float32 in [0, 1]; float input is taken to be in [0, 1] already."""
    if "int" in str(tubelets.dtype):
        return ops.cast(tubelets, "float32") / 255.0
    return ops.cast(tubelets, "float32")


def standardised(tubelets, config: VideoMAEConfig):
    """(B, K, P) pixels of any dtype -> float32 (B, K, P), after mean and std. Clause INPUT-2."""
    repeat = config.tubelet_size // config.channels
    mean, std = (np.tile(np.float32(values), repeat) for values in (config.mean, config.std))
    return (pixels(tubelets) - ops.convert_to_tensor(mean)) / ops.convert_to_tensor(std)


def target(tubelets, config: VideoMAEConfig):
    """(B, M, P) pixels of any dtype -> float32 (B, M, P).

    With `norm_pix` each channel of each tubelet has mean 0 and (unbiased) deviation 1; the epsilon is
    added to the deviation, outside the root. `mae_target` takes pixels after mean and std, all channels
    of a tubelet together, and the epsilon inside the root.

    Source: official `engine_for_pretraining.py`; clauses TARGET-1 to TARGET-4; MAE, IMAGE-6.
    """
    x = standardised(tubelets, config) if config.mae_target else pixels(tubelets)
    if not config.norm_pix:
        return x
    count, size = x.shape[1:]
    together = 1 if config.mae_target else config.channels
    x = ops.reshape(x, (-1, count, size // together, together))
    # From the first pixel on: the mean of equal pixels would round, and 1e-6 below magnify it.
    x = x - x[:, :, :1]
    x = x - ops.mean(x, axis=2, keepdims=True)
    variance = ops.sum(ops.square(x), axis=2, keepdims=True) / (size // together - 1)
    spread = ops.sqrt(variance + 1e-6) if config.mae_target else ops.sqrt(variance) + 1e-6
    return ops.reshape(x / spread, (-1, count, size))
