"""AdamW as in the papers: warm-up and cosine per step, no decay of one-dimensional weights."""

import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from vmae_keras import backend
from vmae_keras.backend import AnyTensor, internals
from vmae_keras.recipes.base import TrainingRecipe

# Last components of weight paths. Every weight must be in one of the two lists.
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
    """Learning-rate schedule: linear from 0 to `peak`, then half a cosine down to `minimum`.

    The rate of update s < warmup is peak * s / (warmup - 1). The rate i updates after the warm-up, of n in
    total, is minimum + (peak - minimum) * (1 + cos(pi * i / n)) / 2.

    Args:
        peak, minimum: Learning rates.
        warmup_steps, total_steps: Numbers of updates.
        accumulate: Batches per update, equal to the optimizer's `gradient_accumulation_steps`. Keras
            passes the number of the batch, not of the update.

    Raises:
        ValueError: The warm-up is negative, or leaves no step after it.

    Source: official `cosine_scheduler`; clause OPT-4.

    Example:
        from vmae_keras import AdamW, WarmupCosine

        optimizer = AdamW(WarmupCosine(1e-3, 1e-5, warmup_steps=100, total_steps=1000))
    """

    def __init__(
        self, peak: float, minimum: float, warmup_steps: int, total_steps: int, accumulate: int = 1
    ) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                "`warmup_steps` must be at least 0 and less than `total_steps`. "
                f"Received: warmup_steps={warmup_steps}, total_steps={total_steps}."
            )
        self.peak, self.minimum = peak, minimum
        self.warmup_steps, self.total_steps = warmup_steps, total_steps
        self.accumulate = accumulate

    def __call__(self, step: AnyTensor) -> AnyTensor:
        step = ops.floor(ops.cast(step, "float32") / self.accumulate)
        warm = self.peak * step / max(self.warmup_steps - 1, 1)
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        cosine = 0.5 * (1.0 + ops.cos(np.pi * ops.clip(done, 0.0, 1.0)))
        return ops.where(
            step < self.warmup_steps, warm, self.minimum + (self.peak - self.minimum) * cosine
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "minimum": self.minimum,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "accumulate": self.accumulate,
        }


