"""What the model has to predict: the pixels of the decoded tubelets."""

from keras import ops


def pixels(tubelets):
    """uint8 or float tubelets -> float32 in [0, 1]; float input is taken to be in [0, 1] already."""
    if "int" in str(tubelets.dtype):
        return ops.cast(tubelets, "float32") / 255.0
    return ops.cast(tubelets, "float32")


def target(tubelets, channels: int, norm_pix: bool):
    """(B, M, P) pixels of any dtype -> float32 (B, M, P).

    With `norm_pix` each channel of each tubelet has mean 0 and (unbiased) deviation 1; the epsilon is
    added to the deviation, outside the root.

    Source: official `run_mae_pretraining.py` engine; clauses TARGET-1 to TARGET-4.
    """
    x = pixels(tubelets)
    if not norm_pix:
        return x
    count, size = x.shape[1:]
    x = ops.reshape(x, (-1, count, size // channels, channels))
    # From the first pixel on: the mean of equal pixels would round, and 1e-6 below magnify it.
    x = x - x[:, :, :1]
    x = x - ops.mean(x, axis=2, keepdims=True)
    variance = ops.sum(ops.square(x), axis=2, keepdims=True) / (size // channels - 1)
    return ops.reshape(x / (ops.sqrt(variance) + 1e-6), (-1, count, size))
