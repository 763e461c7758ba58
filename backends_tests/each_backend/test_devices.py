"""Tests of sums, averages and shares on simulated devices; `test_distribution.py` trains on real ones."""

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.support import BACKEND, numpy
from spec.memory_reference import part
from vmae_keras import VideoMAE, VideoMAEConfig, backend
from vmae_keras.backend.framework import running
from vmae_keras.distribution.devices import DistributionError
from vmae_keras.distribution.launcher import Cluster

only = {
    name: pytest.mark.skipif(name != BACKEND, reason=f"is about {name}")
    for name in backend.BACKENDS
}
# Process 3 of 4, with two on each machine.
CLUSTER = Cluster(4, 3, ("one:7000", "one:7001", "two:7000", "[::2]:7001"), 1, 2, "a test")


@pytest.fixture
def replicas(monkeypatch):
    """Simulate replica 1 of 3, whose sums include 3 and 7 from the other two."""
    monkeypatch.setattr(running, "replicas", lambda: (1, 3))
    if BACKEND == "torch":
        import torch.distributed as dist

        monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.add_(10.0))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def all_reduce(operation, value):
            assert operation == "SUM"
            return tf.nest.map_structure(lambda each: each + 10.0, value)

        context = SimpleNamespace(all_reduce=all_reduce)
        monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: context)


@pytest.mark.clause("SHARD-3")
@pytest.mark.parametrize("axis", [0, 2])
def test_a_replica_takes_its_part_of_the_whole_draw(replicas, axis):
    shape = tuple(3 * 2 if place == axis else 2 for place in range(3))
    whole = numpy(keras.random.uniform(shape, seed=5))
    mine = numpy(backend.uniform_of_batch((2, 2, 2), axis=axis, seed=5))
    np.testing.assert_array_equal(mine, np.take(whole, [2, 3], axis))


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no replicas")
def test_a_parts_loss_counts_by_its_share_of_the_weight(replicas):
    share = backend.relative_to_replicas(keras.ops.convert_to_tensor(2.0))
    assert float(numpy(share)) == 0.5  # share of a mean weight of 4


def test_a_single_replica_counts_whole():
    assert running.replicas() == (0, 1)
    assert backend.relative_to_replicas(keras.ops.convert_to_tensor(2.0)) == 1.0


@pytest.mark.clause("SHARD-4")
def test_the_sum_of_all_replicas_gradients_is_clipped(replicas):
    """Check clipping after the sum. Keras clips first on TensorFlow; elsewhere it gets summed gradients."""
    given = [keras.ops.convert_to_tensor([3.0]), keras.ops.convert_to_tensor([-4.0, 2.0])]
    got = backend.clip_summed_gradients(lambda values: [value * 3.0 for value in values], given)
    expected = ([13.0], [6.0, 12.0]) if BACKEND == "tensorflow" else ([9.0], [-12.0, 6.0])
    for mine, wanted in zip(got, expected, strict=True):
        assert_close(numpy(mine), wanted, "float32")


# JAX ---------------------------------------------------------------------------------------------


def simulated(count, process=0):
    return [
        SimpleNamespace(platform="cpu", id=10 * process + i, process_index=process, device_kind="c")
        for i in range(count)
    ]


@only["jax"]
@pytest.mark.parametrize("parallel", backend.PARALLEL)
def test_keras_lays_weights_out_as_the_oracle_says(parallel):
    from vmae_keras.distribution.jax_devices import keras_distribution

    model = VideoMAE(VideoMAEConfig.variant("tiny"))
    devices = [*simulated(2), *simulated(2, process=1)]
    layouts = keras_distribution(devices, parallel, processes=2)
    tensor = parallel == "tensor"
    assert layouts.device_mesh.axis_names == (["batch", "model"] if tensor else ["batch"])
    assert tuple(layouts.device_mesh.shape) == ((2, 2) if tensor else (4,))
    assert layouts.device_mesh.devices.ravel().tolist() == ["cpu:0", "cpu:1", "cpu:10", "cpu:11"]
    split = 0
    for variable in model.variables:
        shape = tuple(variable.shape)
        whole = part(variable.path, shape, parallel, 2 if tensor else 4)
        layout = layouts.get_variable_layout(variable)
        axes = (layout.axes if layout else None) or (None,) * len(shape)
        expected = tuple(
            ("model" if tensor else "batch") if size < before else None
            for size, before in zip(whole, shape, strict=True)
        )
        assert tuple(axes) == expected, variable.path
        split += any(expected)
    assert (split > 0) == (parallel != "data")


