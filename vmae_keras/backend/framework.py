"""Framework-specific operations: one class for each framework that Keras runs on, and their base class."""

import importlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from vmae_keras.backend import AnyTensor


class Framework:
    """Base class of a Keras backend. It computes with plain `keras.ops`, on one device."""

    fetches_inside_steps = False
    """True if `fit` fetches a batch within its step, from a thread that prefetches."""

    def version(self) -> str:
        """Return the version of the framework's package."""
        return importlib.import_module(keras.backend.backend()).__version__.split("-")[0]

    def device(self) -> str:
        """Return the name of the device in use: "cpu", "NVIDIA H100", ..."""
        return "cpu"

    def predict(self, model: keras.Model, batch: Any) -> np.ndarray:
        """Return a batch's predictions in float32, computed in the model's own precision."""
        return np.asarray(model.predict_on_batch(batch)).astype(np.float32)

    def to_numpy(self, variable: keras.Variable) -> np.ndarray:
        """Return the whole value of a variable, which may be replicated or sharded over processes.

        All processes must call it.
        """
        return ops.convert_to_numpy(variable.value)

    def has_fused_attention(self) -> bool:
        """Return whether `keras.ops.dot_product_attention` reaches a fused kernel."""
        return True

    def attention(self, q: AnyTensor, k: AnyTensor, v: AnyTensor, scale: float) -> AnyTensor:
        """Compute softmax(scale * q k^T) v: (B, N, heads, d) -> (B, N, heads, d). Clause BLOCK-4.

        Without a fused kernel, matrix products with the heads' axis first are up to twice as fast.
        """
        if self.has_fused_attention():
            return ops.dot_product_attention(q, k, v, scale=scale)
        q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q * scale, k, v))
        logits = ops.cast(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))), "float32")
        x = ops.matmul(ops.cast(ops.softmax(logits, axis=-1), v.dtype), v)
        return ops.transpose(x, (0, 2, 1, 3))

    def take_rows(self, rows: AnyTensor, ids: AnyTensor) -> AnyTensor:
        """Select the rows of each clip by id: (B, N, P), int32 (B, K) -> (B, K, P).

        The flattened batch allows a gather of whole rows. Along an axis, single numbers would be gathered.
        """
        count, size = rows.shape[1:]
        first = ops.expand_dims(ops.arange(ops.shape(ids)[0], dtype="int32") * count, 1)
        return ops.take(ops.reshape(rows, (-1, size)), ids + first, axis=0)

    def replicas(self) -> tuple[int, int]:
        """Return this replica's index and the number of replicas that share a batch."""
        return 0, 1

    def sum_over_replicas(self, value: AnyTensor) -> AnyTensor:
        """Return the sum of a value over all replicas."""
        return value

    def relative_to_replicas(self, value: AnyTensor) -> AnyTensor:
        """Return a value of this replica divided by its mean over all replicas."""
        count = self.replicas()[1]
        return 1.0 if count == 1 else value * count / self.sum_over_replicas(value)

    def clip_summed_gradients(self, clip: Callable[[list], list], gradients: list) -> list:
        """Clip the sum of the gradients over all replicas, and return this replica's share of it."""
        return clip(gradients)  # already summed

    def uniform_of_batch(
        self, shape: tuple[int, ...], axis: int, seed: keras.random.SeedGenerator
    ) -> AnyTensor:
        """Draw as `keras.random.uniform` does, with the batch along `axis`.

        A replica takes its part of the draw for the global batch, so that the number of devices does not
        change the result. Clause SHARD-3.
        """
        number, count = self.replicas()
        size = shape[axis]
        whole = tuple(each * count if place == axis else each for place, each in enumerate(shape))
        draw = keras.random.uniform(whole, seed=seed)
        if count == 1:
            return draw
        return ops.take(draw, number * size + ops.arange(size), axis=axis)


class JAX(Framework):
    """JAX. It has no replicas: all devices compute the global batch together."""

    def device(self) -> str:
        import jax

        return jax.devices()[0].device_kind

    def has_fused_attention(self) -> bool:
        import jax

        return jax.default_backend() != "cpu"

    def take_rows(self, rows: AnyTensor, ids: AnyTensor) -> AnyTensor:
        # JAX gathers whole rows along an axis too, and a batch that is sharded over devices stays in place.
        return ops.take_along_axis(rows, ids[:, :, None], axis=1)

    def to_numpy(self, variable: keras.Variable) -> np.ndarray:
        from jax.experimental import multihost_utils

        value = variable.value
        if value.is_fully_addressable or value.is_fully_replicated:
            return super().to_numpy(variable)
        return multihost_utils.process_allgather(value, tiled=True)


class TensorFlow(Framework):
    """TensorFlow. Replicas are those of a `tf.distribute` strategy."""

    fetches_inside_steps = True

    def device(self) -> str:
        import tensorflow as tf

        cards = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(cards[0]) if cards else {}
        return details.get("device_name", "gpu" if cards else "cpu")

    def has_fused_attention(self) -> bool:
        return False

    def to_numpy(self, variable: keras.Variable) -> np.ndarray:
        import tensorflow as tf

        # `convert_to_tensor` reads a replicated variable.
        return ops.convert_to_numpy(tf.convert_to_tensor(variable.value))

    def replicas(self) -> tuple[int, int]:
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return 0, 1
        return context.replica_id_in_sync_group, context.num_replicas_in_sync

    def sum_over_replicas(self, value: AnyTensor) -> AnyTensor:
        import tensorflow as tf

        return tf.distribute.get_replica_context().all_reduce("SUM", value)

    def clip_summed_gradients(self, clip: Callable[[list], list], gradients: list) -> list:
        count = self.replicas()[1]
        if count == 1:
            return clip(gradients)
        # Keras would clip before summing.
        summed = self.sum_over_replicas(gradients)
        return [gradient / count for gradient in clip(summed)]


class PyTorch(Framework):
    """PyTorch. A replica is a process of a `torch.distributed` group."""

    def device(self) -> str:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
        return "mps" if torch.backends.mps.is_available() else "cpu"

    def replicas(self) -> tuple[int, int]:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
        return 0, 1

    def sum_over_replicas(self, value: AnyTensor) -> AnyTensor:
        import torch.distributed as dist

        total = value.detach().clone()
        dist.all_reduce(total)
        return total


class OpenVINO(Framework):
    """OpenVINO, only for inference."""

    def predict(self, model: keras.Model, batch: Any) -> np.ndarray:
        """Predict with an exported model; see `Framework.predict`.

        Keras's `predict` computes float32 models in bfloat16 if the processor supports it, and returns the
        bits of bfloat16 as float16.
        """
        import openvino
        from openvino.preprocess import PrePostProcessor

        signature = {
            name: keras.InputSpec(dtype=str(value.dtype), shape=value.shape)
            for name, value in batch.items()
        }
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/model.xml"
            model.export(path, format="openvino", input_signature=[signature], verbose=False)
            exported = PrePostProcessor(openvino.Core().read_model(path))
            exported.output().tensor().set_element_type(openvino.Type.f32)
            compiled = openvino.Core().compile_model(
                exported.build(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
        return compiled({port: batch[port.node.friendly_name] for port in compiled.inputs})[0]


FRAMEWORKS = {"jax": JAX, "tensorflow": TensorFlow, "torch": PyTorch, "openvino": OpenVINO}
running = FRAMEWORKS.get(keras.backend.backend(), Framework)()
"""Framework of this process. Keras selects its backend when it is imported."""
