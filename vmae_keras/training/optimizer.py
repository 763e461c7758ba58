"""AdamW as the papers use it: warm-up and cosine per step, no decay on one-dimensional weights."""

import math
import re

import keras
import numpy as np
from keras import ops

from vmae_keras import backend

# A weight's name, the end of its path. Every weight is in one of them.
DECAYED = ("kernel", "lora_kernel_a", "lora_kernel_b")
NOT_DECAYED = (
    "bias",
    "q_bias",
    "v_bias",
    "beta",
    "gamma",
    "scale1",
    "scale2",
    "log_scale",
    "mask_token",
    "positions",
    "class_token",
)


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
            "peak": self.peak,
            "minimum": self.minimum,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "accumulate": self.accumulate,
        }


@keras.saving.register_keras_serializable(package="vmae_keras")
class AdamW(keras.optimizers.AdamW):
    """AdamW with torch's arithmetic, no decay on what should not decay, and layer-wise rates.

    Keras's own adds epsilon before the second moment is corrected, and forgets on reloading which
    weights do not decay.

    Args:
        learning_rate: a number, or a schedule of it.
        weight_decay, beta_1, beta_2, epsilon: as in OPT-5.
        layer_decay: multiplies the whole update of a weight, decay included, once for every layer
            between it and the head; None for none. For fine-tuning, with every block trainable.
        average_decay: of `averages`, moving averages of the weights that begin at their first values
            and follow each update; None for none. Keras's own `use_ema` would begin after the first
            update, follow accumulated batches too, and end in the weights with every `fit`.
        kwargs: of Keras's own: clipping, accumulation, ...

    Raises:
        ValueError: `amsgrad`; on building, for weights that no rule covers.

    Source: V2's `optim_factory.py`; clauses OPT-1, OPT-2, OPT-5, OPT-6, FT-6, FT-7.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        weight_decay=0.05,
        beta_1=0.9,
        beta_2=0.95,
        epsilon=1e-8,
        layer_decay=None,
        average_decay=None,
        name="adamw",
        **kwargs,
    ):
        # Checkpoints find the optimizer's variables by its name.
        super().__init__(learning_rate, weight_decay, beta_1, beta_2, epsilon, name=name, **kwargs)
        if self.amsgrad:
            raise ValueError("`amsgrad` is not part of it. Received: amsgrad=True. Leave it out.")
        self.layer_decay, self.average_decay = layer_decay, average_decay

    def build(self, variables):
        paths = [variable.path for variable in variables]
        self._decays = [
            self.weight_decay if decays and self._use_weight_decay(variable) else 0.0
            for decays, variable in zip(decayed(paths), variables, strict=True)
        ]
        self._scales = layer_scales(paths, self.layer_decay)
        super().build(variables)
        self.averages = None
        if self.average_decay is not None:
            self.averages = self.add_optimizer_variables(variables, "average")

    def _clip_gradients(self, grads):
        clip = super()._clip_gradients
        if self.global_clipnorm or self.clipnorm or self.clipvalue:
            return backend.clip_summed_gradients(clip, grads)
        return grads

    def _apply_weight_decay(self, variables):
        """Nothing: `update_step` decays, at the layer's rate."""

    def update_step(self, gradient, variable, learning_rate):
        """One update of one weight. Clause OPT-5."""
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        step = ops.cast(self.iterations + 1, "float32")
        rate = ops.cast(learning_rate, "float32") * self._scales[index]
        decay, first, second = (
            ops.cast(factor, variable.dtype)
            for factor in (
                rate * self._decays[index],
                rate / _correction(self.beta_1, step),
                ops.rsqrt(_correction(self.beta_2, step)),
            )
        )
        gradient = ops.cast(gradient, variable.dtype)
        mean = m * self.beta_1 + gradient * (1.0 - self.beta_1)
        square = v * self.beta_2 + ops.square(gradient) * (1.0 - self.beta_2)
        self.assign(m, mean)
        self.assign(v, square)
        # One subtraction: 1 - rate * decay by itself would lose most of a small decay's digits.
        change = variable * decay + mean * first / (ops.sqrt(square) * second + self.epsilon)
        updated = variable - change
        if self.average_decay is not None:
            held = (ops.convert_to_tensor(x) for x in (variable, self.averages[index]))
            before = ops.where(self.iterations == 0, *held)
            kept = before * self.average_decay
            self.assign(self.averages[index], kept + updated * (1.0 - self.average_decay))
        self.assign(variable, updated)

    def get_config(self):
        return {
            **super().get_config(),
            "layer_decay": self.layer_decay,
            "average_decay": self.average_decay,
        }


def decayed(paths: list[str]) -> list[bool]:
    """Whether weight decay touches each weight. Clause OPT-2.

    Raises:
        ValueError: weights that no rule covers, all listed.
    """
    names = [path.rsplit("/", 1)[-1] for path in paths]
    unknown = [p for p, name in zip(paths, names, strict=True) if name not in DECAYED + NOT_DECAYED]
    if unknown:
        raise ValueError(f"No rule says whether to decay these weights. Received: {unknown}.")
    return [name in DECAYED for name in names]


def layer_scales(paths: list[str], decay: float | None) -> list[float]:
    """What multiplies each weight's rate: decay^(depth + 1 - layer). Clause FT-6.

    Layer 0 is the tubelet embedding, j + 1 the encoder's block j, depth + 1 every other weight.
    """
    if decay is None:
        return [1.0] * len(paths)
    blocks = [re.search(r"(^|/)encoder/block_(\d+)/", path) for path in paths]
    depth = max((int(block[2]) + 1 for block in blocks if block), default=0)

    def layer(path, block):
        if re.search(r"(^|/)tubelet_embedding/", path):
            return 0
        return int(block[2]) + 1 if block else depth + 1

    return [decay ** (depth + 1 - layer(*each)) for each in zip(paths, blocks, strict=True)]


def _correction(beta, step):
    """1 - beta^step, which in float32 as it stands would lose half of its digits near beta = 1."""
    return -ops.expm1(step * (math.log(beta) if beta else -math.inf))
