"""AdamW as the papers use it: warm-up and cosine per step, no decay on one-dimensional weights."""

import keras
import numpy as np
from keras import ops

DECAYED = ("kernel",)
NOT_DECAYED = ("bias", "beta", "gamma", "scale1", "scale2", "log_scale", "mask_token")


@keras.saving.register_keras_serializable(package="vmae_keras")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from 0 to `peak` over the warm-up, then half a cosine down to `minimum`.

    Update s < warmup: peak * s / (warmup - 1). Afterwards, with i updates since the warm-up of n in
    all: minimum + (peak - minimum) * (1 + cos(pi * i / n)) / 2.

    Args:
        peak, minimum: rates.
        warmup_steps, total_steps: in updates of the weights.
        accumulate: batches per update, as the optimizer's `gradient_accumulation_steps`. Keras asks
            for the rate of a batch, not of an update.

    Raises:
        ValueError: a warm-up that is negative or leaves no step after it.

    Source: official `cosine_scheduler`; clause OPT-4.
    """

    def __init__(self, peak, minimum, warmup_steps, total_steps, accumulate=1):
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                "`warmup_steps` must be at least 0 and less than `total_steps`. "
                f"Received: warmup_steps={warmup_steps}, total_steps={total_steps}."
            )
        self.peak, self.minimum = peak, minimum
        self.warmup_steps, self.total_steps = warmup_steps, total_steps
        self.accumulate = accumulate

    def __call__(self, step):
        step = ops.floor(ops.cast(step, "float32") / self.accumulate)
        warm = self.peak * step / max(self.warmup_steps - 1, 1)
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        cosine = 0.5 * (1.0 + ops.cos(np.pi * ops.clip(done, 0.0, 1.0)))
        return ops.where(
            step < self.warmup_steps, warm, self.minimum + (self.peak - self.minimum) * cosine
        )

    def get_config(self):
        return {
            "peak": self.peak, "minimum": self.minimum,
            "warmup_steps": self.warmup_steps, "total_steps": self.total_steps,
            "accumulate": self.accumulate,
        }  # fmt: skip


@keras.saving.register_keras_serializable(package="vmae_keras")
class AdamW(keras.optimizers.AdamW):
    """Keras's AdamW that decays kernels alone and still does so after it is saved and reloaded.

    (`exclude_from_weight_decay` on Keras's own is forgotten by `get_config`.)

    Raises:
        ValueError: on building, for a weight that no rule covers.

    Source: clauses OPT-1, OPT-2.
    """

    def __init__(self, learning_rate=1e-3, weight_decay=0.05, beta_2=0.95, epsilon=1e-8, **kwargs):
        kwargs = {"name": "adamw", **kwargs}  # checkpoints find weights by name
        super().__init__(learning_rate, weight_decay, beta_2=beta_2, epsilon=epsilon, **kwargs)
        # On TensorFlow it is matched with the name that TensorFlow gave the variable, "path/name:0".
        ends = "|".join(NOT_DECAYED)
        self.exclude_from_weight_decay(var_names=[rf"(^|[/_])({ends})(:0)?$"])

    def build(self, variables):
        unknown = [
            variable.path
            for variable in variables
            if not variable.name.endswith(DECAYED + NOT_DECAYED)
        ]
        if unknown:
            raise ValueError(f"No rule says whether to decay these weights: {unknown}.")
        super().build(variables)
