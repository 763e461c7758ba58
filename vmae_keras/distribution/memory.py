"""Estimate of the memory that pretraining needs on each device, without Keras or building a model."""

import collections
import dataclasses
import math
import re

import numpy as np

from vmae_keras.config import VideoMAEConfig
from vmae_keras.distribution.devices import Devices, DistributionError
from vmae_keras.distribution.layout import split_axis
from vmae_keras.recipes.pretraining import PretrainingRecipe
from vmae_keras.weights.names import shapes

MOMENTS = 2  # moments that AdamW keeps per weight


@dataclasses.dataclass(frozen=True)
class DeviceMemory:
    """Bytes on each device.

    Weights, optimizer and batch are exact except for a few counters; the rest are estimates.

    Args:
        weights: The device's parts of the weights, float32.
        optimizer: Moments, moving average, accumulated gradients.
        gradients: The device's parts of the gradients, all at once.
        copies: Kernels as they are multiplied, if they are gathered or cast to 16 bits.
        batch: The device's clips and their ids.
        activations: Activations kept for the backward pass.
        attention: Additional bytes if attention is not a single fused kernel.

    Source: clauses MEMORY-1 to MEMORY-6.
    """

    weights: int
    optimizer: int
    gradients: int
    copies: int
    batch: int
    activations: int
    attention: int

    @property
    def state(self) -> int:
        """Return the bytes that persist from step to step: weights and optimizer."""
        return self.weights + self.optimizer

    @property
    def total(self) -> int:
        """Return the bytes of everything, with attention as a single fused kernel."""
        return self.state + self.gradients + self.copies + self.batch + self.activations


def pretraining_memory(
    config: VideoMAEConfig, recipe: PretrainingRecipe, devices: Devices
) -> DeviceMemory:
    """Return the memory that a training step of a recipe needs on each device.

    Args:
        config: Configuration of the model.
        recipe: A `PretrainingRecipe`.
        devices: Number of devices and kind of parallelism. Its processes are tensor parallel's groups.

    Raises:
        DistributionError: The batch does not divide over the devices, or the devices over the groups.
        ValueError: A mask does not fit the configuration.
    """
    devices.check(recipe.batch_size)
    if devices.count % devices.processes:
        raise DistributionError(
            "Each process must have as many devices. Received: "
            f"{devices.count} devices, {devices.processes} processes."
        )
    whole = shapes(config, "pretraining")
    sharing = devices.count // devices.processes if devices.parallel == "tensor" else devices.count
    parts = {path: _part(path, shape, devices.parallel, sharing) for path, shape in whole.items()}
    multiplied, split = (parts, sharing) if devices.parallel == "tensor" else (whole, 1)
    weights = 4 * sum(map(math.prod, parts.values()))
    optimizer = MOMENTS + (recipe.average_decay is not None) + (recipe.accumulate > 1)
    clips = recipe.batch_size * recipe.repeats // devices.shares
    ids = recipe.draw_masks(config.grid, np.random.default_rng(0))
    visible, decoded = len(ids["visible"]), len(ids["decoded"])
    width = 4 if recipe.precision == "float32" else 2
    kept, matrices = _blocks(config, multiplied, split, visible, decoded, width, recipe.remat)
    pixels = 4 * (visible + 2 * decoded) * config.tubelet_size
    video = config.frames * config.height * config.width * config.channels
    return DeviceMemory(
        weights=weights,
        optimizer=optimizer * weights,
        gradients=weights,
        copies=_copies(multiplied, parts, width, recipe.remat),
        batch=clips * (video + sum(array.nbytes for array in ids.values())),
        activations=clips * (kept + pixels),
        attention=clips * matrices,
    )


def _part(path: str, shape: tuple[int, ...], parallel: str, devices: int) -> tuple[int, ...]:
    axis = split_axis(path, shape, parallel, devices)
    return tuple(size // devices if index == axis else size for index, size in enumerate(shape))


def _blocks(
    config: VideoMAEConfig,
    multiplied: dict[str, tuple[int, ...]],
    split: int,
    visible: int,
    decoded: int,
    width: int,
    remat: bool,
) -> tuple[int, int]:
    """Return the kept bytes of all blocks, and the bytes of their attention matrices, for one clip."""
    inputs = kept = matrices = largest = largest_matrix = 0
    seen = visible + config.class_token
    for stack, tokens, dim, depth, heads in (
        ("encoder", seen, config.dim, config.depth, config.heads),
        ("decoder", seen + decoded, config.decoder_dim, config.decoder_depth, config.decoder_heads),
    ):
        hidden = multiplied[f"{stack}/block_0/mlp/hidden/kernel"][1]
        shared = math.gcd(heads, split)  # number of devices over which the heads are split
        numbers = 2 * dim + 4 * dim // shared + 2 * hidden
        block = tokens * (width * numbers + 8 * dim)
        # Softmax computes in float32; mixed precision also keeps a 16-bit copy, to multiply the values.
        matrix = (4 if width == 4 else 6) * (heads // shared) * tokens**2
        inputs += depth * tokens * dim * width
        kept += depth * block
        matrices += depth * matrix
        largest, largest_matrix = max(largest, block), max(largest_matrix, matrix)
    return (inputs + largest, largest_matrix) if remat else (kept, matrices)


def _copies(
    multiplied: dict[str, tuple[int, ...]],
    parts: dict[str, tuple[int, ...]],
    width: int,
    remat: bool,
) -> int:
    sizes: collections.Counter[str | None] = collections.Counter()
    for path, shape in multiplied.items():
        if path.endswith("kernel") and (width < 4 or shape != parts[path]):
            block = re.match(r"\w+/block_\d+", path)
            sizes[block and block[0]] += width * math.prod(shape)
    outside = sizes.pop(None, 0)
    return outside + (max(sizes.values(), default=0) if remat else sizes.total())
