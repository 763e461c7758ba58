"""Pictures and videos of clips as labelled rows of frames, and loss curves."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vmae_keras.data.encode import write_video
from vmae_keras.process.text import one_line

INK, PAPER = (40, 40, 40), (250, 250, 248)


def rows_picture(
    rows: Sequence[tuple[str, np.ndarray]],
    *,
    columns: int = 8,
    caption: str = "",
    frame_width: int = 128,
) -> Image.Image:
    """Draw labelled clips below each other, `columns` frames of each side by side.

    Args:
        rows: Pairs of label and uint8 video (T, H, W, 3), all of one shape.
        columns: Number of frames to show, evenly spaced from first to last; at most T are shown.
        caption: Line below the rows.
        frame_width: Minimum width of a frame. Narrower frames are enlarged by the smallest sufficient
            whole factor, with sharp pixels.

    Returns:
        An RGB picture with even sides.
    """
    frames, height, width = _same_shape(rows)
    factor = max(1, -(-frame_width // width))
    height, width, gap = height * factor, width * factor, 6
    chosen = np.linspace(0, frames - 1, min(columns, frames)).round().astype(int)
    inner = len(chosen) * (width + gap) - gap
    font = ImageFont.load_default(size=15)
    line = 20

    def wrapped(text: str) -> list[str]:
        letters = int(inner / (font.getlength(text) / len(text))) if text else 1
        return textwrap.wrap(text, max(letters - 2, 10))

    labels, ending = [wrapped(one_line(label)) for label, _ in rows], wrapped(one_line(caption))
    lines = sum(map(len, labels)) + len(ending)
    total = lines * line + len(rows) * (height + 2 * gap) + 2 * gap
    size = (inner + 2 * gap, total)
    canvas = Image.new("RGB", [side + side % 2 for side in size], PAPER)
    draw = ImageDraw.Draw(canvas)
    top = gap
    for label, (_, video) in zip(labels, rows, strict=True):
        for text in label:
            draw.text((gap, top), text, INK, font)
            top += line
        top += gap // 2
        for column, index in enumerate(chosen):
            frame = Image.fromarray(video[index]).resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(frame, (gap + column * (width + gap), top))
        top += height + gap
    for text in ending:
        draw.text((gap, top), text, INK, font)
        top += line
    return canvas


def rows_video(
    path: str | os.PathLike,
    rows: Sequence[tuple[str, np.ndarray]],
    rate: int | Fraction,
    *,
    caption: str = "",
    frame_width: int = 256,
) -> None:
    """Write labelled clips (see `rows_picture`) below each other as one .mp4, atomically.

    Args:
        path: File to write. A killed writer leaves no file of this name.
        rows, caption, frame_width: See `rows_picture`.
        rate: Frames per second.
    """
    frames, *_ = _same_shape(rows)
    pictures = [
        rows_picture(
            [(label, video[index : index + 1]) for label, video in rows],
            caption=caption,
            frame_width=frame_width,
        )
        for index in range(frames)
    ]
    write_video(path, np.stack([np.asarray(picture) for picture in pictures]), rate)


def loss_picture(
    path: str | os.PathLike, history: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """Draw loss against step as PNG.

    It needs matplotlib, and does not touch the state of pyplot.

    Args:
        path: File to write.
        history: Name of a curve ("training", "validation") -> its (step, loss) pairs.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    for name, points in history.items():
        steps, losses = zip(*points, strict=True) if points else ((), ())
        axes.plot(steps, losses, label=name, linewidth=1 if name == "training" else 2)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, format="png")


def _same_shape(rows: Sequence[tuple[str, np.ndarray]]) -> tuple[int, int, int]:
    shapes = [video.shape for _, video in rows]
    kinds = {(video.dtype.name, video.shape[3:]) for _, video in rows}
    if len(set(shapes)) != 1 or kinds != {("uint8", (3,))}:
        raise ValueError(
            "`rows` must hold uint8 videos (T, H, W, 3), all of one shape. "
            f"Received: {[(label, str(video.dtype), video.shape) for label, video in rows]}."
        )
    return shapes[0][:3]
