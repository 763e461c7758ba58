"""Tests that a file is replaced as a whole or not at all."""

import pytest

from vmae_keras.process.files import replacing, write_json


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "values.json"
    write_json(path, {"a": 1})
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == '{\n  "a": 1\n}\n'
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "values.json"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
