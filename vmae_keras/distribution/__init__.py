"""Training on many devices with each backend's own tools: data, fully sharded and tensor parallel.

`start` returns `Devices`, whose methods are used around Keras's own `fit`.

Example:
    from vmae_keras import distribution

    devices = distribution.start()  # before anything of Keras is used; start(devices=8) takes eight
    print(devices.count, devices.process, devices.processes)
"""

import os

from vmae_keras.backend import PARALLEL, import_keras, select
from vmae_keras.distribution.devices import Devices, DistributionError
from vmae_keras.distribution.launcher import Cluster, detect

__all__ = ["Cluster", "Devices", "DistributionError", "detect", "start"]

AUTO = "VMAE_CLUSTER"  # with "auto", JAX finds the other processes by itself, as on a TPU pod


def start(
    backend: str | None = None, devices: int | None = None, parallel: str = "data"
) -> Devices:
    """Start the devices to train on. Call it before anything else of Keras.

    Under a launcher (torchrun, Slurm, TF_CONFIG, ...) every process must call it, and all wait for each
    other.

    Args:
        backend: See `vmae_keras.backend.select`.
        devices: Number of devices to use, of those that this process sees. None takes one, or all if there
            are several processes or the model is split.
        parallel: "data": each device has the whole model and a part of the batch. "fsdp": in addition, the
            weights are sharded, and gathered layer by layer. "tensor": layers are split. The last two work
            only on JAX.

    Raises:
        DistributionError: The devices do not exist, or the backend does not support the request.
        LauncherError: See `detect`.
    """
    name = select(backend)
    if parallel not in PARALLEL:
        raise DistributionError(
            f"`parallel` must be one of {', '.join(PARALLEL)}. Received: {parallel!r}."
        )
    if devices is not None and devices < 1:
        raise DistributionError(f"`devices` must be at least 1. Received: {devices}.")
    cluster, auto = detect(), os.environ.get(AUTO) == "auto"
    if auto and name != "jax":
        raise DistributionError(
            f"{AUTO}=auto is JAX's. Received: the backend {name!r}. Start the job with a launcher of its."
        )
    if devices in (None, 1) and parallel == "data" and not cluster and not auto:
        return Devices()
    import_keras()
    if name == "jax":
        from vmae_keras.distribution.jax_devices import JaxDevices

        started: Devices = JaxDevices(devices, parallel, cluster, auto)
    elif name == "torch":
        from vmae_keras.distribution.torch_devices import TorchDevices

        started = TorchDevices(devices, parallel, cluster)
    else:
        from vmae_keras.distribution.tensorflow_devices import TensorFlowDevices

        started = TensorFlowDevices(devices, parallel, cluster)
    if cluster:
        # IPv6 addresses have brackets.
        started.host = cluster.addresses[0].rsplit(":", 1)[0].strip("[]")
    return started