@only["jax"]
def test_as_many_devices_of_each_process_are_used(monkeypatch):
    import jax

    from vmae_keras.distribution import jax_devices

    every = [*simulated(3, process=1), *simulated(3)]
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(jax, "devices", lambda: every)
    monkeypatch.setattr(jax, "local_devices", lambda: every[3:])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    used = []
    monkeypatch.setattr(jax_devices, "keras_distribution", lambda *given: used.append(given))
    made = jax_devices.JaxDevices(2, "fsdp", None, False)
    assert (made.count, made.process, made.processes, made.shares) == (4, 0, 2, 4)
    ((devices, parallel, processes),) = used
    assert [each.id for each in devices] == [0, 1, 10, 11]
    assert (parallel, processes) == ("fsdp", 2)
    gathered = np.array([[1, 5], [2, 7]], "float32")
    monkeypatch.setattr(jax_devices.multihost_utils, "process_allgather", lambda values: gathered)
    np.testing.assert_array_equal(made.sum([1, 5]), [3, 12])
    with pytest.raises(DistributionError, match=r"Received: 4, this process sees 3 \(c\)"):
        jax_devices.JaxDevices(4, "data", None, False)


@only["jax"]
def test_a_local_model_is_not_distributed():
    from vmae_keras.distribution.jax_devices import JaxDevices, keras_distribution

    devices = object.__new__(JaxDevices)
    devices.distribution = keras_distribution(simulated(1), "data")
    with devices.scope():
        with devices.local():
            assert keras.distribution.distribution() is None
        assert keras.distribution.distribution() is devices.distribution


# TensorFlow --------------------------------------------------------------------------------------


@only["tensorflow"]
def test_the_strategy_gets_the_cluster():
    from vmae_keras.distribution.tensorflow_devices import _workers

    workers = _workers(CLUSTER, ["gpu:0", "gpu:1"])
    assert workers.cluster_spec().as_dict() == {"worker": list(CLUSTER.addresses)}
    assert (workers.task_type, workers.task_id) == ("worker", 3)
    assert workers.num_accelerators() == {"GPU": 2}
    assert _workers(CLUSTER, ["cpu:0"]).num_accelerators() == {"GPU": 0}
    assert _workers(replace(CLUSTER, launcher="TF_CONFIG"), []) is None
    with pytest.raises(DistributionError, match="Received: 4 processes by a test"):
        _workers(replace(CLUSTER, addresses=("one:7000",)), [])


@only["tensorflow"]
def test_each_process_takes_the_gpu_of_its_number(monkeypatch):
    import tensorflow as tf

    from vmae_keras.distribution.tensorflow_devices import _device_names

    seen, cards = [], ["card 0", "card 1", "card 2"]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: {"GPU": cards}[kind])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *given: seen.append(given))
    assert _device_names(2, None) == ["gpu:0", "gpu:1"]
    assert _device_names(None, None) == ["gpu:0", "gpu:1", "gpu:2"]
    assert _device_names(None, CLUSTER) == ["gpu:0"]
    assert seen == [(cards[:2], "GPU"), (cards, "GPU"), (["card 1"], "GPU")]
    with pytest.raises(DistributionError, match="Received: 4, this machine has 3"):
        _device_names(4, None)
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind: {"CPU": ["cpu"]}.get(kind, ())
    )
    made = []
    monkeypatch.setattr(
        tf.config, "set_logical_device_configuration", lambda *given: made.append(given)
    )
    assert _device_names(3, None) == ["cpu:0", "cpu:1", "cpu:2"]
    ((cpu, parts),) = made
    assert cpu == "cpu" and len(parts) == 3


