"""The oracle for numbers of weights and multiply-accumulates: SPEC.md's COUNT clauses."""

from __future__ import annotations

import math
from typing import Any

from spec.training_reference import tubelet_values, weight_shapes


def count_parameters(config: Any) -> int:
    """Count the trainable values of the pretraining model. COUNT-1."""
    return sum(math.prod(shape) for shape in weight_shapes(config).values())


def count_encoder_parameters(config: Any) -> int:
    """Count the trainable values of the tubelet embedding and the encoder with its norm. COUNT-2."""
    return sum(
        math.prod(shape)
        for name, shape in weight_shapes(config).items()
        if name.startswith(("tubelet_embedding/", "encoder/"))
    )


def view_multiply_accumulates(config: Any, classes: int = 400) -> int:
    """Count the multiply-accumulates of one classifier forward, matrix products only. COUNT-3, COUNT-5."""
    tokens = math.prod(config.grid)
    read = tokens + config.class_token
    return (
        tokens * tubelet_values(config) * config.dim
        + stack_multiply_accumulates(read, config.dim, config.mlp_dim, config.depth)
        + config.dim * classes
    )


def pretraining_multiply_accumulates(config: Any, visible: int, decoded: int) -> int:
    """Count the multiply-accumulates of one pretraining forward of a clip. COUNT-4, COUNT-5."""
    encoder = (config.dim, config.mlp_dim, config.depth)
    decoder = (config.decoder_dim, config.decoder_mlp_dim, config.decoder_depth)
    seen = visible + config.class_token
    return (
        visible * tubelet_values(config) * config.dim
        + stack_multiply_accumulates(seen, *encoder)
        + seen * config.dim * config.decoder_dim
        + stack_multiply_accumulates(seen + decoded, *decoder)
        + decoded * config.decoder_dim * tubelet_values(config)
    )


def stack_multiply_accumulates(tokens: int, dim: int, hidden: int, depth: int) -> int:
    """Count the multiply-accumulates of blocks over K tokens. COUNT-3."""
    dense = 4 * dim**2 + 2 * dim * hidden  # q, k, v and projection; both layers of the MLP
    # 2 K^2 d: logits, and mixing of the values
    return depth * (tokens * dense + 2 * tokens**2 * dim)
