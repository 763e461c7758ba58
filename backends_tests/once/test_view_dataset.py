"""Tests of the views of video files, against the oracle's from decoding to crops, and with broken files."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from spec import evaluation_reference
from spec.position_reference import linear, resize_axis
from vmae_keras.data import view_dataset
from vmae_keras.data.files import list_videos
from vmae_keras.data.frames import read_frames
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.data.view_dataset import views_dataset

SIZES = SimpleNamespace(frames=4, height=16, width=16, channels=3)
DENSE = {"sampling": "dense", "stride": 2, "clips": 3, "crops": 3}
PICTURES = {"landscape": (32, 48), "portrait": (48, 32), "square": (32, 32), "small": (16, 28)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for seed, size in enumerate(PICTURES.values()):
        write_moving_shapes(folder / str(seed), 1, seed=seed, frames=14, size=size)
    return list_videos(folder)


@pytest.fixture
def skipped(tmp_path):
    return SkippedFiles(tmp_path / "skipped.jsonl")


@pytest.fixture
def broken(files, tmp_path):
    """Return the files, the second of which is not a video."""
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    return [files[0], *list_videos(tmp_path / "broken.mp4"), *files[2:]]


def oracle_views(path, sizes, *, sampling, stride, clips, crops):
    """Return the oracle's views before rounding to levels: (S * R, T, H, W, C) float64."""
    video = read_frames(path, np.arange)
    count, height, width = video.shape[:3]
    if sampling == "dense":
        rows = evaluation_reference.dense_views(count, sizes.frames, stride, clips)
    else:
        rows = evaluation_reference.uniform_views(count, sizes.frames, clips)
    crop = sizes.height, sizes.width
    if sizes.height == sizes.width:
        resized = evaluation_reference.view_size(height, width, sizes.height)
        corners = evaluation_reference.view_crops(*resized, sizes.height, crops)
    else:
        resized = evaluation_reference.fitted_size(height, width, crop)
        corners = evaluation_reference.fitted_crops(*resized, crop, crops)
    video = resize_axis(resize_axis(video, 1, resized[0], linear), 2, resized[1], linear)
    return np.stack(
        [video[row, y : y + sizes.height, x : x + sizes.width] for row in rows for y, x in corners]
    )


def assert_rounded(views, exact):
    assert views.dtype == np.uint8 and views.shape == exact.shape
    # Half a level of rounding, plus float32 error: measured 3e-5 level.
    assert np.abs(views - exact).max() < 0.5 + 3e-4


@pytest.mark.clause("EVAL-1", "EVAL-3")
@pytest.mark.parametrize("stride, clips, crops", [(2, 3, 3), (1, 5, 2), (2, 1, 1), (5, 2, 3)])
def test_dense_views_equal_the_oracle(files, skipped, stride, clips, crops):
    """Check more positions than a clip needs, down to fewer, where the last is repeated."""
    views = {"sampling": "dense", "stride": stride, "clips": clips, "crops": crops}
    elements = list(views_dataset(files, SIZES, **views, skipped=skipped))
    assert [element["index"] for element in elements] == list(range(len(PICTURES)))
    for file, element in zip(files, elements, strict=True):
        assert_rounded(element["views"], oracle_views(file.path, SIZES, **views))


@pytest.mark.clause("EVAL-5")
@pytest.mark.parametrize("size", [(16, 32), (24, 16), (16, 24)], ids=str)
def test_rectangular_views_equal_the_oracle(files, skipped, size):
    """Check frames that are wider, taller, of equal proportions, and narrower than the crop."""
    sizes = SimpleNamespace(**{**vars(SIZES), "height": size[0], "width": size[1]})
    for file, element in zip(
        files, views_dataset(files, sizes, **DENSE, skipped=skipped), strict=True
    ):
        assert element["views"].shape == (9, 4, *size, 3)
        assert_rounded(element["views"], oracle_views(file.path, sizes, **DENSE))


@pytest.mark.clause("EVAL-2", "EVAL-3")
@pytest.mark.parametrize("clips, crops", [(2, 3), (1, 1)])
def test_uniform_views_equal_the_oracle(files, skipped, clips, crops):
    views = {"sampling": "uniform", "stride": 1, "clips": clips, "crops": crops}
    for file, element in zip(
        files, views_dataset(files, SIZES, **views, skipped=skipped), strict=True
    ):
        assert_rounded(element["views"], oracle_views(file.path, SIZES, **views))


