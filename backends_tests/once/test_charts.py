"""The pictures of a confusion matrix, at any number of classes, and of a sweep."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vmae_keras.charts import confusion_picture, sweep_picture

DARKEST = (8, 48, 107)  # of the colour map: 100 %
ABSENT = (211, 211, 211)  # a class without videos


@pytest.fixture
def draw(tmp_path):
    def drawn(confusion, labels=None):
        confusion_picture(tmp_path / "confusion.png", np.asarray(confusion), labels)
        return np.asarray(Image.open(tmp_path / "confusion.png").convert("RGB"))

    return drawn


def places(picture, colour):
    """(rows, columns) of the pixels of a colour, without the bar beside the matrix."""
    black = (picture == 0).all(2).sum(0)
    *_, end = (black > 0.9 * black.max()).nonzero()[0]  # the matrix's frame is the tallest line
    return (picture[:, :end] == colour).all(2).nonzero()


@pytest.mark.parametrize("classes", [2, 20, 61, 400])
def test_each_class_is_a_cell_that_can_be_seen(draw, classes):
    diagonal = np.eye(classes, dtype=int)
    rows, columns = places(draw(diagonal), DARKEST)
    cell = np.ptp(rows) / classes
    assert cell >= 4
    # From the top left to the bottom right, in each row of cells one is dark.
    assert len(np.unique(rows)) > 0.95 * np.ptp(rows)
    place = (columns - columns.min()) / cell - (rows - rows.min()) / cell
    assert np.abs(place).max() <= 1.25  # a cell is as wide as it is high
    # The first class taken for the last one: its dark cell moves to the right.
    diagonal[0] = np.roll(diagonal[0], -1)
    moved_rows, moved_columns = places(draw(diagonal), DARKEST)
    assert moved_columns[moved_rows < rows.min() + cell / 2].min() > columns.max() - 1.25 * cell


def test_rows_are_normalised_by_class(draw):
    confusion = np.array([[3, 1], [0, 2]])
    np.testing.assert_array_equal(draw(confusion), draw(confusion * [[7], [1]]))
    assert (draw(confusion) != draw(confusion.T)).any()


def test_a_class_without_videos_is_a_grey_row(draw):
    def grey(*diagonal):
        return len(places(draw(np.diag(diagonal)), ABSENT)[0])

    assert grey(1, 1, 1, 1) < 100  # of the letters' edges
    assert grey(1, 1, 0, 1) > 10_000
    assert grey(0, 1, 0, 1) == pytest.approx(2 * grey(1, 1, 0, 1), rel=0.05)


def test_names_stand_beside_the_rows_while_they_fit(draw):
    for classes, named in ((60, True), (61, False)):
        names = [f"class {number}" for number in range(classes)]
        other = draw(np.eye(classes), [name.upper() for name in names])
        same = np.array_equal(draw(np.eye(classes), names), other)
        assert same is not named, classes


def test_shares_stand_in_the_cells_while_they_fit(draw):
    def letters(classes):
        """White pixels within the dark cells of the diagonal."""
        picture = draw(np.eye(classes))
        rows, columns = places(picture, DARKEST)
        return sum(
            (picture[row, columns[rows == row].min() : columns[rows == row].max()] == 255)
            .all(1)
            .sum()
            for row in np.unique(rows)
        )

    assert letters(20) > 20 * 10
    assert letters(21) == 0


def test_any_name_can_be_drawn(draw):
    """Formulas, line breaks, letters that the font lacks, and more of them than fit."""
    names = ["$\\x$", "a\nb", "\u62f3\u6483", "passing American football " * 9, ""]
    picture = draw(np.eye(5), names)
    rows, columns = places(picture, DARKEST)
    assert np.ptp(columns) > 0.3 * picture.shape[1] and np.ptp(rows) > 0.3 * picture.shape[0]


def test_it_imports_neither_pyplot_nor_a_backend(tmp_path):
    script = (
        "import sys; from vmae_keras.charts import confusion_picture\n"
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


def test_a_sweep_shows_all_values_and_the_chosen_one(tmp_path):
    path = tmp_path / "sweep.png"
    shares = (0.25, 0.5, 1.0)
    pictures = []
    for chosen in (1, 2):
        sweep_picture(path, "learning rate", (1e-4, 1e-2, 1e-3), shares, chosen)
        pictures.append(np.asarray(Image.open(path).convert("RGB")).astype(int))
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()
    assert (np.abs(pictures[0] - (0x1F, 0x5F, 0xA8)).max(-1) < 8).any()
