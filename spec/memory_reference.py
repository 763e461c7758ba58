"""The oracle for layouts over devices and memory per device: SPEC.md's LAYOUT and MEMORY clauses.

Memory is counted array by array, from each array's shape and bytes per number.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

from spec.weight_table import expand

COLUMNS = ("attention/qkv/kernel", "mlp/hidden/kernel")
ROWS = ("attention/projection/kernel", "mlp/output/kernel", "mlp/hidden/bias")
GATHERED = ("kernel", "kernel_a", "kernel_b", "positions")


def part(path: str, shape: tuple[int, ...], parallel: str, devices: int) -> tuple[int, ...]:
    """Return the shape of one device's part of a weight. LAYOUT-1, LAYOUT-2."""
    allowed: list[int] = []
    if parallel == "fsdp" and path.endswith(GATHERED):
        allowed = [0, 1]
    elif parallel == "tensor" and path.endswith(COLUMNS):
        allowed = [1]
    elif parallel == "tensor" and path.endswith(ROWS):
        allowed = [0]
    for axis in allowed:
        if shape[axis] % devices == 0:
            return (*shape[:axis], shape[axis] // devices, *shape[axis + 1 :])
    return shape


@dataclasses.dataclass(frozen=True)
class Array:
    """One array on a device, with its shape and bytes per number."""

    name: str
    shape: tuple[int, ...]
    width: int


@dataclasses.dataclass(frozen=True)
class Block:
    """The arrays of one block on a device, for the backward pass of one clip.

    Args:
        input: Input tokens, the only array kept with remat.
        kept: Arrays that the derivatives of its operations read.
        matrices: Further arrays kept where attention is not fused into one kernel.
        copies: Kernels that are gathered or cast before they are multiplied.
    """

    input: Array
    kept: tuple[Array, ...]
    matrices: tuple[Array, ...]
    copies: tuple[Array, ...]


# The forward arrays that the derivative of each operation of a block reads. BLOCK-1 to BLOCK-5.
READ = {
    "norm1": {"input"},
    "qkv": {"norm1"},
    "attention": {"queries", "keys", "values", "attended"},
    "projection": {"attended"},
    "norm2": {"middle"},
    "hidden": {"norm2"},
    "gelu": {"hidden"},
    "output": {"activated"},
}
KEPT = sorted(set().union(*READ.values()))  # an array with two readers is kept once


def size(arrays: Iterable[Array]) -> int:
    """Return the total size of some arrays in bytes."""
    return sum(array.width * math.prod(array.shape) for array in arrays)


@dataclasses.dataclass(frozen=True)
class Device:
    """One of the `devices` that share a copy of a pretraining model's weights."""

    config: Any
    visible: int
    decoded: int
    parallel: str = "data"
    devices: int = 1
    mixed: bool = False

    @property
    def width(self) -> int:
        """Bytes per number in the compute type: a."""
        return 2 if self.mixed else 4

    def part(self, path: str) -> tuple[int, ...]:
        """Return the shape of the device's part of a weight."""
        return part(path, self.whole[path], self.parallel, self.devices)

    @functools.cached_property
    def whole(self) -> dict[str, tuple[int, ...]]:
        """Full shape of each weight by path."""
        return {path: weight.shape for path, weight in expand(self.config, "pretraining").items()}

    def weights(self) -> list[Array]:
        """List the device's parts of the weights. MEMORY-1."""
        return [Array(path, self.part(path), 4) for path in self.whole]

    def copies(self, paths: Iterable[str]) -> tuple[Array, ...]:
        """List the kernels among some weights that are gathered or cast to be multiplied. MEMORY-6."""
        found = []
        for path in paths:
            shape = self.part(path) if self.parallel == "tensor" else self.whole[path]
            if path.endswith("kernel") and (self.mixed or shape != self.part(path)):
                found.append(Array(path, shape, self.width))
        return tuple(found)

    def outside(self) -> tuple[Array, ...]:
        """List the copies of kernels outside the blocks."""
        return self.copies(path for path in self.whole if "/block_" not in path)

    def blocks(self) -> list[Block]:
        """List the blocks, the encoder's first. MEMORY-4 to MEMORY-6."""
        c, seen = self.config, self.visible + self.config.class_token
        return [
            *self._stack("encoder", seen, c.depth, c.dim, c.heads),
            *self._stack(
                "decoder", seen + self.decoded, c.decoder_depth, c.decoder_dim, c.decoder_heads
            ),
        ]

    def _stack(self, name: str, tokens: int, depth: int, dim: int, heads: int) -> Iterable[Block]:
        a = self.width
        groups = 1  # parts into which the heads are divided
        if self.parallel == "tensor":
            groups = max(n for n in range(1, heads + 1) if heads % n == self.devices % n == 0)
        tensor = self.parallel == "tensor"
        hidden = (self.part if tensor else self.whole.get)(f"{name}/block_0/mlp/hidden/kernel")[1]
        shapes = dict.fromkeys(("input", "norm1", "middle", "norm2"), (tokens, dim))
        shapes |= dict.fromkeys(
            ("queries", "keys", "values", "attended"), (tokens, heads // groups, dim // heads)
        )
        shapes |= dict.fromkeys(("hidden", "activated"), (tokens, hidden))
        widths = {"input": 4, "middle": 4}  # a norm computes in float32
        shares = (heads // groups, tokens, tokens)
        for index in range(depth):
            yield Block(
                input=Array("input", shapes["input"], a),
                kept=tuple(Array(each, shapes[each], widths.get(each, a)) for each in KEPT),
                matrices=(Array("shares", shares, 4), *[Array("cast", shares, 2)] * self.mixed),
                copies=self.copies(
                    path for path in self.whole if path.startswith(f"{name}/block_{index}/")
                ),
            )


def device_memory(
    config: Any,
    *,
    parallel: str,
    devices: int,
    clips: int,
    visible: int,
    decoded: int,
    decoder_mask: bool,
    mixed: bool = False,
    remat: bool = False,
    average: bool = False,
    accumulates: bool = False,
) -> dict[str, int]:
    """Return the bytes on each device during pretraining, by purpose. MEMORY-1 to MEMORY-6.

    `devices` is the number that share one copy of the weights; `clips` is the number per device.
    """
    device = Device(config, visible, decoded, parallel, devices, mixed)
    weights, blocks, outside = device.weights(), device.blocks(), size(device.outside())
    # The optimizer's variables, each with its weight's shape.
    kinds = ["first moment", "second moment", *["average"] * average, *["sum"] * accumulates]
    tubelet = math.prod(config.tubelet) * config.channels
    clip = [
        Array("video", (config.frames, config.height, config.width, config.channels), 1),
        Array("visible", (visible,), 4),
        *[Array(name, (decoded,), 4) for name in ("decoded", *["weight"] * decoder_mask)],
    ]
    pixels = [
        Array("pixels", (visible, tubelet), 4),
        *[Array(name, (decoded, tubelet), 4) for name in ("prediction", "target")],
    ]
    kept, matrices, copies = (
        [size(getattr(block, name)) for block in blocks] for name in ("kept", "matrices", "copies")
    )
    if remat:  # the backward pass recomputes one block at a time from its input
        inputs = size(block.input for block in blocks)
        kept, matrices, copies = [inputs + max(kept)], [max(matrices)], [max(copies)]
    return {
        "weights": size(weights),
        "optimizer": size(weight for _ in kinds for weight in weights),
        "gradients": size(weights),
        "batch": clips * size(clip),
        "activations": clips * (sum(kept) + size(pixels)),
        "attention": clips * sum(matrices),
        "copies": outside + sum(copies),
    }
