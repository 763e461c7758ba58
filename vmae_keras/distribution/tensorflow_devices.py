"""TensorFlow: `MirroredStrategy` in one process, `MultiWorkerMirroredStrategy` over several."""

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from vmae_keras.backend import internals
from vmae_keras.distribution.devices import Devices, DistributionError
from vmae_keras.distribution.launcher import Cluster


class TensorFlowDevices(Devices):
    """TensorFlow's `Devices`. Each device has a replica of the model and its part of a batch."""

    def __init__(self, devices: int | None, parallel: str, cluster: Cluster | None) -> None:
        if parallel != "data":
            raise DistributionError(
                "Keras 3.15 splits weights over devices only on JAX. "
                f"Received: parallel={parallel!r} on tensorflow. Take --backend jax, or --parallel data."
            )
        names = _device_names(devices, cluster)
        if cluster:
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy(_workers(cluster, names))
            internals.average_metrics_of_workers()
        else:
            self.strategy = tf.distribute.MirroredStrategy(names)
        process, processes = (cluster.process, cluster.processes) if cluster else (0, 1)
        super().__init__(self.strategy.num_replicas_in_sync, parallel, process, processes)

    def scope(self) -> contextlib.AbstractContextManager:
        return self.strategy.scope()

    def join(self, model: Any) -> None:
        super().join(model)
        if model.optimizer and model.optimizer.gradient_accumulation_steps:
            raise DistributionError(
                "Keras on TensorFlow cannot accumulate gradients on several devices (an update in a "
                "branch is no place for a strategy to merge replicas). Received: accumulate="
                f"{model.optimizer.gradient_accumulation_steps}. Take --set accumulate=1 with more "
                "devices or a smaller batch, or --backend jax or torch."
            )
        internals.leave_out_symbolic_build(model)

    def batches(self, batches: Iterable) -> Iterable:
        here = self.count // self.processes
        parts = (part for batch in batches for part in _split(batch, here))
        # In another thread, outside the strategy's scope, because the generator of batches is local.
        with ThreadPoolExecutor(1) as thread:
            first = thread.submit(next, parts).result()
        signature = tf.nest.map_structure(
            lambda array: tf.TensorSpec(array.shape, array.dtype), first
        )

        def generate() -> Iterator:
            yield first
            yield from parts

        return self.strategy.distribute_datasets_from_function(
            lambda context: tf.data.Dataset.from_generator(generate, output_signature=signature)
        )

    def share(self, arrays: tuple, batch_size: int) -> tuple[tuple | None, int]:
        # The strategy itself divides each batch of arrays, also over processes.
        return self.divisible(arrays), batch_size

    def sum(self, values: Any) -> np.ndarray:
        if self.processes == 1:
            return super().sum(values)
        return self._total(tf.constant(np.asarray(values, "float32"))).numpy()

    @tf.function
    def _total(self, values: tf.Tensor) -> tf.Tensor:
        here = self.count // self.processes

        def mine() -> tf.Tensor:
            replica = tf.distribute.get_replica_context()
            first = tf.equal(replica.replica_id_in_sync_group % here, 0)
            return replica.all_reduce("SUM", tf.where(first, values, tf.zeros_like(values)))

        return self.strategy.experimental_local_results(self.strategy.run(mine))[0]


def _device_names(devices: int | None, cluster: Cluster | None) -> list[str]:
    """Return the names of GPUs, or of logical CPUs that share this machine's cores."""
    cards = tf.config.list_physical_devices("GPU")
    if cluster and (cluster.local_processes or 1) > 1 and len(cards) > 1:
        if cluster.local_process >= len(cards):
            raise DistributionError(
                f"More processes than GPUs. Received: process {cluster.local_process} of this machine, "
                f"which has {len(cards)} GPUs, numbered from 0."
            )
        cards = [cards[cluster.local_process]]
    wanted = devices or max(len(cards), 1)
    if cards:
        if wanted > len(cards):
            raise DistributionError(
                f"--devices asks for more than there are. Received: {devices}, this machine has "
                f"{len(cards)}."
            )
        tf.config.set_visible_devices(cards[:wanted], "GPU")
        return [f"gpu:{number}" for number in range(wanted)]
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(wanted)]
    )
    return [f"cpu:{number}" for number in range(wanted)]


def _workers(
    cluster: Cluster, names: list[str]
) -> tf.distribute.cluster_resolver.ClusterResolver | None:
    """Return the job's workers, each with devices of these names; None for those in $TF_CONFIG."""
    if cluster.launcher == "TF_CONFIG":
        return None
    if len(cluster.addresses) != cluster.processes:
        raise DistributionError(
            "TensorFlow needs the address of each worker, and the launcher gives only that of the first. "
            f"Received: {cluster.processes} processes by {cluster.launcher}. Set TF_CONFIG, or start the "
            "job with Slurm's srun."
        )
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": cluster.addresses}),
        task_type="worker",
        task_id=cluster.process,
        num_accelerators={"GPU": sum(name.startswith("gpu") for name in names)},
        rpc_layer="grpc",
    )


def _split(batch: Any, parts: int) -> list:
    """Split every array of a structure into equal parts; return one structure per part."""
    flat = [np.split(array, parts) for array in tf.nest.flatten(batch)]
    return [tf.nest.pack_sequence_as(batch, part) for part in zip(*flat, strict=True)]
