"""Kinds of models, their options that have names, and sizes of the published models."""

from typing import Any, Literal, get_args

Kind = Literal["pretraining", "encoder", "classifier"]
CLASSES: dict[Kind, str] = {
    "pretraining": "VideoMAE",
    "encoder": "VideoEncoder",
    "classifier": "VideoClassifier",
}
Pooling = Literal[
    "mean", "first"
]  # of an encoder's tokens; without pooling, it returns all of them
POOLINGS = get_args(Pooling)
ACTIVATIONS = (
    "gelu",
    "gelu_tanh",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "leaky_relu",
    "silu",
    "mish",
    "hard_swish",
    "sigmoid",
    "tanh",
    "linear",
)


def _variant(
    encoder: tuple[int, int, int],
    decoder: tuple[int, int, int],
    *,
    mlp_ratio: float = 4.0,
    **others: Any,
) -> dict[str, Any]:
    """Return field values from (dim, depth, heads) of encoder and decoder.

    Hidden widths are rounded as in the official code.
    """
    dim, depth, heads = encoder
    decoder_dim, decoder_depth, decoder_heads = decoder
    return {
        "dim": dim,
        "depth": depth,
        "heads": heads,
        "mlp_dim": int(dim * mlp_ratio),
        "decoder_dim": decoder_dim,
        "decoder_depth": decoder_depth,
        "decoder_heads": decoder_heads,
        "decoder_mlp_dim": int(decoder_dim * mlp_ratio),
        **others,
    }


_S, _B, _L, _H, _G = (384, 12, 6), (768, 12, 12), (1024, 24, 16), (1280, 32, 16), (1408, 40, 16)


def _image(**options: Any) -> dict[str, Any]:
    """Return the options of an image model: one frame, patches of 16 x 16, a class token."""
    return {"frames": 1, "tubelet": (1, 16, 16), "class_token": True, **options}


def _vit(dim: int, depth: int, heads: int) -> dict[str, Any]:
    """Return a ViT, encoder and classifier with learned positions. It has no decoder."""
    half = (0.5, 0.5, 0.5)
    sizes = {"dim": dim, "depth": depth, "heads": heads, "mlp_dim": 4 * dim}
    return _image(**sizes, learned_positions=True, mean=half, std=half)


def _mae(encoder: tuple[int, int, int]) -> dict[str, Any]:
    """Return a masked autoencoder of images."""
    options = {"planar_positions": True, "bridge_bias": True, "mae_target": True}
    return _image(**_variant(encoder, (512, 8, 16)), **options)


# "demo" and "tiny" are not published: "demo" is for a first try on a CPU, "tiny" for tests.
VARIANTS = {
    "v1-s": _variant(_S, (192, 4, 3)),
    "v1-b": _variant(_B, (384, 4, 6)),
    "v1-l": _variant(_L, (512, 12, 8)),
    "v1-h": _variant(_H, (640, 12, 8)),
    "v2-s": _variant(_S, (192, 4, 3)),
    "v2-b": _variant(_B, (384, 4, 6)),
    "v2-l": _variant(_L, (512, 4, 8)),
    "v2-h": _variant(_H, (512, 4, 8)),
    "v2-g": _variant(_G, (512, 4, 8), mlp_ratio=48 / 11, tubelet=(2, 14, 14)),
    "vit-s": _vit(*_S),
    "vit-b": _vit(*_B),
    "vit-l": _vit(*_L),
    "mae-b": _mae(_B),
    "mae-l": _mae(_L),
    "demo": _variant((128, 4, 4), (96, 2, 3), frames=8, height=64, width=64, tubelet=(2, 8, 8)),
    "tiny": _variant((32, 2, 2), (16, 1, 2), frames=4, height=16, width=24, tubelet=(2, 4, 4)),
}
