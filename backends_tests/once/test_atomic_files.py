"""Tests that a file is replaced as a whole or not at all."""

import os

import numpy as np
import pytest

from vmae_keras.data import encode
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


def test_two_processes_may_write_the_same_video_at_the_same_time(tmp_path, monkeypatch):
    path, video, written = tmp_path / "clip.mp4", np.zeros((2, 16, 16, 3), np.uint8), []
    encode_video = encode._encode

    def encode_and_record(partial, *rest):
        written.append(partial)
        if len(written) == 1:  # meanwhile, another process writes the same file
            monkeypatch.setattr(os, "getpid", lambda: -1)
            encode.write_video(path, video, 12)
        encode_video(partial, *rest)

    monkeypatch.setattr(encode, "_encode", encode_and_record)
    encode.write_video(path, video, 12)
    assert len(set(written)) == 2 and list(tmp_path.iterdir()) == [path]
