"""Dry run: compile the training step of a model with JAX for many devices, without allocating anything.

`python -m vmae_keras.training.dry_run SETUP... RESULT...` runs in a process of its own, because JAX must
know how many devices to simulate before it starts. SETUP is the JSON of a `Setup`, RESULT that of a
`Result`.
"""

import collections
import dataclasses
import json
import math
import re
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vmae_keras import backend
from vmae_keras.backend.worker_process import run_worker
from vmae_keras.config import VideoMAEConfig
from vmae_keras.distribution.devices import Devices
from vmae_keras.recipes.pretraining import PretrainingRecipe

if TYPE_CHECKING:
    import jax
    import keras

    from vmae_keras.model import VideoMAE

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "reduce-scatter",
)
_BYTES = {
    "pred": 1,
    "u8": 1,
    "s8": 1,
    "bf16": 2,
    "f16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "f64": 8,
    "s64": 8,
}


class DryRunError(ValueError):
    """The step could not be compiled."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """Pretraining step to compile: model, recipe, devices and way to divide the work over them."""

    config: VideoMAEConfig
    recipe: PretrainingRecipe
    devices: int
    parallel: str
    processes: int = 1

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self)), "utf-8")

    @classmethod
    def load(cls, path: Path) -> "Setup":
        fields = json.loads(path.read_text("utf-8"))
        config, recipe = (
            VideoMAEConfig(**fields.pop("config")),
            PretrainingRecipe(**fields.pop("recipe")),
        )
        return cls(config, recipe, **fields)


@dataclasses.dataclass(frozen=True)
class Collective:
    """Kind of communication in the compiled step: operation, shape per device, dtype and count."""

    kind: str
    shape: tuple[int, ...]
    dtype: str
    count: int

    @property
    def bytes(self) -> int:
        """Bytes that each device receives in all of them."""
        return self.count * math.prod(self.shape) * _BYTES[self.dtype]


@dataclasses.dataclass(frozen=True)
class Result:
    """Memory and communication of one device, as reported by the compiler.

    Args:
        state_bytes, batch_bytes: Size of weights and optimizer, and of the batch, from the shapes of this
            device's shards.
        argument_bytes: Size of all arguments of the step, as counted by XLA: state, batch, a few counters.
        temporary_bytes: Size of XLA's temporary buffers on a CPU. It may differ a lot on other devices.
        collectives: Communication of the compiled step.
        lower_seconds, compile_seconds: Time taken.
        host_bytes: Peak memory of the process, which never held the model.
    """

    state_bytes: int
    batch_bytes: int
    argument_bytes: int
    temporary_bytes: int
    collectives: tuple[Collective, ...]
    lower_seconds: float
    compile_seconds: float
    host_bytes: int

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self)), "utf-8")

    @classmethod
    def load(cls, path: Path) -> "Result":
        fields = json.loads(path.read_text("utf-8"))
        collectives = [
            Collective(**{**each, "shape": tuple(each["shape"])}) for each in fields["collectives"]
        ]
        return cls(**{**fields, "collectives": tuple(collectives)})


def compile_in_worker(setups: list[Setup]) -> list[Result]:
    """Compile each step, one after the other, in one worker process with simulated devices.

    Raises:
        DistributionError: The batch cannot be divided over the devices.
        DryRunError: JAX is not installed, or the process failed.
    """
    if not backend.installed(("jax",)):
        raise DryRunError("A dry run needs JAX. Install it: pip install 'vmae-keras[jax]'.")
    for setup in setups:
        devices = Devices(setup.devices, setup.parallel, processes=setup.processes)
        devices.check(setup.recipe.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        sources = [Path(folder) / f"setup_{index}.json" for index in range(len(setups))]
        results = [Path(folder) / f"result_{index}.json" for index in range(len(setups))]
        for setup, source in zip(setups, sources, strict=True):
            setup.save(source)
        failure = run_worker(
            "vmae_keras.training.dry_run",
            [str(path) for path in (*sources, *results)],
            "jax",
            Path(folder) / "errors.txt",
            lambda line: None,
        )
        if failure:
            raise DryRunError(f"The step was not compiled: {failure}")
        return [Result.load(path) for path in results]


def compile_step(setup: Setup) -> Result:
    """Compile one step in this process, for the first of JAX's devices."""
    import jax

    from vmae_keras.distribution.jax_devices import keras_distribution

    simulated = jax.devices()[: setup.devices]
    distribution = keras_distribution(simulated, setup.parallel, setup.processes)
    model = _abstract(setup, distribution)
    state = tuple(
        [_part(variable, distribution) for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    batch = {
        name: jax.ShapeDtypeStruct(
            shape, dtype, sharding=distribution.get_data_layout(shape).backend_layout
        )
        for name, (shape, dtype) in _batch(setup).items()
    }
    began = time.perf_counter()
    with distribution.scope():
        # Keras's `make_train_function` does the same, but reads the shardings from allocated arrays.
        shardings = tuple([part.sharding for part in parts] for parts in state)
        step = jax.jit(model.train_step, donate_argnums=0, out_shardings=(None, shardings))
        lowered = step.lower(state, (batch,))
    lowering = time.perf_counter() - began
    compiled = lowered.compile()
    needs = compiled.memory_analysis()
    return Result(
        state_bytes=sum(_bytes(part) for part in (*state[0], *state[2])),
        batch_bytes=sum(_bytes(part) for part in batch.values()),
        argument_bytes=needs.argument_size_in_bytes,
        temporary_bytes=needs.temp_size_in_bytes,
        collectives=collectives(compiled.as_text()),
        lower_seconds=lowering,
        compile_seconds=time.perf_counter() - began - lowering,
        host_bytes=_host_bytes(),
    )


def _abstract(setup: Setup, distribution: "keras.distribution.Distribution") -> "VideoMAE":
    """Return a model compiled with its optimizer, whose variables have shapes and layouts but no values."""
    import keras

    from vmae_keras.backend import internals
    from vmae_keras.initializers import leave_zeros
    from vmae_keras.model import VideoMAE
    from vmae_keras.training.optimizer import build_optimizer

    recipe = setup.recipe
    optimizer, _ = build_optimizer(recipe, steps_per_epoch=100)
    with keras.StatelessScope(initialize_variables=False):
        model = VideoMAE(setup.config, remat=recipe.remat, fill=leave_zeros, dtype=recipe.precision)
        model.compile(optimizer)
        for variable in model.variables:  # Keras does this when it allocates a variable
            internals.set_layout(variable, distribution.get_variable_layout(variable))
        model.optimizer.build(model.trainable_variables)
    keras.utils.clear_session()  # forget the list of variables that are still to be allocated
    return model


def _batch(setup: Setup) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return shape and dtype of each array in a batch for `fit`, by name."""
    config, recipe = setup.config, setup.recipe
    clips = recipe.batch_size * recipe.repeats
    ids = recipe.draw_masks(config.grid, np.random.default_rng(0))
    shapes = {name: ((clips, *array.shape), array.dtype) for name, array in ids.items()}
    video = (clips, config.frames, config.height, config.width, config.channels)
    return {"video": (video, np.dtype("uint8")), **shapes}


def _part(
    variable: "keras.Variable", distribution: "keras.distribution.Distribution"
) -> "jax.ShapeDtypeStruct":
    import jax

    layout = distribution.get_variable_layout(variable)
    return jax.ShapeDtypeStruct(variable.shape, variable.dtype, sharding=layout.backend_layout)


def _bytes(part: "jax.ShapeDtypeStruct") -> int:
    """Return the size of an array's shard on one device."""
    return math.prod(part.sharding.shard_shape(part.shape)) * np.dtype(part.dtype).itemsize


def _host_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, `getrusage` includes the parent process's peak
        return int(re.findall(r"VmHWM:\s*(\d+)", status.read_text("utf-8"))[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def collectives(text: str) -> tuple[Collective, ...]:
    """Return the collectives in the text of a compiled program, in no particular order."""
    found: collections.Counter[tuple[str, tuple[int, ...], str]] = collections.Counter()
    operation = rf"= (\(.*?\)|\S+) ({'|'.join(COLLECTIVES)})\("
    for results, kind in re.findall(operation, text):
        for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", results):
            shape = tuple(int(size) for size in sizes.split(",") if size)
            found[kind, shape, dtype] += 1
    return tuple(Collective(*key, count) for key, count in found.items())


def exchanged(found: tuple[Collective, ...]) -> dict[str, tuple[int, int]]:
    """Return, for each kind, the number of arrays and their bytes on each device."""
    counts: collections.Counter[str] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()
    for each in found:
        counts[each.kind] += each.count
        sizes[each.kind] += each.bytes
    return {kind: (counts[kind], sizes[kind]) for kind in sorted(counts)}


def main(paths: list[Path]) -> None:
    """Compile the setups in the first half of the files, and write the results to the second half."""
    import jax

    half = len(paths) // 2
    setups = [Setup.load(path) for path in paths[:half]]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update(
        "jax_enable_compilation_cache", False
    )  # caching the step of ViT-g takes 2 GB more
    jax.config.update("jax_num_cpu_devices", max(setup.devices for setup in setups))
    for setup, path in zip(setups, paths[half:], strict=True):
        compile_step(setup).save(path)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
