"""The framework that Keras runs on: one class for each, and what they have in common."""

import importlib
import tempfile
from collections.abc import Callable

import keras
import numpy as np
from keras import ops


class Framework:
    """A backend of Keras. This one computes in plain `keras.ops`, on one device."""

    fetches_inside_steps = False
    """Whether `fit` takes a batch within its step, from a thread that reads ahead."""

    def version(self) -> str:
        """Return the version of the framework's package."""
        return importlib.import_module(keras.backend.backend()).__version__.split("-")[0]

    def device(self) -> str:
        """Return the name of the device that computes: "cpu", "NVIDIA H100", ..."""
        return "cpu"

    def predict(self, model, batch) -> np.ndarray:
        """Return a batch's predictions in float32, computed in the model's own precision."""
        return np.asarray(model.predict_on_batch(batch)).astype(np.float32)

    def to_numpy(self, variable) -> np.ndarray:
        """Return the whole value of a variable that replicas or processes may hold in parts.

        All processes must call it.
        """
        return ops.convert_to_numpy(variable.value)

    def has_fused_attention(self) -> bool:
        """Return whether `keras.ops.dot_product_attention` reaches a fused kernel."""
        return True

    def attention(self, q, k, v, scale: float):
        """softmax(scale * q k^T) v for (B, N, heads, d) -> (B, N, heads, d). Clause BLOCK-4.

        Without a fused kernel, matrix products with the heads in front are up to twice as fast.
        """
        if self.has_fused_attention():
            return ops.dot_product_attention(q, k, v, scale=scale)
        q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q * scale, k, v))
        logits = ops.cast(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))), "float32")
        x = ops.matmul(ops.cast(ops.softmax(logits, axis=-1), v.dtype), v)
        return ops.transpose(x, (0, 2, 1, 3))

    def take_rows(self, rows, ids):
        """(B, N, P), int32 (B, K) -> (B, K, P): each clip's rows by id.

        One gather of whole rows over the flattened batch: along an axis, each number would be gathered.
        """
        count, size = rows.shape[1:]
        first = ops.expand_dims(ops.arange(ops.shape(ids)[0], dtype="int32") * count, 1)
        return ops.take(ops.reshape(rows, (-1, size)), ids + first, axis=0)

    def replicas(self) -> tuple[int, int]:
        """Return this replica's number, and how many of them each compute a part of a batch."""
        return 0, 1

    def sum_over_replicas(self, value):
        """Return the sum of a value of all replicas."""
        return value

    def relative_to_replicas(self, value):
        """Return a value of this replica's part of the batch, divided by the mean of all replicas'."""
        count = self.replicas()[1]
        return 1.0 if count == 1 else value * count / self.sum_over_replicas(value)

    def clip_summed_gradients(self, clip: Callable[[list], list], gradients: list) -> list:
        """Return gradients such that their sum over the replicas is clipped, not each by itself."""
        return clip(gradients)  # of all replicas already

    def uniform_of_batch(self, shape, axis: int, seed):
        """Draw as `keras.random.uniform`, with the batch along `axis`.

        A replica gets its part of the whole batch's draw, so that the number of devices does not change
        the result. Clause SHARD-3.
        """
        number, count = self.replicas()
        size = shape[axis]
        whole = tuple(each * count if place == axis else each for place, each in enumerate(shape))
        draw = keras.random.uniform(whole, seed=seed)
        if count == 1:
            return draw
        return ops.take(draw, number * size + ops.arange(size), axis=axis)


class JAX(Framework):
    """JAX has no replicas: devices compute the one whole batch together."""

    def device(self) -> str:
        import jax

        return jax.devices()[0].device_kind

    def has_fused_attention(self) -> bool:
        import jax

        return jax.default_backend() != "cpu"

    def take_rows(self, rows, ids):
        # Whole rows, along the axis; a batch that is spread over devices stays where it is.
        return ops.take_along_axis(rows, ids[:, :, None], axis=1)

    def to_numpy(self, variable) -> np.ndarray:
        from jax.experimental import multihost_utils

        value = variable.value
        if value.is_fully_addressable or value.is_fully_replicated:
            return super().to_numpy(variable)
        return multihost_utils.process_allgather(value, tiled=True)


class TensorFlow(Framework):
    """TensorFlow: replicas of a `tf.distribute` strategy."""

    fetches_inside_steps = True

    def device(self) -> str:
        import tensorflow as tf

        cards = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(cards[0]) if cards else {}
        return details.get("device_name", "gpu" if cards else "cpu")

    def has_fused_attention(self) -> bool:
        return False

    def to_numpy(self, variable) -> np.ndarray:
        import tensorflow as tf

        return ops.convert_to_numpy(
            tf.convert_to_tensor(variable.value)
        )  # of a replicated variable

    def replicas(self) -> tuple[int, int]:
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return 0, 1
        return context.replica_id_in_sync_group, context.num_replicas_in_sync

    def sum_over_replicas(self, value):
        import tensorflow as tf

        return tf.distribute.get_replica_context().all_reduce("SUM", value)

    def clip_summed_gradients(self, clip: Callable[[list], list], gradients: list) -> list:
        count = self.replicas()[1]
        if count == 1:
            return clip(gradients)
        # Keras clips before it sums.
        summed = self.sum_over_replicas(gradients)
        return [gradient / count for gradient in clip(summed)]


class PyTorch(Framework):
    """PyTorch: a replica is a process of a `torch.distributed` group."""

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

    def sum_over_replicas(self, value):
        import torch.distributed as dist

        total = value.detach().clone()
        dist.all_reduce(total)
        return total


class OpenVINO(Framework):
    """OpenVINO, for inference."""

    def predict(self, model, batch) -> np.ndarray:
        """See `Framework.predict`; by an exported model.

        Keras's `predict` computes float32 models in bfloat16 where the processor can, and returns the bits
        of bfloat16 as float16.
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
"""The framework of this process: Keras chooses its backend when it is imported."""
