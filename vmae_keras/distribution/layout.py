"""Layout of weights: which axes are split over devices, by kind of parallelism. Clauses LAYOUT-*."""

import re

# (End of a weight's path, axes that may be split). Every other weight is whole on each device.
_RULES = {
    "data": (),
    "fsdp": ((r"(kernel(_[ab])?|positions)$", (0, 1)),),
    "tensor": (
        (r"(attention/qkv|mlp/hidden)/kernel$", (1,)),
        (r"mlp/hidden/bias$", (0,)),
        (r"(attention/projection|mlp/output)/kernel$", (0,)),
    ),
}


def split_axis(path: str, shape: tuple[int, ...], parallel: str, parts: int) -> int | None:
    """Return the axis along which a weight is split evenly over devices; None if it is whole on each.

    The optimizer's variables for a weight have the layout of the weight.

    Args:
        path: Path of the weight, as in "encoder/block_3/mlp/hidden/kernel".
        shape: Shape of the whole weight.
        parallel: "data", "fsdp" or "tensor".
        parts: Number of devices to split over.

    Source: Megatron-LM section 3 for "tensor", ZeRO stage 3 for "fsdp"; clauses LAYOUT-1 to LAYOUT-3.
    """
    for ending, axes in _RULES[parallel]:
        if re.search(ending, path):
            return next((axis for axis in axes if shape[axis] % parts == 0), None)
    return None
