"""Tests of each private name of Keras and PyTorch: that it exists and means what it did.

A new minor version of Keras or PyTorch is tried here first.
"""

import random
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from backends_tests.support import BACKEND, numpy
from vmae_keras.backend import internals

only = {
    name: pytest.mark.skipif(name != BACKEND, reason=f"is about {name}")
    for name in ("jax", "tensorflow", "torch")
}


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow is seeded there")
@pytest.mark.parametrize("imported", [False, True])
def test_keras_seeds_tensorflow_only_if_it_is_available(imported, monkeypatch):
    """Check `rng_utils.tf`, and that Keras's own module is back afterwards."""
    if not imported:
        monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace())
    seeds = []
    tensorflow = SimpleNamespace(available=True, random=SimpleNamespace(set_seed=seeds.append))
    monkeypatch.setattr(internals.rng_utils, "tf", tensorflow)
    internals.set_random_seed(3)
    assert seeds == ([3] if imported else [])
    assert internals.rng_utils.tf is tensorflow
    assert random.random() == random.Random(3).random()


class Clipped(internals.Optimizer):
    """An optimizer that keeps what it clips and subtracts nothing."""

    def clip(self, gradients):
        self.given = [numpy(gradient) for gradient in gradients]
        self.clipped = [numpy(gradient) for gradient in super().clip(gradients)]
        return gradients

    def update_step(self, gradient, variable, learning_rate):
        pass


def two_variables():
    return [keras.Variable([2.0, 3.0], name=name) for name in ("kernel", "bias")]


def test_apply_clips_the_accumulated_gradients():
    """Check `_clip_gradients`."""
    optimizer = Clipped(1.0, clipvalue=1.0, gradient_accumulation_steps=2)
    variables = two_variables()
    optimizer.build(variables)
    for value in (2.0, 4.0):
        given = [keras.ops.convert_to_tensor([value, 0.5]) for _ in variables]
        optimizer.apply(given, variables)
    assert [each.tolist() for each in optimizer.given] == [[3.0, 0.5]] * 2
    assert [each.tolist() for each in optimizer.clipped] == [[1.0, 0.5]] * 2


def test_apply_decays_no_weight_itself():
    """Check `_apply_weight_decay`, and that Keras would decay without it."""
    after = []
    for base in (internals.Optimizer, keras.optimizers.Optimizer):

        class Still(base):
            def update_step(self, gradient, variable, learning_rate):
                pass

        optimizer, variables = Still(0.5, weight_decay=0.5), two_variables()
        optimizer.build(variables)
        optimizer.apply([keras.ops.zeros(2) for _ in variables], variables)
        after.append(numpy(variables[0]).tolist())
    assert after == [[2.0, 3.0], [1.5, 2.25]]


def test_all_variables_get_factors_that_are_computed_once():
    """Check `_backend_update_step`."""

    class Scaled(internals.Optimizer):
        asked = 0

        def factors(self, learning_rate):
            self.asked += 1
            return learning_rate, 2.0

        def update_step(self, gradient, variable, factors):
            self.assign_sub(variable, factors[0] * factors[1] * gradient)

    optimizer, variables = Scaled(0.25), two_variables()
    optimizer.build(variables)
    optimizer.apply([keras.ops.ones(2) for _ in variables], variables)
    assert [numpy(variable).tolist() for variable in variables] == [[1.5, 2.5]] * 2
    assert optimizer.asked == 1


def test_an_optimizer_knows_the_index_and_decay_of_its_variables():
    """Check `_get_variable_index` and `_use_weight_decay`."""
    optimizer, variables = internals.Optimizer(1.0, weight_decay=0.5), two_variables()
    optimizer.exclude_from_weight_decay(var_list=variables[1:])
    optimizer.build(variables)
    assert [optimizer.index_of(variable) for variable in variables] == [0, 1]
    assert [optimizer.may_decay(variable) for variable in variables] == [True, False]


