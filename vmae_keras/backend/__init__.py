"""All that depends on the backend: choosing it, naming its device, its fastest attention."""

import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
import types

from vmae_keras.data.random_streams import keras_seed
from vmae_keras.process import interrupts

BACKENDS = ("jax", "tensorflow", "torch")
PARALLEL = ("data", "fsdp", "tensor")  # ways to divide training over devices
INFERENCE_BACKENDS = ("numpy", "openvino")  # Keras computes no gradients with them


class BackendError(ValueError):
    """The backend asked for is unknown, not installed, or no longer to be chosen."""


def installed(names: tuple[str, ...] = BACKENDS) -> list[str]:
    """Those of the backends that can be imported here, without importing them."""
    return [name for name in names if importlib.util.find_spec(name) is not None]


def select(name: str | None = None) -> str:
    """Makes Keras use a backend; to be called before Keras is imported. Returns its name.

    Args:
        name: "jax", "tensorflow" or "torch"; None takes $KERAS_BACKEND, else the first one installed.

    Raises:
        BackendError: unknown or not installed, or Keras already runs on another one.
    """
    name = name or os.environ.get("KERAS_BACKEND") or next(iter(installed()), None)
    if name is None:
        raise BackendError(
            "Keras needs a backend and none is installed. Install one: "
            "pip install 'vmae-keras[jax]' (or [tensorflow], [torch])."
        )
    if name not in BACKENDS:
        reason = ", which computes no gradients" if name in INFERENCE_BACKENDS else ""
        raise BackendError(
            f"The backend must be one of {', '.join(BACKENDS)}. Received: {name!r}{reason}."
        )
    if name not in installed():
        raise BackendError(
            f"The backend {name!r} is not installed; installed: {', '.join(installed()) or 'none'}. "
            f"Install it: pip install 'vmae-keras[{name}]'."
        )
    if "keras" in sys.modules:
        running = sys.modules["keras"].backend.backend()
        if running != name:
            raise BackendError(
                f"Keras already runs on {running!r} in this process and cannot change to {name!r}. "
                "Set KERAS_BACKEND before the first import of keras."
            )
    os.environ["KERAS_BACKEND"] = name
    return name


def import_keras():
    """Imports Keras for a command, without TensorFlow's start-up remarks."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_remarks():
        import keras  # noqa: F401


def set_seed(seed: int):
    """Seed everything that Keras draws, without importing TensorFlow for it on another backend.

    Keras seeds TensorFlow wherever it is installed, for users of `tf.data`; its import takes seconds.
    """
    import keras

    module = sys.modules.get("keras.src.utils.rng_utils")  # absent in a Keras of another shape
    tensorflow = getattr(module, "tf", None)
    if tensorflow and keras.backend.backend() != "tensorflow" and "tensorflow" not in sys.modules:
        module.tf = types.SimpleNamespace(available=False)
    try:
        with without_remarks(), interrupts.deferred():
            keras.utils.set_random_seed(keras_seed(seed))
    finally:
        if tensorflow:
            module.tf = tensorflow


@contextlib.contextmanager
def hidden(package: str):
    """Let imports in this block not find a package that they would import for nothing."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]


