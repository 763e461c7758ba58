"""Which axis of which weight is split over devices, under each way to share a model. Clauses LAYOUT-*."""

import re

# (end of a weight's path, the axes that may be split); every other weight is whole on each device.
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
    """The axis along which a weight lies in equal parts on `parts` devices; None: whole on each.

    The optimizer's variables for a weight lie as the weight does.

    Args:
        path: the weight's, as in "encoder/block_3/mlp/hidden/kernel".
        parallel: "data", "fsdp" or "tensor".

    Source: Megatron-LM section 3 for "tensor", ZeRO stage 3 for "fsdp"; clauses LAYOUT-1 to LAYOUT-3.
    """
    for ending, axes in _RULES[parallel]:
        if re.search(ending, path):
            return next((axis for axis in axes if shape[axis] % parts == 0), None)
    return None
