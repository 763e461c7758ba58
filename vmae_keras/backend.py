"""All that depends on the backend: choosing it, naming its device, its fastest attention."""

import contextlib
import importlib.util
import os
import sys
import tempfile

BACKENDS = ("jax", "tensorflow", "torch")


class BackendError(ValueError):
    """The backend asked for is unknown, not installed, or no longer to be chosen."""


def installed() -> list[str]:
    """The backends that can be imported here, without importing them."""
    return [name for name in BACKENDS if importlib.util.find_spec(name) is not None]


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
        raise BackendError(f"The backend must be one of {', '.join(BACKENDS)}. Received: {name!r}.")
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
    with _without_remarks():
        import keras  # noqa: F401


def set_seed(seed: int):
    """Seeds everything that Keras draws; which imports TensorFlow wherever it is installed."""
    import keras

    with _without_remarks():
        keras.utils.set_random_seed(seed)


@contextlib.contextmanager
def _without_remarks():
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


def device() -> str:
    """What the running backend computes on, for people: "cpu", "NVIDIA H100", ..."""
    import keras

    name = keras.backend.backend()
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


def _materialises_attention() -> bool:
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return keras.backend.backend() == "tensorflow"