@contextlib.contextmanager
def without_remarks():
    """Holds back what is written to standard error, unless the block fails.

    TensorFlow's remarks would bury a command's first lines, on any backend where it is installed too.
    Some of them come before TensorFlow looks at its log level, hence the detour.
    """
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as remarks:
        os.dup2(remarks.fileno(), 2)
        try:
            yield
        except BaseException:
            remarks.seek(0)
            os.write(standard_error, remarks.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


def fetches_inside_steps() -> bool:
    """Return whether `fit` takes a batch within its step, from a thread that reads ahead."""
    import keras

    return keras.backend.backend() == "tensorflow"


def device() -> str:
    """What the running backend computes on, for people: "cpu", "NVIDIA H100", ..."""
    import keras

    name = keras.backend.backend()
    if name in INFERENCE_BACKENDS:
        return "cpu"
    if name == "jax":
        import jax

        return jax.devices()[0].device_kind
    if name == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
        return "mps" if torch.backends.mps.is_available() else "cpu"
    import tensorflow as tf

    cards = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(cards[0]) if cards else {}
    return details.get("device_name", "gpu" if cards else "cpu")


def version() -> str:
    """Of the running backend's package."""
    import keras

    return importlib.import_module(keras.backend.backend()).__version__.split("-")[0]


def environment(name: str) -> dict[str, str]:
    """Variables for a process that computes with a backend, beside others and to be compared with them.

    On a GPU float32 means float32, not TF32, and no process takes the whole memory.
    """
    return {
        **os.environ,
        "KERAS_BACKEND": name,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "NVIDIA_TF32_OVERRIDE": "0",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }


def predict(model, batch):
    """A batch's predictions as a float32 NumPy array, computed in the model's own precision.

    Keras's `predict` with OpenVINO computes float32 models in bfloat16 where the processor can, and
    returns the bits of bfloat16 as float16. An exported model does neither.
    """
    import keras
    import numpy as np

    if keras.backend.backend() != "openvino":
        return np.asarray(model.predict_on_batch(batch)).astype(np.float32)
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


def attention(q, k, v, scale: float):
    """softmax(scale * q k^T) v for (B, N, heads, d) -> (B, N, heads, d). Clause BLOCK-4.

    `keras.ops.dot_product_attention` where it reaches a fused kernel. TensorFlow has none, and JAX has
    none on CPUs; there, matrix products with the heads in front are up to twice as fast.
    """
    from keras import ops

    if not _materialises_attention():
        return ops.dot_product_attention(q, k, v, scale=scale)
    q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q * scale, k, v))
    logits = ops.cast(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))), "float32")
    x = ops.matmul(ops.cast(ops.softmax(logits, axis=-1), v.dtype), v)
    return ops.transpose(x, (0, 2, 1, 3))


def take_rows(rows, ids):
    """(B, N, P), int32 (B, K) -> (B, K, P): each clip's rows by id, whole rows at a time.

    JAX gathers whole rows along an axis, and keeps a batch that is spread over devices where it is. The
    others would gather each number; there, one gather over the flattened batch.
    """
    import keras
    from keras import ops

    if keras.backend.backend() == "jax":
        return ops.take_along_axis(rows, ids[:, :, None], axis=1)
    count, size = rows.shape[1:]
    first = ops.expand_dims(ops.arange(ops.shape(ids)[0], dtype="int32") * count, 1)
    return ops.take(ops.reshape(rows, (-1, size)), ids + first, axis=0)


def _replicas():
    """(this one's number, how many there are) of the replicas that each compute a part of a batch.

    JAX has none: there, devices compute the one whole batch together.
    """
    import keras

    name = keras.backend.backend()
    if name == "torch":
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
    if name == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            return context.replica_id_in_sync_group, context.num_replicas_in_sync
    return 0, 1


def relative_to_replicas(value):
    """A number of this replica's part of the batch, divided by the mean of all replicas' numbers."""
    import keras

    count = _replicas()[1]
    if count == 1:
        return 1.0
    if keras.backend.backend() == "torch":
        import torch.distributed as dist

        total = value.detach().clone()
        dist.all_reduce(total)
    else:
        import tensorflow as tf

        total = tf.distribute.get_replica_context().all_reduce("SUM", value)
    return value * count / total


def of_summed_gradients(clip, gradients: list) -> list:
    """What `clip` makes of gradients, such that their sum over the replicas is clipped, not each by itself.

    Keras on TensorFlow clips before it sums; elsewhere the gradients are those of all replicas already.
    """
    import keras

    count = _replicas()[1]
    if count == 1 or keras.backend.backend() != "tensorflow":
        return clip(gradients)
    import tensorflow as tf

    summed = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
    return [gradient / count for gradient in clip(summed)]


def uniform_of_batch(shape, axis: int, seed):
    """`keras.random.uniform`, with the batch along `axis`: a replica gets its part of the whole's draw.

    So a batch is trained on alike however it is divided. Clause SHARD-3.
    """
    import keras
    from keras import ops

    number, count = _replicas()
    size = shape[axis]
    whole = tuple(each * count if place == axis else each for place, each in enumerate(shape))
    draw = keras.random.uniform(whole, seed=seed)
    if count == 1:
        return draw
    return ops.take(draw, number * size + ops.arange(size), axis=axis)


def to_numpy(variable):
    """The whole value of a variable, wherever replicas or processes hold it or parts; all must call it."""
    import keras

    value = variable.value
    if keras.backend.backend() == "jax":
        from jax.experimental import multihost_utils

        if not (value.is_fully_addressable or value.is_fully_replicated):
            return multihost_utils.process_allgather(value, tiled=True)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        value = tf.convert_to_tensor(value)  # of a replicated variable
    return keras.ops.convert_to_numpy(value)


def _materialises_attention() -> bool:
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return keras.backend.backend() == "tensorflow"
