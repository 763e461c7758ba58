"""Choose Keras's backend, import it quietly, and seed it."""

import contextlib
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
