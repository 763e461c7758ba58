"""Cases that reveal the epsilon of a single LayerNorm (BLOCK-2).

Ordinary weights give a variance of about 1, for which float32 cannot distinguish an epsilon of 1e-12 from
1e-6. So one token's residual stream is made tiny: the tubelet embedding or the mask token nearly cancels
its position, and the branches before the LayerNorm output zero. The variance at every other LayerNorm is
about 1.

The token has id 0, where the sinusoid is 0 or 1, so the cancellation is exact in float32.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from spec.conformance.cases import FOUR_TOKENS, Case, ClassifierCase
from spec.position_reference import sinusoid_positions


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Probe(Case):
    """A case of the pretraining model with two visible and two decoded tokens."""

    @functools.cached_property
    def batch(self) -> dict[str, np.ndarray]:
        first, second = np.int32([[0, 2]]), np.int32([[1, 3]])
        if self.name.startswith("decoder/"):
            first, second = second, first
        return {**super().batch, "visible": first, "decoded": second}


def _quieten(path: str, weights: dict[str, np.ndarray]) -> None:
    """Make the residual stream tiny in front of the LayerNorm `path`."""
    part = "decoder" if path.startswith("decoder/") else "encoder"
    start = weights["mask_token" if part == "decoder" else "tubelet_embedding/bias"]
    random = np.random.default_rng(0).standard_normal(start.shape)
    positions = sinusoid_positions(FOUR_TOKENS.num_tokens, start.shape[-1])
    if path == "fc_norm":  # cancels the mean position, which is not exact
        start[...] = 1e-2 * random - positions.mean(0)
    else:
        start[...] = 3e-4 * random - positions[0]
    if part == "encoder":
        weights["tubelet_embedding/kernel"][...] = 0
    for norm, branch in _branches(part, weights):
        if norm == path:
            break
        weights[f"{branch}/kernel"][...] = 0
        weights[f"{branch}/bias"][...] = 0


def _branches(part: str, weights: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Return each LayerNorm of the blocks with the last layer of its branch, in forward order."""
    blocks = sorted({name.split("/")[1] for name in weights if name.startswith(f"{part}/block_")})
    return [
        (f"{part}/{block}/{norm}", f"{part}/{block}/{branch}")
        for block in blocks
        for norm, branch in (("norm1", "attention/projection"), ("norm2", "mlp/output"))
    ]


def _paths(part: str, depth: int) -> list[str]:
    blocks = [f"{part}/block_{i}/norm{index}" for i in range(depth) for index in (1, 2)]
    return [*blocks, f"{part}/norm"]


PRETRAINING = tuple(
    Probe(path, FOUR_TOKENS, {"ratio": 0.5}, adjust=functools.partial(_quieten, path), clips=1)
    for path in (
        *_paths("encoder", FOUR_TOKENS.depth),
        *_paths("decoder", FOUR_TOKENS.decoder_depth),
    )
)
CLASSIFIERS = tuple(
    ClassifierCase(
        path,
        FOUR_TOKENS,
        adjust=functools.partial(_quieten, path),
        clauses=(clause,),
        pooling=pooling,
        clips=1,
    )
    for path, pooling, clause in (("fc_norm", "mean", "FT-1"), ("encoder/norm", "first", "FT-2"))
)
