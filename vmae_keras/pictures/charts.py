"""Charts of evaluations and probes. They need matplotlib, and do not touch the state of pyplot."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from vmae_keras.process.text import one_line

INK = "#282828"
_NUMBERS = 20  # classes up to which numbers fit into the cells
_NAMES = 60  # classes up to which names fit beside the rows
_LETTERS = 24  # longest name, including the ellipsis of a shortened one


def confusion_picture(
    path: str | os.PathLike, confusion: np.ndarray, labels: Sequence[str] | None = None
) -> None:
    """Draw a confusion matrix as PNG.

    Each row, a true class, is normalised to 100 %; a class without videos is a grey row. Cells show their
    shares for up to 20 classes, and axes show class names for up to 60. Beyond that, axes show only some
    class numbers.

    Args:
        path: File to write.
        confusion: (K, K) counts: rows are true classes, columns predicted ones.
        labels: Names of the classes; None numbers them.

    Raises:
        ValueError: The matrix is not square, or does not have one label per class.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    confusion = np.asarray(confusion)
    classes = len(confusion)
    if confusion.shape != (classes, classes) or not classes:
        raise ValueError(f"`confusion` must be (K, K). Received: shape={confusion.shape}.")
    if labels is not None and len(labels) != classes:
        raise ValueError(
            f"`labels` must name each class. Received: {len(labels)} labels, {classes} classes."
        )
    totals = confusion.sum(1, keepdims=True)
    shares = np.where(totals > 0, 100 * confusion / np.maximum(totals, 1), np.nan)

    side = min(max(3.0, 0.36 * classes), 12.0)  # inches; with 400 classes a cell has five pixels
    figure = Figure(figsize=(side + 2.5, side + 1.5), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="predicted class", ylabel="true class")
    axes.set_facecolor("lightgrey")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class's videos, %", shrink=0.6)
    if classes <= _NAMES:
        names = [_shortened(str(name)) for name in (labels or range(classes))]
        size = 8 if classes <= 30 else 6
        # Otherwise "$" would start a formula.
        style: dict[str, Any] = {"fontsize": size, "parse_math": False}
        turned: dict[str, Any] = {"rotation": 90} if max(map(len, names)) > 3 else {}
        axes.set_xticks(range(classes), names, **style, **turned)
        axes.set_yticks(range(classes), names, **style)
    if classes <= _NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            if share > 0:
                colour = "white" if share > 55 else INK
                text = f"{share:.0f}" if share >= 0.5 else "<1"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    with warnings.catch_warnings():
        # The font lacks the letters of many scripts. Boxes in their place must not abort an evaluation.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(path, format="png")


def sweep_picture(
    path: str | os.PathLike, what: str, values: Sequence[float], top_1: Sequence[float], chosen: int
) -> None:
    """Draw a sweep as PNG: top-1 on held-out videos against the values, on a logarithmic axis.

    Args:
        path: File to write.
        what: Name of the values.
        values: Values that were tried.
        top_1: Top-1 of each value, as a share of 1.
        chosen: Index of the chosen value.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 3.2), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel=what, ylabel="top-1 of held-out videos, %")
    order = np.argsort(values)
    tried, shares = np.asarray(values), 100 * np.asarray(top_1)
    axes.plot(tried[order], shares[order], color="#1f5fa8", marker="o", markersize=4)
    axes.plot(tried[chosen], shares[chosen], "o", markersize=9, fillstyle="none", color=INK)
    axes.annotate(
        f"chosen: {values[chosen]:g}",
        (values[chosen], shares[chosen]),
        textcoords="offset points",
        xytext=(0, 9),
        ha="center",
        fontsize=8,
        color=INK,
    )
    axes.set_xscale("log")
    axes.margins(0.15)
    axes.set_ylim(0, 115)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")


def _shortened(name: str) -> str:
    name = one_line(" ".join(name.split()))
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1].rstrip() + "…"
