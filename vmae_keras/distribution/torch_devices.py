"""PyTorch: one process for each device, gradients averaged while the backward pass runs.

Keras 3.15 has no distribution for PyTorch. `DistributedDataParallel(model)` would average nothing in `fit`,
which calls the model and not the wrapper; so the same is done with PyTorch's own hooks: gradients travel in
buckets as soon as they are ready, and the backward pass ends when all have come back.
"""

import os

import numpy as np
import torch
import torch.distributed as dist
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.autograd import Variable

from vmae_keras.distribution.devices import Devices, DistributionError
from vmae_keras.distribution.launcher import Cluster

BUCKET_BYTES = 25 * 2**20  # as DistributedDataParallel's


class TorchDevices(Devices):
    """See `Devices`. Launched by torchrun or Slurm, each process trains on the device of its number."""

    def __init__(self, devices: int | None, parallel: str, cluster: Cluster | None):
        if parallel != "data":
            raise DistributionError(
                "Keras 3.15 splits weights over devices on JAX alone: PyTorch's `fully_shard` leaves "
                f"Keras's variables whole. Received: parallel={parallel!r} on torch. Take --backend jax, "
                "or --parallel data."
            )
        if cluster is None:
            raise DistributionError(
                "PyTorch needs a process for each device. Received: one process and "
                f"devices={devices}. Start it with torchrun --nproc-per-node {devices or 'N'} ..."
            )
        super().__init__(cluster.processes, parallel, cluster.process, cluster.processes)
        here = cluster.local_processes or devices
        if devices not in (None, here):
            raise DistributionError(
                f"PyTorch needs a process for each device. Received: devices={devices}, {here} processes "
                f"of this machine by {cluster.launcher}. Leave --devices out under a launcher."
            )
        cards = torch.cuda.device_count()
        if cards and cluster.local_process >= cards > 1:
            raise DistributionError(
                f"More processes than GPUs. Received: process {cluster.local_process} of this machine, "
                f"which has {cards} GPUs, numbered from 0."
            )
        if cards:  # of a single one, each process may have been given its own
            torch.cuda.set_device(cluster.local_process % cards)
        address, port = cluster.addresses[0].rsplit(":", 1)
        address = address.strip("[]")  # of an IPv6 address
        for name, value in (
            ("MASTER_ADDR", address),
            ("MASTER_PORT", port),
            ("RANK", cluster.process),
            ("WORLD_SIZE", cluster.processes),
            ("LOCAL_RANK", cluster.local_process),
        ):
            os.environ.setdefault(name, str(value))
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def join(self, model):
        super().join(model)
        optimizer = getattr(model, "optimizer", None)
        for variable in (*model.variables, *(optimizer.variables if optimizer else ())):
            dist.broadcast(variable.value.data, src=0)
        Buckets([variable.value for variable in model.trainable_variables])

    def sum(self, values):
        total = torch.tensor(np.asarray(values, "float32"), device=self.device)
        dist.all_reduce(total)
        return total.cpu().numpy()

    def mean(self, logs):
        # Each process has seen as many clips, so that the mean of their means is the mean of all.
        return dict(zip(logs, (self.sum(list(logs.values())) / self.count).tolist(), strict=True))


class Buckets:
    """Averages the gradients of parameters over the processes, in buckets, during the backward pass."""

    def __init__(self, parameters: list[torch.nn.Parameter]):
        self.ready, self.bytes, self.sent, self.open = [], 0, [], False
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self.add)

    def add(self, parameter):
        if not self.open:
            self.open = True
            Variable._execution_engine.queue_callback(self.finish)
        self.ready.append(parameter.grad)
        self.bytes += parameter.grad.nbytes
        if self.bytes >= BUCKET_BYTES:
            self.send()

    def send(self):
        flat = _flatten_dense_tensors(self.ready)
        flat /= dist.get_world_size()
        self.sent.append((self.ready, flat, dist.all_reduce(flat, async_op=True)))
        self.ready, self.bytes = [], 0

    def finish(self):
        if self.ready:
            self.send()
        for gradients, flat, work in self.sent:
            work.wait()
            for gradient, mean in zip(
                gradients, _unflatten_dense_tensors(flat, gradients), strict=True
            ):
                gradient.copy_(mean)
        self.sent, self.open = [], False
