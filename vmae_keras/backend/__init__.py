"""Backend-specific code: selection of the backend, and one class of operations for each framework.

`backend.attention`, `backend.device` and so on are methods of the `framework.Framework` that Keras runs on.
The first use of one imports Keras.
"""

from typing import Any, TypeAlias

from vmae_keras.backend.choice import (
    BACKENDS,
    INFERENCE_BACKENDS,
    PARALLEL,
    Backend,
    BackendError,
    Parallel,
    environment,
    hidden,
    import_keras,
    installed,
    select,
    set_environment,
    set_seed,
    show_jax_one_device,
    without_remarks,
)

# A tensor of the backend in use, or a symbolic one: Keras has no type for both. Docstrings give the shapes.
AnyTensor: TypeAlias = Any

__all__ = [
    "BACKENDS",
    "INFERENCE_BACKENDS",
    "PARALLEL",
    "AnyTensor",
    "Backend",
    "BackendError",
    "Parallel",
    "environment",
    "hidden",
    "import_keras",
    "installed",
    "select",
    "set_environment",
    "set_seed",
    "show_jax_one_device",
    "without_remarks",
]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'vmae_keras.backend' has no attribute {name!r}")
    from vmae_keras.backend.framework import running

    return getattr(running, name)
