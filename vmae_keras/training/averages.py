"""Validation with the moving averages of the weights."""

from typing import Any

import keras


class AveragedValidation(keras.callbacks.Callback):
    """Callback that validates with the moving averages of the weights, if the optimizer keeps them."""

    async_safe = True

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._swap()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self._swap()

    def _swap(self) -> None:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if optimizer.averages is None or not int(optimizer.iterations + 0):
            return  # averages are empty before the first update
        for weight, average in zip(self.model.trainable_variables, optimizer.averages, strict=True):
            held = keras.ops.copy(weight.value)  # PyTorch assigns in place
            weight.assign(average.value)
            average.assign(held)
