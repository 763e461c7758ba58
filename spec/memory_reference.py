"""The oracle's layouts over devices and memory on each of them: SPEC.md's LAYOUT and MEMORY clauses."""

from __future__ import annotations

import math
from typing import Any

from spec.weight_table import expand

COLUMNS = ("attention/qkv/kernel", "mlp/hidden/kernel")
ROWS = ("attention/projection/kernel", "mlp/output/kernel", "mlp/hidden/bias")
GATHERED = ("kernel", "kernel_a", "kernel_b", "positions")


def part(path: str, shape: tuple[int, ...], parallel: str, devices: int) -> tuple[int, ...]:
    """The shape of what one of `devices` holds of a weight that they share. LAYOUT-1, LAYOUT-2."""
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
    """Bytes on each device while it pretrains, by what they are for. MEMORY-1 to MEMORY-6.

    `devices` share one copy of the weights; `clips` are those of one device.
    """
    shapes = {path: weight.shape for path, weight in expand(config, "pretraining").items()}
    parts = {path: part(path, shape, parallel, devices) for path, shape in shapes.items()}
    multiplied = parts if parallel == "tensor" else shapes
    numbers = sum(math.prod(shape) for shape in parts.values())
    a = 2 if mixed else 4
    video = config.frames * config.height * config.width * config.channels
    values = math.prod(config.tubelet) * config.channels
    sharing = devices if parallel == "tensor" else 1
    kept, matrices = _stacks(config, multiplied, sharing, visible, decoded, a, remat)
    return {
        "weights": 4 * numbers,
        "optimizer": 4 * numbers * (2 + average + accumulates),
        "gradients": 4 * numbers,
        "batch": clips * (video + 4 * (visible + decoded) + (4 * decoded if decoder_mask else 0)),
        "activations": clips * (kept + 4 * (visible * values + 2 * decoded * values)),
        "attention": clips * matrices,
        "copies": _copies(multiplied, parts, mixed, remat),
    }


def _stacks(
    config: Any, multiplied: dict, sharing: int, visible: int, decoded: int, a: int, remat: bool
) -> tuple[int, int]:
    """Bytes of one clip that the blocks keep, and of their attention's matrices. MEMORY-4, MEMORY-5."""
    seen = visible + config.class_token
    sizes = {
        "encoder": (seen, config.dim, config.depth, config.heads),
        "decoder": (
            seen + decoded, config.decoder_dim, config.decoder_depth, config.decoder_heads,
        ),
    }  # fmt: skip
    inputs, whole, matrices = [], [], []
    for name, (tokens, width, depth, heads) in sizes.items():
        hidden = multiplied[f"{name}/block_0/mlp/hidden/kernel"][1]
        g = math.gcd(heads, sharing)
        numbers = 2 * width + 4 * width // g + 2 * hidden
        inputs += [tokens * width * a] * depth
        whole += [tokens * (a * numbers + 8 * width)] * depth
        matrices += [4 * (heads // g) * tokens**2] * depth
    if remat:
        return sum(inputs) + max(whole), max(matrices)
    return sum(whole), sum(matrices)


def _copies(multiplied: dict, parts: dict, mixed: bool, remat: bool) -> int:
    """Bytes of the kernels as they are multiplied, where they do not lie so. MEMORY-6."""
    outside, blocks = 0, {}
    for path, shape in multiplied.items():
        if not path.endswith("kernel") or (shape == parts[path] and not mixed):
            continue
        size = math.prod(shape) * (2 if mixed else 4)
        if "/block_" in path:
            block = "/".join(path.split("/")[:2])
            blocks[block] = blocks.get(block, 0) + size
        else:
            outside += size
    sizes = blocks.values()
    return outside + (max(sizes, default=0) if remat else sum(sizes))