@pytest.mark.clause("EVAL-3")
def test_resizing_is_not_antialiased(files, skipped):
    """Halve a side twice, which uses two pixels of four; with antialiasing all four would count."""
    (file,) = [file for file in files if read_frames(file.path, np.arange).shape[1:3] == (32, 32)]
    views = {"sampling": "uniform", "stride": 1, "clips": 1, "crops": 1}
    sizes = SimpleNamespace(**{**vars(SIZES), "height": 8, "width": 8})
    (element,) = views_dataset([file], sizes, **views, skipped=skipped)
    frames = read_frames(
        file.path, lambda ticks: evaluation_reference.uniform_views(ticks, 4, 1)[0]
    )
    middles = frames.reshape(4, 8, 4, 8, 4, 3)[:, :, 1:3, :, 1:3].mean((2, 4))
    assert_rounded(element["views"], middles[None])


def test_whole_frames_are_taken_as_they_are(files, skipped):
    sizes = SimpleNamespace(**{**vars(SIZES), "height": 32, "width": 48})
    frames = {file.path: read_frames(file.path, np.arange) for file in files}
    (path,) = [path for path, video in frames.items() if video.shape[1:3] == (32, 48)]
    dataset = views_dataset(files, sizes, **{**DENSE, "crops": None}, skipped=skipped)
    (element,) = dataset
    rows = evaluation_reference.dense_views(14, 4, 2, 3)
    np.testing.assert_array_equal(element["views"], frames[path][rows])
    assert set(skipped.report()) == {file.path for file in files} - {path}


def test_each_video_is_decoded_once_and_each_frame_held_once(files, skipped, monkeypatch):
    asked = {}

    def counting(path, choose, on_damage):
        def chosen(ticks):
            asked.setdefault(path, []).append(choose(ticks))
            return asked[path][-1]

        return read_frames(path, chosen, on_damage)

    monkeypatch.setattr(view_dataset, "read_frames", counting)
    views = {"sampling": "dense", "stride": 2, "clips": 5, "crops": 3}
    list(views_dataset(files, SIZES, **views, skipped=skipped))
    assert [len(asked[file.path]) for file in files] == [1] * len(files)
    for ((positions,),) in zip(asked.values()):
        assert positions.tolist() == [0, 2, 4, 6, 8, 10, 12]  # not 5 separate clips of 4


def test_broken_files_are_recorded_and_left_out_whatever_the_workers(broken, skipped):
    def run(workers):
        return list(views_dataset(broken, SIZES, **DENSE, skipped=skipped, workers=workers))

    alone, beside = run(0), run(2)
    assert [int(element["index"]) for element in alone] == [0, 2, 3]
    assert [int(element["index"]) for element in beside] == [0, 2, 3]
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one["views"], other["views"])
    assert skipped.report() == {broken[1].path: "Invalid data found when processing input"}


def test_one_channel_is_brightness(files, skipped):
    sizes = SimpleNamespace(**{**vars(SIZES), "channels": 1})
    (grey,) = views_dataset(files[:1], sizes, **DENSE, skipped=skipped)
    (colour,) = views_dataset(files[:1], SIZES, **DENSE, skipped=skipped)
    assert grey["views"].shape == (9, 4, 16, 16, 1)
    brightness = colour["views"] @ [0.299, 0.587, 0.114]
    assert np.abs(grey["views"][..., 0] - brightness).max() <= 0.51  # rounded to whole levels


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sampling": "sparse"}, "`sampling` must be one of dense, uniform. Received: .*'sparse'"),
        ({"sampling": "uniform"}, "one or two clips of a video. Received: clips=3"),
        ({"stride": 0}, "`stride` must be at least 1"),
        ({"clips": 0}, "`clips` must be at least 1. Received: clips=0"),
        ({"crops": 0}, "`crops` must be at least 1"),
        ({"workers": -1}, "`workers` must be at least 0"),
        ({"files": []}, "`videos` must name at least one video"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_read(files, skipped, change, message):
    settings = {"files": files, "sizes": SIZES, **DENSE, "skipped": skipped, **change}
    with pytest.raises(ValueError, match=message):
        views_dataset(settings.pop("files"), settings.pop("sizes"), **settings)


def test_importing_it_imports_no_backend():
    code = (
        "import sys, vmae_keras.data.view_dataset\n"
        "print([name for name in ('keras', 'tensorflow', 'torch') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")
