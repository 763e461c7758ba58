"""Conversion of clips to tubelets and back, and selection of rows by id."""

from keras import ops

from vmae_keras import backend
from vmae_keras.backend import AnyTensor
from vmae_keras.config import VideoMAEConfig


def check_video(video: AnyTensor, config: VideoMAEConfig) -> None:
    """Raise ValueError if a video (B, T, H, W, C) does not fit the configuration."""
    expected = (config.frames, config.height, config.width, config.channels)
    shape = tuple(video.shape)
    if shape[1:] != expected:
        raise ValueError(
            f"`video` must have the shape (B, {', '.join(map(str, expected))}): frames, height, "
            f"width, channels. Received: shape={shape}. Resize the clip, or build the model with "
            "other sizes."
        )


def cut_tubelets(video: AnyTensor, tubelet: tuple[int, int, int]) -> AnyTensor:
    """Cut clips of any dtype into tubelets: (B, T, H, W, C) -> (B, N, P), row-major, channel fastest.

    No transpose exceeds rank 5, the limit of LiteRT's builtin operators.

    Source: clauses TUBE-1, TUBE-2; equal to the input windows of the official code's convolution.
    """
    _, frames, height, width, channels = video.shape
    p0, p1, p2 = tubelet
    t, h, w = frames // p0, height // p1, width // p2
    x = ops.reshape(video, (-1, t, p0, h, p1 * width * channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4))  # (B, t, h, p0, p1 * W * C)
    x = ops.reshape(x, (-1, p0 * p1, w, p2 * channels))
    x = ops.transpose(x, (0, 2, 1, 3))  # (B * t * h, w, p0 * p1, p2 * C)
    return ops.reshape(x, (-1, t * h * w, p0 * p1 * p2 * channels))


def take(rows: AnyTensor, ids: AnyTensor) -> AnyTensor:
    """Select the rows of each clip by id: (B, N, P), int32 (B, K) -> (B, K, P)."""
    return backend.take_rows(rows, ids)
