"""Cost of a forward pass: multiply-accumulates in its matrix products, for one clip."""

from vmae_keras.config import VideoMAEConfig


def view_multiply_accumulates(config: VideoMAEConfig, classes: int = 400) -> int:
    """Return the cost of a `VideoClassifier`: all N tokens, and a class token if there is one.

    Source: clauses COUNT-3, COUNT-5.
    """
    tokens = config.num_tokens
    encoder = _encoder(config, tokens + config.class_token)
    return tokens * config.tubelet_size * config.dim + encoder + config.dim * classes


def pretraining_multiply_accumulates(config: VideoMAEConfig, visible: int, decoded: int) -> int:
    """Return the cost of a `VideoMAE` that encodes `visible` tokens and decodes `decoded` tokens.

    Source: clauses COUNT-4, COUNT-5.
    """
    seen = visible + config.class_token
    decoder = _transformer(
        seen + decoded, config.decoder_dim, config.decoder_mlp_dim, config.decoder_depth
    )
    return (
        visible * config.tubelet_size * config.dim
        + _encoder(config, seen)
        + seen * config.dim * config.decoder_dim
        + decoder
        + decoded * config.decoder_dim * config.tubelet_size
    )


def _encoder(config: VideoMAEConfig, tokens: int) -> int:
    return _transformer(tokens, config.dim, config.mlp_dim, config.depth)


def _transformer(tokens: int, dim: int, mlp_dim: int, depth: int) -> int:
    """Count qkv, projection and MLP of each token, and the attention of each token to all."""
    return depth * (tokens * (4 * dim**2 + 2 * dim * mlp_dim) + 2 * tokens**2 * dim)
