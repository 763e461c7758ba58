"""JAX: `keras.distribution` over the devices of one process or of all processes of a job."""

import contextlib
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

from vmae_keras import backend
from vmae_keras.backend import internals
from vmae_keras.distribution.devices import Devices, DistributionError
from vmae_keras.distribution.launcher import Cluster
from vmae_keras.distribution.layout import split_axis


class JaxDevices(Devices):
    """JAX's `Devices`. Values, losses and draws are those of the global batch; XLA divides the work."""

    def __init__(
        self, devices: int | None, parallel: str, cluster: Cluster | None, auto: bool
    ) -> None:
        if devices:
            # On CPUs, the devices share this machine's cores. If JAX already runs, their number is fixed.
            with contextlib.suppress(RuntimeError):
                jax.config.update("jax_num_cpu_devices", devices)
        if auto:
            keras.distribution.initialize()
        elif cluster:
            if (cluster.local_processes or 1) > 1:  # each process takes the GPU of its local rank
                backend.show_jax_one_device(cluster.local_process)
            keras.distribution.initialize(cluster.addresses[0], cluster.processes, cluster.process)
        local = len(jax.local_devices())
        if devices and devices > local:
            raise DistributionError(
                f"--devices asks for more than there are. Received: {devices}, this process sees "
                f"{local} ({jax.local_devices()[0].device_kind})."
            )
        here = devices or local
        used = [
            device
            for process in range(jax.process_count())
            for device in [each for each in jax.devices() if each.process_index == process][:here]
        ]
        super().__init__(len(used), parallel, jax.process_index(), jax.process_count())
        self.distribution = keras_distribution(used, parallel, self.processes)

    def scope(self) -> contextlib.AbstractContextManager:
        return self.distribution.scope()

    def local(self) -> contextlib.AbstractContextManager:
        return _NoDistribution()

    def sum(self, values: Any) -> np.ndarray:
        values = np.asarray(values, "float32")
        if self.processes == 1:
            return values
        return np.asarray(multihost_utils.process_allgather(values)).sum(axis=0)


class _NoDistribution:
    """A context in which models and data are local to this process."""

    def __enter__(self) -> None:
        self.held = keras.distribution.distribution()
        keras.distribution.set_distribution(None)

    def __exit__(self, *_: object) -> None:
        keras.distribution.set_distribution(self.held)


class Layouts(keras.distribution.ModelParallel):
    """Layouts of weights by `split_axis`, which also depends on shapes, unlike a `LayoutMap`."""

    def __init__(self, mesh: keras.distribution.DeviceMesh, parallel: str) -> None:
        layouts = keras.distribution.LayoutMap(mesh)
        super().__init__(layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False)
        self.parallel = parallel
        self.split_name = "model" if parallel == "tensor" else "batch"

    def get_variable_layout(
        self, variable: keras.Variable
    ) -> keras.distribution.TensorLayout | None:
        layout = super().get_variable_layout(variable)
        parts = self.device_mesh.shape[self.device_mesh.axis_names.index(self.split_name)]
        shape = tuple(variable.shape)
        axis = split_axis(variable.path, shape, self.parallel, parts)
        if internals.layout(variable) is not None or axis is None:
            return layout  # an optimizer's variable has its weight's layout
        axes = [self.split_name if each == axis else None for each in range(len(shape))]
        return keras.distribution.TensorLayout(axes, self.device_mesh)


def keras_distribution(devices: list, parallel: str, processes: int = 1) -> Layouts:
    """Return the distribution of a model and its batches over JAX's devices, which are grouped by process.

    Data and fully sharded parallel treat all devices alike. Tensor parallel splits layers over the devices
    of a process, which are close to each other, and the batch over processes.
    """
    names = [f"{device.platform}:{device.id}" for device in devices]
    shape: tuple[int, ...] = (len(names),)
    axes = ["batch"]
    if parallel == "tensor":
        shape, axes = (processes, len(names) // processes), ["batch", "model"]
    return Layouts(keras.distribution.DeviceMesh(shape, axes, names), parallel)