@only["tensorflow"]
def test_a_batch_is_cut_into_parts_in_order():
    from vmae_keras.distribution.tensorflow_devices import _split

    batch = ({"video": np.arange(6).reshape(6, 1), "visible": 10 * np.arange(6)}, np.arange(6))
    for number, (inputs, labels) in enumerate(_split(batch, 3)):
        rows = [2 * number, 2 * number + 1]
        assert inputs["video"].tolist() == [[row] for row in rows]
        assert inputs["visible"].tolist() == [10 * row for row in rows]
        assert labels.tolist() == rows


# PyTorch -----------------------------------------------------------------------------------------


@pytest.fixture
def processes(monkeypatch):
    """Simulate process 1 of 4. Each other process adds this one's value plus 1 to a sum."""
    import torch.distributed as dist

    sent = []

    def all_reduce(tensor, async_op=False):
        sent.append(tensor.numel())
        total = tensor * 4 + 3
        if not async_op:
            tensor.copy_(total)
        return SimpleNamespace(wait=lambda: tensor.copy_(total))

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    return sent


@only["torch"]
def test_gradients_are_averaged_in_buckets_within_the_backward_pass(processes, monkeypatch):
    """Check that every backward pass starts afresh and sends its last bucket even if it is not full."""
    import torch

    from vmae_keras.distribution import torch_devices

    weights = [
        torch.nn.Parameter(torch.arange(size, dtype=torch.float32)) for size in (1, 4, 2, 4, 1)
    ]
    monkeypatch.setattr(torch_devices, "BUCKET_BYTES", 16)
    buckets = torch_devices.Buckets(weights)
    for factor in (1.0, 2.0):
        for weight in weights:
            weight.grad = None
        processes.clear()
        sum((factor * weight * weight).sum() for weight in weights).backward()
        for weight in weights:
            torch.testing.assert_close(weight.grad, 2 * factor * weight.detach() + 3)
        assert sum(processes) == 12 and 1 < len(processes) < 5
        assert (buckets.ready, buckets.bytes, buckets.sent, buckets.open) == ([], 0, [], False)


@only["torch"]
@pytest.mark.parametrize(
    ("launcher", "method"),
    [("torchrun", "env://"), ("a test", "tcp://[::1]:7000")],
    ids=["torchrun", "other"],
)
def test_a_process_joins_with_its_number_and_its_card(launcher, method, processes, monkeypatch):
    import torch
    import torch.distributed as dist

    from vmae_keras.distribution.torch_devices import TorchDevices

    cards, started = [], []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", cards.append)
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(
        dist, "init_process_group", lambda name, **given: started.append((name, given))
    )
    cluster = Cluster(4, 3, ("[::1]:7000",), 1, 2, launcher)
    devices = TorchDevices(None, "data", cluster)
    job = {"init_method": method, "rank": 3, "world_size": 4}
    assert (cards, started) == ([1], [("gloo", job)])
    assert (devices.count, devices.process, devices.processes) == (4, 3, 4)
    np.testing.assert_array_equal(devices.sum([1, 2]), [7, 11])
    assert devices.mean({"loss": 0.5, "top_1": 2.0}) == {"loss": 1.25, "top_1": 2.75}
    with pytest.raises(DistributionError, match="Received: devices=3, 2 processes"):
        TorchDevices(3, "data", cluster)
    with pytest.raises(DistributionError, match="one process and devices=2"):
        TorchDevices(2, "data", None)


@only["torch"]
def test_all_begin_with_the_first_ones_weights_and_moments(monkeypatch):
    import torch.distributed as dist

    from vmae_keras.distribution import torch_devices

    told, hooked = [], []
    monkeypatch.setattr(dist, "broadcast", lambda tensor, src: told.append((tensor.shape, src)))
    monkeypatch.setattr(torch_devices, "Buckets", hooked.extend)
    model = VideoMAE(VideoMAEConfig.variant("tiny"))
    model.compile(keras.optimizers.AdamW())
    object.__new__(torch_devices.TorchDevices).join(model)
    everything = (*model.variables, *model.optimizer.variables)
    assert len(everything) > 3 * len(model.trainable_variables)
    assert told == [(variable.value.shape, 0) for variable in everything]
    assert [each is v.value for each, v in zip(hooked, model.trainable_variables, strict=True)]
