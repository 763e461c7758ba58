"""Tests of charts: a confusion matrix with any number of classes, and a sweep."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from vmae_keras.pictures.charts import confusion_picture, sweep_picture
from vmae_keras.pictures.clips import loss_picture

DARKEST = (8, 48, 107)  # 100 % in the colour map


@pytest.fixture
def axes(monkeypatch):
    """Return the main axes of each figure, without rendering it."""
    found = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: found.append(figure.axes[0]))
    return found


def written(axes):
    """Return {(x, y): text} of the cells."""
    return {text.get_position(): text.get_text() for text in axes.texts}


def named(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.fixture
def draw(tmp_path):
    def drawn(confusion, labels=None):
        confusion_picture(tmp_path / "confusion.png", np.asarray(confusion), labels)
        return np.asarray(Image.open(tmp_path / "confusion.png").convert("RGB"))

    return drawn


def places(picture, colour):
    """Return (rows, columns) of the pixels of a colour, without the bar beside the matrix."""
    black = (picture == 0).all(2).sum(0)
    *_, end = (black > 0.9 * black.max()).nonzero()[0]  # the matrix's frame is the tallest line
    return (picture[:, :end] == colour).all(2).nonzero()


@pytest.mark.parametrize("classes", [2, 400])
def test_each_class_is_a_cell_that_can_be_seen(draw, classes):
    diagonal = np.eye(classes, dtype=int)
    rows, columns = places(draw(diagonal), DARKEST)
    cell = np.ptp(rows) / classes
    assert cell >= 4
    # In each row one cell is dark, from the top left to the bottom right.
    assert len(np.unique(rows)) > 0.95 * np.ptp(rows)
    place = (columns - columns.min()) / cell - (rows - rows.min()) / cell
    assert np.abs(place).max() <= 1.25  # cells are square
    # The first class is predicted as the last: its dark cell moves to the right.
    diagonal[0] = np.roll(diagonal[0], -1)
    moved_rows, moved_columns = places(draw(diagonal), DARKEST)
    assert moved_columns[moved_rows < rows.min() + cell / 2].min() > columns.max() - 1.25 * cell


def test_cells_have_the_shares_of_their_row(axes):
    """Check rounded percentages; a row without videos has none and shows the grey background."""
    confusion_picture("", np.array([[5, 3, 0], [0, 0, 0], [1, 0, 399]]), ["a", "b", "c"])
    (image,) = axes[0].images
    expected = [[62.5, 37.5, 0], [np.nan] * 3, [0.25, 0, 99.75]]
    np.testing.assert_allclose(image.get_array().filled(np.nan), expected)
    assert image.get_clim() == (0, 100)
    assert axes[0].get_facecolor()[:3] == to_rgb("lightgrey")
    assert written(axes[0]) == {(0, 0): "62", (1, 0): "38", (0, 2): "<1", (2, 2): "100"}
    assert named(axes[0].xaxis) == named(axes[0].yaxis) == ["a", "b", "c"]
    low, high = axes[0].get_ylim()
    assert low > high  # the first row is at the top


def test_names_and_shares_are_there_while_they_fit(axes):
    for classes in (20, 21, 60, 61):
        names = [f"class {number}" for number in range(classes)]
        confusion_picture("", np.eye(classes), names)
        assert (named(axes[-1].yaxis) == names) == (classes <= 60)
        assert len(written(axes[-1])) == (classes if classes <= 20 else 0)
    confusion_picture("", np.eye(4))
    assert named(axes[-1].xaxis) == ["0", "1", "2", "3"]


def test_any_name_can_be_drawn(draw):
    """Draw formulas, line breaks, letters that the font lacks, and names that are too long."""
    names = ["$\\x$", "a\nb", "\u62f3\u6483", "passing American football " * 9, ""]
    picture = draw(np.eye(5), names)
    rows, columns = places(picture, DARKEST)
    assert np.ptp(columns) > 0.3 * picture.shape[1] and np.ptp(rows) > 0.3 * picture.shape[0]


def test_it_imports_neither_pyplot_nor_a_backend(tmp_path):
    script = (
        "import sys; from vmae_keras.pictures.charts import confusion_picture\n"
        "assert 'matplotlib' not in sys.modules\n"
        "confusion_picture(sys.argv[1], [[1, 0], [1, 1]], ['a', 'b'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert not {'keras', 'jax', 'torch', 'tensorflow'} & set(sys.modules)\n"
    )
    path = tmp_path / "confusion.png"
    subprocess.run([sys.executable, "-c", script, path], check=True)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "confusion, labels, message",
    [
        (np.ones((2, 3)), None, r"must be \(K, K\). Received: shape=\(2, 3\)"),
        (np.ones((0, 0)), None, r"Received: shape=\(0, 0\)"),
        (np.eye(3), ["a", "b"], "Received: 2 labels, 3 classes"),
    ],
)
def test_wrong_arguments_are_named(draw, confusion, labels, message):
    with pytest.raises(ValueError, match=message):
        draw(confusion, labels)


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_sweep_shows_all_values_in_order_and_the_chosen_one(axes, chosen):
    sweep_picture("", "learning rate", (1e-4, 1e-2, 1e-3), (0.25, 0.5, 1.0), chosen)
    line, mark = (line.get_xydata().tolist() for line in axes[0].lines)
    assert line == [[1e-4, 25], [1e-3, 100], [1e-2, 50]]
    assert mark == [[[1e-4, 25], [1e-2, 50]][chosen]]
    assert [text.get_text() for text in axes[0].texts] == [f"chosen: {(0.0001, 0.01)[chosen]:g}"]
    assert (axes[0].get_xlabel(), axes[0].get_xscale()) == ("learning rate", "log")
    low, high = axes[0].get_ylim()
    assert low == 0 and high > 100


def test_a_sweep_is_a_picture(tmp_path):
    sweep_picture(tmp_path / "sweep.png", "k", (1, 5), (0.25, 0.5), 1)
    pixels = np.asarray(Image.open(tmp_path / "sweep.png").convert("RGB")).astype(int)
    assert (np.abs(pixels - (0x1F, 0x5F, 0xA8)).max(-1) < 8).any()


def test_curves_of_a_loss_have_steps_across_and_losses_up(axes):
    history = {"training": [(0, 1.2), (10, 0.7)], "validation": [(0, 1.1)], "none": []}
    loss_picture("", history)
    found = {line.get_label(): line.get_xydata().tolist() for line in axes[0].lines}
    assert found == {name: [list(point) for point in points] for name, points in history.items()}
    assert axes[0].get_ylim()[0] == 0
