"""Private names of Keras and PyTorch that this library cannot do without; no other module uses any.

Each docstring says which name it is, what it does, and which public one would replace it. All were seen in
Keras 3.15.1 and PyTorch 2.13.0. `backends_tests/each_backend/test_internals.py` tests each of them, and
pyproject.toml allows no minor version that it has not been run with.
"""

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.utils import rng_utils


def set_random_seed(seed: int) -> None:
    """Seed as `keras.utils.set_random_seed` does, without importing TensorFlow on another backend.

    Keras would import TensorFlow if it is installed, to seed `tf.data`, which takes seconds.

    Private: `keras.src.utils.rng_utils.tf`, the module that `set_random_seed` seeds if it is `available`.
    An argument of `set_random_seed` to leave out TensorFlow would replace it.
    """
    tensorflow = rng_utils.tf
    if keras.backend.backend() != "tensorflow" and "tensorflow" not in sys.modules:
        rng_utils.tf = types.SimpleNamespace(available=False)
    try:
        keras.utils.set_random_seed(seed)
    finally:
        rng_utils.tf = tensorflow


class Optimizer(keras.optimizers.Optimizer):
    """Base class of optimizers that clip gradients and decay weights in their own way.

    Private: `_clip_gradients`, `_apply_weight_decay`, `_backend_update_step`, `_use_weight_decay` and
    `_get_variable_index` of `keras.optimizers.Optimizer`. `apply` calls the first three after it has
    accumulated gradients, so that overriding `apply` is no replacement. Public methods of the same kind
    would be. Keras's documentation of `Optimizer` itself calls `_get_variable_index`.
    """

    def clip(self, gradients: list) -> list:
        """Clip gradients as the arguments say. A subclass may override it."""
        return super()._clip_gradients(gradients)

    def factors(self, learning_rate: Any) -> Any:
        """Return what `update_step` gets as the learning rate. It is computed once for all variables."""
        return learning_rate

    def may_decay(self, variable: Any) -> bool:
        """Return whether `exclude_from_weight_decay` has left this variable in."""
        return self._use_weight_decay(variable)

    def index_of(self, variable: Any) -> int:
        """Return the index of a variable among those that the optimizer was built with."""
        return self._get_variable_index(variable)

    def _clip_gradients(self, grads: list) -> list:
        return self.clip(grads)

    def _apply_weight_decay(self, variables: list) -> None:
        """Do nothing: `update_step` of a subclass applies the decay."""

    def _backend_update_step(
        self, grads: list, trainable_variables: list, learning_rate: Any
    ) -> None:
        super()._backend_update_step(grads, trainable_variables, self.factors(learning_rate))


def layout(variable: keras.Variable) -> Any:
    """Return the layout over JAX's devices that a variable was given; None if it has none yet.

    Private: `keras.Variable._layout`. A public attribute would replace it.
    """
    return variable._layout


def set_layout(variable: keras.Variable, layout: Any) -> None:
    """Give a variable a layout without allocating its value, which Keras would do at the same time.

    Optimizers copy it to the variables that they create for this one.

    Private: `keras.Variable._layout`. Layouts of variables in a `StatelessScope` would replace it.
    """
    variable._layout = layout


@contextlib.contextmanager
def recorded(layers: dict[str, keras.layers.Layer]) -> Iterator[dict[str, Any]]:
    """Yield a dict that collects the output of each layer, by its name in `layers`, when it is called.

    The layers are changed in this block: Keras has no hooks, and a model that returned all its layers'
    outputs would need another argument in every `call`.

    Private: `keras.layers.Layer.__call__` looks `call` up in the instance. Hooks that are called with a
    layer's output would replace it.
    """
    outputs = {}

    def recording(name: str, call: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            outputs[name] = call(*args, **kwargs)
            return outputs[name]

        return run

    try:
        for name, layer in layers.items():
            layer.call = recording(name, layer.call)
        yield outputs
    finally:
        for layer in layers.values():
            del layer.call  # restores the method of the class


def leave_out_symbolic_build(model: keras.Model) -> None:
    """Keep `fit` on TensorFlow from building a model that is built, with batches that would be lost.

    Private: `keras.Model._maybe_symbolic_build` on TensorFlow, which takes batches under every strategy.
    A `fit` that takes none for a built model would replace it.
    """
    model._maybe_symbolic_build = lambda *_, **__: None


def average_metrics_of_workers() -> None:
    """Make Keras on TensorFlow average the metrics of several workers, which are scalars, not batches.

    It changes Keras for the rest of the process, because `fit` has no argument for it.

    Private: `keras.src.backend.tensorflow.trainer.reduce_per_replica`. A repaired Keras would replace it:
    see https://github.com/keras-team/keras/issues/20585.
    """
    import tensorflow as tf
    from keras.src.backend.tensorflow import trainer

    def reduce_per_replica(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
        if reduction not in ("auto", "mean"):
            return original(values, strategy, reduction)
        return tf.nest.map_structure(lambda v: strategy.reduce("MEAN", v, axis=None), values)

    original, trainer.reduce_per_replica = trainer.reduce_per_replica, reduce_per_replica


def call_after_backward(function: Callable[[], None]) -> None:
    """Call a function at the end of PyTorch's running backward pass. Call it within that pass.

    Private: `torch.autograd.Variable._execution_engine`, which `DistributedDataParallel` uses too.
    `torch.autograd.graph.register_multi_grad_hook` is no replacement: it keeps all gradients in memory,
    and runs before the last one is accumulated. A public hook at the end of the pass would be.
    """
    from torch.autograd import Variable

    Variable._execution_engine.queue_callback(function)
