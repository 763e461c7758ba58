"""Clips to tubelets and back, and rows by id."""

from keras import ops

from vmae_keras import backend


def check_video(video, config):
    """Raise ValueError if a video (B, T, H, W, C) does not fit the configuration."""
    expected = (config.frames, config.height, config.width, config.channels)
    shape = tuple(video.shape)
    if shape[1:] != expected:
        raise ValueError(
            f"`video` must have the shape (B, {', '.join(map(str, expected))}): frames, height, "
            f"width, channels. Received: shape={shape}. Resize the clip, or build the model with "
            "other sizes."
        )


def tubelets(video, tubelet: tuple[int, int, int]):
    """(B, T, H, W, C) -> (B, N, P): cut a clip into tubelets, row-major, channel fastest.

    Any dtype. No transpose exceeds rank 5, which is what LiteRT's builtin operators take.

    Source: clauses TUBE-1, TUBE-2; the convolution of the official code sees the same numbers.
    """
    _, frames, height, width, channels = video.shape
    p0, p1, p2 = tubelet
    t, h, w = frames // p0, height // p1, width // p2
    x = ops.reshape(video, (-1, t, p0, h, p1 * width * channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4))  # (B, t, h, p0, p1 * W * C)
    x = ops.reshape(x, (-1, p0 * p1, w, p2 * channels))
    x = ops.transpose(x, (0, 2, 1, 3))  # (B * t * h, w, p0 * p1, p2 * C)
    return ops.reshape(x, (-1, t * h * w, p0 * p1 * p2 * channels))


def untubelets(tokens, tubelet: tuple[int, int, int], grid: tuple[int, int, int]):
    """(B, N, P) -> (B, T, H, W, C): the inverse of `tubelets`. Clause TUBE-2."""
    p0, p1, p2 = tubelet
    t, h, w = grid
    channels = tokens.shape[-1] // (p0 * p1 * p2)
    x = ops.reshape(tokens, (-1, w, p0 * p1, p2 * channels))
    x = ops.transpose(x, (0, 2, 1, 3))
    x = ops.reshape(x, (-1, t, h, p0, p1 * w * p2 * channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4))
    return ops.reshape(x, (-1, t * p0, h * p1, w * p2, channels))


def take(rows, ids):
    """(B, N, P), int32 (B, K) -> (B, K, P): each clip's rows by id."""
    return backend.take_rows(rows, ids)
