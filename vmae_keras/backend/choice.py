"""Selection, quiet import and seeding of Keras's backend.

All of this is state of the whole process, because no argument would do: frameworks read environment
variables once, their C++ code writes to file descriptor 2, and Keras draws seeds from a global generator.
"""

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Literal, get_args

from vmae_keras.data.random_streams import keras_seed
from vmae_keras.process import interrupts

Backend = Literal["jax", "tensorflow", "torch"]
BACKENDS = get_args(Backend)
Parallel = Literal["data", "fsdp", "tensor"]  # ways to divide training over devices
PARALLEL = get_args(Parallel)
INFERENCE_BACKENDS = ("numpy", "openvino")  # without gradients


class BackendError(ValueError):
    """The requested backend is unknown, not installed, or can no longer be selected."""


def installed(names: tuple[str, ...] = BACKENDS) -> list[str]:
    """Return the backends that are installed, without importing them."""
    return [name for name in names if importlib.util.find_spec(name) is not None]


def select(name: str | None = None) -> str:
    """Select Keras's backend and return its name. Call it before Keras is imported.

    Args:
        name: "jax", "tensorflow" or "torch"; None takes $KERAS_BACKEND, else the first one installed.

    Raises:
        BackendError: The backend is unknown or not installed, or Keras already runs on another one.
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


def import_keras() -> None:
    """Import Keras for a command, without TensorFlow's start-up messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_remarks():
        import keras  # noqa: F401


def set_seed(seed: int) -> None:
    """Seed Keras's random generators, without importing TensorFlow on another backend.

    They belong to the whole process: layers and initializers without a seed of their own draw from them.
    """
    from vmae_keras.backend.internals import set_random_seed

    with without_remarks(), interrupts.deferred():
        set_random_seed(keras_seed(seed))


@contextlib.contextmanager
def hidden(package: str) -> Iterator[None]:
    """Hide a package from imports in this block that do not need it."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # documented by Python
    try:
        yield
    finally:
        del sys.modules[package]


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Suppress standard error in this block, unless it raises.

    If TensorFlow is installed, it prints messages on any backend, which would bury a command's first lines.
    Some are printed before it reads its log level, so the file descriptor is redirected.
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


def show_jax_one_device(number: int) -> None:
    """Let JAX see one device of this machine only, unless $JAX_LOCAL_DEVICE_IDS is set already.

    `keras.distribution.initialize` takes no numbers of devices.
    """
    os.environ.setdefault("JAX_LOCAL_DEVICE_IDS", str(number))


def set_environment(name: str) -> None:
    """Set the variables of `environment` in this process. Call it before Keras is imported."""
    os.environ.update(environment(name))


def environment(name: str) -> dict[str, str]:
    """Return environment variables for a worker process on a backend, so that results are comparable.

    On a GPU, float32 is not replaced by TF32, and no process reserves the whole memory.
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
