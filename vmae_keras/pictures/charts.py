"""Charts of evaluations and probes. They need matplotlib, and leave the state of pyplot alone."""

import os
import warnings
from collections.abc import Sequence

import numpy as np

from vmae_keras.process.text import one_line

INK = "#282828"
_NUMBERS = 20  # with more classes, numbers in the cells would not fit
_NAMES = 60  # nor names beside the rows
_LETTERS = 24  # of a name, with the dots that stand for the rest


def confusion_picture(
    path: str | os.PathLike, confusion: np.ndarray, labels: Sequence[str] | None = None
) -> None:
    """Draw a confusion matrix as PNG: which share of each class's videos was taken for which class.

    Rows, the true classes, are normalised to 100 %; a class without videos is a grey row. Up to 20
    classes the shares stand in the cells, up to 60 the names beside them, and beyond only the numbers
    of some classes: what can be seen then is the diagonal and what lies off it.

    Args:
        confusion: (K, K) counts, row true class, column predicted one.
        labels: the names of the classes; None numbers them.

    Raises:
        ValueError: a matrix that is not square, or labels that are not one for each class.
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

    side = min(max(3.0, 0.36 * classes), 12.0)  # inches: with 400 classes a cell has five pixels
    figure = Figure(figsize=(side + 2.5, side + 1.5), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="predicted class", ylabel="true class")
    axes.set_facecolor("lightgrey")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class's videos, %", shrink=0.6)
    if classes <= _NAMES:
        names = [_shortened(str(name)) for name in (labels or range(classes))]
        size = 8 if classes <= 30 else 6
        # Otherwise "$" would begin a formula.
        style = {"fontsize": size, "parse_math": False}
        turned = {"rotation": 90} if max(map(len, names)) > 3 else {}
        axes.set_xticks(range(classes), names, **style, **turned)
        axes.set_yticks(range(classes), names, **style)
    if classes <= _NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            if share > 0:
                colour = "white" if share > 55 else INK
                text = f"{share:.0f}" if share >= 0.5 else "<1"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    with warnings.catch_warnings():
        # The font lacks the letters of many scripts; boxes in their place do not end an evaluation.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(path, format="png")


def sweep_picture(
    path: str | os.PathLike, what: str, values: Sequence[float], top_1: Sequence[float], chosen: int
) -> None:
    """Draw as PNG what the held-out videos said of each value that was tried, on a logarithmic axis.

    Args:
        what: the values' name.
        top_1: shares of 1, one for each value.
        chosen: the place of the value that was taken.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 3.2), dpi=180, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel=what, ylabel="top-1 of held-out videos, %")
    order = np.argsort(values)
    values, shares = np.asarray(values), 100 * np.asarray(top_1)
    axes.plot(values[order], shares[order], color="#1f5fa8", marker="o", markersize=4)
    axes.plot(values[chosen], shares[chosen], "o", markersize=9, fillstyle="none", color=INK)
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