@keras.saving.register_keras_serializable(package="vmae_keras")
class AdamW(internals.Optimizer):
    """AdamW with torch's arithmetic, selective weight decay and layer-wise learning rates.

    Keras's AdamW adds epsilon before correcting the second moment, and forgets on reloading which weights
    do not decay.

    Args:
        learning_rate: Learning rate or schedule.
        weight_decay, beta_1, beta_2, epsilon: Parameters as in OPT-5.
        layer_decay: Factor of a weight's whole update, decay included, for each layer between it and the
            head; None for none. It is for fine-tuning, with every block trainable.
        average_decay: Decay of `averages`, moving averages of the weights; None for none. They start at
            the initial weights and follow each update. Keras's `use_ema` would start after the first
            update, also follow accumulated batches, and overwrite the weights at the end of every `fit`.
        kwargs: Arguments of Keras's optimizers, such as clipping and accumulation.

    Raises:
        ValueError: `amsgrad` is set, or, on building, no rule covers a weight.

    Source: V2's `optim_factory.py`; clauses OPT-1, OPT-2, OPT-5, OPT-6, FT-6, FT-7.

    Example:
        import keras
        from vmae_keras import AdamW, VideoClassifier

        classifier = VideoClassifier.from_preset("pretrained", classes=400)
        classifier.compile(
            AdamW(1e-3, layer_decay=0.75),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        weight_decay: float = 0.05,
        beta_1: float = 0.9,
        beta_2: float = 0.95,
        epsilon: float = 1e-8,
        layer_decay: float | None = None,
        average_decay: float | None = None,
        name: str = "adamw",
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        # Checkpoints identify the optimizer's variables by its name.
        super().__init__(learning_rate, weight_decay, name=name, **kwargs)
        if amsgrad:  # False in files of earlier versions
            raise ValueError("`amsgrad` is not part of it. Received: amsgrad=True. Leave it out.")
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.layer_decay, self.average_decay = layer_decay, average_decay

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        paths = [variable.path for variable in variables]
        self._decays = [
            self.weight_decay if decays and self.may_decay(variable) else 0.0
            for decays, variable in zip(decayed(paths), variables, strict=True)
        ]
        self._scales = layer_scales(paths, self.layer_decay)
        super().build(variables)
        self.momentums, self.velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )
        self.averages: Any = None
        if self.average_decay is not None:
            self.averages = self.add_optimizer_variables(variables, "average")

    def clip(self, gradients: list[AnyTensor]) -> list[AnyTensor]:
        """Clip the gradients of the global batch."""
        if self.global_clipnorm or self.clipnorm or self.clipvalue:
            return backend.clip_summed_gradients(super().clip, gradients)
        return gradients

    def factors(self, learning_rate: AnyTensor) -> tuple[AnyTensor, ...]:
        """Return what all weights share in an update: rate, and corrections of the two moments."""
        step = ops.cast(self.iterations + 1, "float32")
        return (
            ops.cast(learning_rate, "float32"),
            _correction(self.beta_1, step),
            ops.rsqrt(_correction(self.beta_2, step)),
        )

    def update_step(
        self, gradient: AnyTensor, variable: keras.Variable, factors: tuple[AnyTensor, ...]
    ) -> None:
        """Update one weight. Clause OPT-5."""
        index = self.index_of(variable)
        m, v = self.momentums[index], self.velocities[index]
        rate, correction, second = factors
        rate = rate * self._scales[index]
        decay, first, second = (
            ops.cast(factor, variable.dtype)
            for factor in (rate * self._decays[index], rate / correction, second)
        )
        gradient = ops.cast(gradient, variable.dtype)
        mean = m * self.beta_1 + gradient * (1.0 - self.beta_1)
        square = v * self.beta_2 + ops.square(gradient) * (1.0 - self.beta_2)
        self.assign(m, mean)
        self.assign(v, square)
        # Subtract once: computing 1 - rate * decay would lose most digits of a small decay.
        change = variable * decay + mean * first / (ops.sqrt(square) * second + self.epsilon)
        updated = variable - change
        if self.average_decay is not None:
            held = (ops.convert_to_tensor(x) for x in (variable, self.averages[index]))
            before = ops.where(self.iterations == 0, *held)
            kept = before * self.average_decay
            self.assign(self.averages[index], kept + updated * (1.0 - self.average_decay))
        self.assign(variable, updated)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "layer_decay": self.layer_decay,
            "average_decay": self.average_decay,
        }


def decayed(paths: list[str]) -> list[bool]:
    """Return, for each weight, whether weight decay applies to it. Clause OPT-2.

    Raises:
        ValueError: No rule covers some weights (all are listed).
    """
    names = [path.rsplit("/", 1)[-1] for path in paths]
    unknown = [p for p, name in zip(paths, names, strict=True) if name not in DECAYED + NOT_DECAYED]
    if unknown:
        raise ValueError(f"No rule says whether to decay these weights. Received: {unknown}.")
    return [name in DECAYED for name in names]


def layer_scales(paths: list[str], decay: float | None) -> list[float]:
    """Return the factor of each weight's learning rate: decay^(depth + 1 - layer). Clause FT-6.

    Layer 0 is the tubelet embedding, layer j + 1 the encoder's block j, layer depth + 1 all other weights.
    """
    if decay is None:
        return [1.0] * len(paths)
    blocks = [re.search(r"(^|/)encoder/block_(\d+)/", path) for path in paths]
    depth = max((int(block[2]) + 1 for block in blocks if block), default=0)

    def layer(path: str, block: re.Match[str] | None) -> int:
        if re.search(r"(^|/)tubelet_embedding/", path):
            return 0
        return int(block[2]) + 1 if block else depth + 1

    return [decay ** (depth + 1 - layer(*each)) for each in zip(paths, blocks, strict=True)]


def _correction(beta: float, step: AnyTensor) -> AnyTensor:
    """Return 1 - beta^step. In float32, the plain formula loses half of the digits for beta near 1."""
    return -ops.expm1(step * (math.log(beta) if beta else -math.inf))


def build_optimizer(
    recipe: TrainingRecipe, steps_per_epoch: int, layer_decay: float | None = None
) -> tuple[AdamW, Callable[[int], float]]:
    """Return AdamW with the recipe's warm-up and cosine, and a function step -> learning rate."""
    recipe.check_warmup()
    updates = recipe.updates(steps_per_epoch)
    warmup = round(recipe.warmup_epochs * steps_per_epoch / recipe.accumulate)
    schedule = WarmupCosine(
        recipe.learning_rate,
        recipe.final_learning_rate,
        min(warmup, updates - 1),
        updates,
        recipe.accumulate,
    )
    adamw = AdamW(
        schedule,
        recipe.weight_decay,
        beta_1=recipe.beta_1,
        beta_2=recipe.beta_2,
        layer_decay=layer_decay,
        global_clipnorm=recipe.clip_norm,
        average_decay=recipe.average_decay,
        gradient_accumulation_steps=recipe.accumulate if recipe.accumulate > 1 else None,
    )
    return adamw, lambda step: float(schedule(step))