@only["jax"]
def test_a_variables_layout_is_that_of_its_distribution():
    """Check `_layout`: Keras sets it, asks for it, and gives it to the optimizer's variables."""
    import jax

    mesh = keras.distribution.DeviceMesh((1,), ["batch"], [str(jax.devices()[0])])
    distribution = keras.distribution.ModelParallel(
        layout_map=keras.distribution.LayoutMap(mesh), batch_dim_name="batch"
    )
    variable = keras.Variable([1.0, 2.0])
    assert internals.layout(variable) is None
    with distribution.scope():
        assert internals.layout(keras.Variable([1.0, 2.0])).axes == (None,)
    split = keras.distribution.TensorLayout(["batch"], mesh)
    internals.set_layout(variable, split)
    assert distribution.get_variable_layout(variable) is split
    optimizer = keras.optimizers.SGD(momentum=0.9)
    optimizer.build([variable])
    assert internals.layout(optimizer.variables[-1]) is split


def test_calls_of_layers_are_recorded_in_the_block_only():
    """Check that Keras calls `call` of the instance."""
    layer = keras.layers.Rescaling(2.0)
    with internals.recorded({"twice": layer}) as outputs:
        layer(np.ones(1))
    assert numpy(outputs.pop("twice")).tolist() == [2.0]
    layer(np.ones(1))
    assert outputs == {} and "call" not in vars(layer)


@only["tensorflow"]
@pytest.mark.parametrize("left_out", [False, True])
def test_fit_reads_the_data_twice_to_build_the_model(left_out):
    """Check `_maybe_symbolic_build`, and that Keras would take batches without it."""
    import tensorflow as tf

    opened = []

    def batches():
        opened.append(True)
        yield from [(np.ones((1, 1), "float32"), np.ones((1, 1), "float32"))] * 2

    strategy, spec = tf.distribute.MirroredStrategy(["cpu:0"]), tf.TensorSpec((1, 1))
    data = strategy.distribute_datasets_from_function(
        lambda context: tf.data.Dataset.from_generator(batches, output_signature=(spec, spec))
    )
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        if left_out:
            internals.leave_out_symbolic_build(model)
        model.fit(data, steps_per_epoch=2, shuffle=False, verbose=0)
    assert len(opened) == (1 if left_out else 2)


@only["tensorflow"]
def test_metrics_of_workers_are_averaged(monkeypatch):
    from keras.src.backend.tensorflow import trainer

    given = []
    monkeypatch.setattr(trainer, "reduce_per_replica", lambda *rest: given.append(rest))
    internals.average_metrics_of_workers()
    strategy = SimpleNamespace(reduce=lambda how, value, axis: (how, value, axis))
    averaged = trainer.reduce_per_replica({"loss": 3.0}, strategy, "auto")
    assert averaged == {"loss": ("MEAN", 3.0, None)} and not given
    trainer.reduce_per_replica({"loss": 3.0}, strategy, "sum")
    assert given == [({"loss": 3.0}, strategy, "sum")]


@only["tensorflow"]
def test_fit_reduces_metrics_with_a_function_of_its_module(monkeypatch):
    """Check `reduce_per_replica`: `fit` looks it up in its module, and passes these arguments."""
    from keras.src.backend.tensorflow import trainer

    given, original = [], trainer.reduce_per_replica

    def reduce_per_replica(values, strategy, reduction):
        given.append((sorted(values), strategy, reduction))
        return original(values, strategy, reduction)

    monkeypatch.setattr(trainer, "reduce_per_replica", reduce_per_replica)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 1)), np.ones((2, 1)), verbose=0)
    assert set(map(str, given)) == {str((["loss"], model.distribute_strategy, "auto"))}


@only["torch"]
def test_a_function_is_called_after_the_backward_pass():
    """Check `_execution_engine`: once, after the last gradient is accumulated."""
    import torch

    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(3)]
    seen = []
    weights[0].register_post_accumulate_grad_hook(
        lambda _: internals.call_after_backward(lambda: seen.append([w.grad for w in weights]))
    )
    sum(weights).sum().backward()
    (gradients,) = seen
    assert [gradient.item() for gradient in gradients] == [1.0, 1.0, 1.0]
