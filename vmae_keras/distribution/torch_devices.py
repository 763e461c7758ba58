"""PyTorch: one process per device, with gradients averaged during the backward pass.

Keras 3.15 has no distribution for PyTorch. `DistributedDataParallel(model)` would average nothing in `fit`,
which calls the model and not the wrapper. So this module does the same with PyTorch's hooks: gradients are
reduced in buckets as soon as they are ready, and the backward pass ends when all buckets are reduced.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from vmae_keras.backend import internals
from vmae_keras.distribution.devices import Devices, DistributionError
from vmae_keras.distribution.launcher import Cluster

BUCKET_BYTES = 25 * 2**20  # as in DistributedDataParallel


class TorchDevices(Devices):
    """PyTorch's `Devices`. torchrun or Slurm starts one process per device, chosen by its local rank."""

    def __init__(self, devices: int | None, parallel: str, cluster: Cluster | None) -> None:
        if parallel != "data":
            raise DistributionError(
                "Keras 3.15 splits weights over devices only on JAX: PyTorch's `fully_shard` leaves "
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
        if cards:  # if a process sees a single GPU, it may be its own
            torch.cuda.set_device(cluster.local_process % cards)
        if not dist.is_initialized():
            # torchrun's own variables also say whether torchrun itself listens on the port.
            torchrun = cluster.launcher == "torchrun"
            dist.init_process_group(
                "nccl" if torch.cuda.is_available() else "gloo",
                init_method="env://" if torchrun else f"tcp://{cluster.addresses[0]}",
                rank=cluster.process,
                world_size=cluster.processes,
            )
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def join(self, model: Any) -> None:
        super().join(model)
        optimizer = getattr(model, "optimizer", None)
        for variable in (*model.variables, *(optimizer.variables if optimizer else ())):
            dist.broadcast(variable.value.data, src=0)
        Buckets([variable.value for variable in model.trainable_variables])

    def sum(self, values: Any) -> np.ndarray:
        total = torch.tensor(np.asarray(values, "float32"), device=self.device)
        dist.all_reduce(total)
        return total.cpu().numpy()

    def mean(self, logs: dict[str, float]) -> dict[str, float]:
        # All processes have seen equally many clips, so the mean of their means is the mean over all clips.
        return dict(zip(logs, (self.sum(list(logs.values())) / self.count).tolist(), strict=True))


class Buckets:
    """Hooks that average the parameters' gradients over processes, in buckets, in the backward pass."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.ready: list[torch.Tensor] = []
        self.sent: list[Any] = []
        self.bytes, self.open = 0, False
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self.add)

    def add(self, parameter: torch.Tensor) -> None:
        """Add a parameter's gradient to the open bucket, and send the bucket if it is full."""
        if not self.open:
            self.open = True
            internals.call_after_backward(self.finish)
        self.ready.append(parameter.grad)
        self.bytes += parameter.grad.nbytes
        if self.bytes >= BUCKET_BYTES:
            self.send()

    def send(self) -> None:
        """Start to average the gradients of the open bucket."""
        flat = torch.cat([gradient.reshape(-1) for gradient in self.ready])
        flat /= dist.get_world_size()
        self.sent.append((self.ready, flat, dist.all_reduce(flat, async_op=True)))
        self.ready, self.bytes = [], 0

    def finish(self) -> None:
        """Wait for all buckets, and store the averaged gradients."""
        if self.ready:
            self.send()
        for gradients, flat, work in self.sent:
            work.wait()
            means = flat.split([gradient.numel() for gradient in gradients])
            for gradient, mean in zip(gradients, means, strict=True):
                gradient.copy_(mean.view_as(gradient))
        self.sent, self.open = [], False
