"""Tests of clips against a plain crop and resize of the true frames, and of the samples' distributions."""

import itertools
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from backends_tests.chi_square import assert_uniform
from backends_tests.odd_videos import write_video
from vmae_keras.data import batches, clips, pretraining
from vmae_keras.data.files import VideoFile
from vmae_keras.data.frames import read_frames
from vmae_keras.data.pretraining import pretraining_dataset, read_clip, validation_dataset
from vmae_keras.data.random_streams import Purpose, generator
from vmae_keras.data.skipped import SkippedFiles

COUNT, STRIDE = 40, 3
# Height and width of each video, and its centre crop for 16 x 24.
VIDEOS = {(40, 56): (0, 1, 56, 38), (32, 64): (8, 0, 56, 32), (50, 50): (0, 8, 50, 41)}


def sizes(channels=3, grid=(2, 4, 6)):
    return SimpleNamespace(frames=4, height=16, width=24, channels=channels, grid=grid)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Write lossless videos of noise; return {path: frames}."""
    folder = tmp_path_factory.mktemp("videos")
    generator = np.random.default_rng(0)
    frames = {}
    for height, width in VIDEOS:
        path = str(folder / f"{height}x{width}.avi")
        frames[path] = generator.integers(0, 256, (COUNT, height, width, 3), np.uint8)
        write_video(path, frames[path], codec="rawvideo", pix_fmt="bgr24")
    return frames


@pytest.fixture
def skipped(tmp_path):
    return SkippedFiles(tmp_path / "skipped.jsonl")


def plain(frames, box, channels):
    """Crop every frame to the box and resize it to 16 x 24, using only Pillow."""
    images = [Image.fromarray(frame).convert("RGB" if channels == 3 else "L") for frame in frames]
    clip = [image.crop(box).resize((24, 16), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image).reshape(16, 24, channels) for image in clip])


def found_in(clip, whole):
    """Return the index of the frame of `whole` that exactly equals each frame of the clip."""
    equal = (clip[:, None] == whole).all((2, 3, 4))
    assert (equal.sum(1) == 1).all()
    return tuple(equal.argmax(1).tolist())


@pytest.mark.clause("DATA-1", "DATA-3", "DATA-6", "DATA-7")
@pytest.mark.parametrize(("sampling", "channels"), [("dense", 3), ("dense", 1), ("uniform", 3)])
def test_a_clip_is_true_frames_cropped_and_resized(
    videos, sampling, channels, skipped, monkeypatch
):
    """Check that nothing else changes; repeats share the frames of a clip, which is decoded once."""
    boxes, decoded = [], []

    def recorded(calls, function):
        def call(*arguments):
            result = function(*arguments)
            calls.append((arguments[0], result))
            return result

        return call

    monkeypatch.setattr(
        pretraining.crops,
        "multi_scale_crop",
        recorded(boxes, pretraining.crops.multi_scale_crop),
    )
    monkeypatch.setattr(clips, "read_frames", recorded(decoded, read_frames))
    # Threads that read ahead would mix up the records.
    monkeypatch.setattr(pretraining, "prefetch", lambda batches, workers: batches)
    dataset = pretraining_dataset(
        [VideoFile(path) for path in videos],
        sizes(channels),
        batch_size=6,
        repeats=2,
        sampling=sampling,
        stride=STRIDE,
        skipped=skipped,
    )
    made = dataset[0]["video"]
    assert len(decoded) == 6 and len(boxes) == len(made) == 12
    positions = []
    for clip, (_, box), (path, _) in zip(
        made, boxes, np.repeat(np.array(decoded, object), 2, 0), strict=True
    ):
        positions.append(found_in(clip, plain(videos[path], box, channels)))
    assert positions[::2] == positions[1::2]
    assert len(set(positions)) > 2  # reveals another clip for a repeat
    for found in positions:
        if sampling == "dense":
            assert np.diff(found).tolist() == [STRIDE] * 3
        else:
            assert [position // 10 for position in found] == [0, 1, 2, 3]


@pytest.mark.clause("DATA-6")
@pytest.mark.parametrize("channels", [3, 1])
def test_validation_sees_the_centre(videos, channels, skipped):
    files = [VideoFile(path) for path in videos]
    (batch,) = validation_dataset(
        files, sizes(channels), batch_size=3, stride=STRIDE, skipped=skipped
    )
    for clip, path, box in zip(batch["video"], videos, VIDEOS.values(), strict=True):
        expected = plain(videos[path][14:26:STRIDE], box, channels)  # 14 frames before and after
        np.testing.assert_array_equal(clip, expected)
        given = {} if channels == 3 else {"channels": channels}
        alone = read_clip(path, frames=4, size=(16, 24), stride=STRIDE, **given)
        np.testing.assert_array_equal(alone, expected)


# Draws of samples ----------------------------------------------------------------------------------

FILES = 5
STARTS, MASKS = range(4), list(itertools.combinations(range(4), 3))
HEIGHTS, WIDTHS = (40, 35, 30, 26), (60, 52, 45, 39)  # crops of 40 x 60 pixels
CROPS = [(HEIGHTS[i], WIDTHS[j]) for i in range(4) for j in range(4) if abs(i - j) < 2]


@pytest.fixture
def training(skipped, monkeypatch):
    """Return batches of files that need not exist."""
    monkeypatch.setattr(pretraining, "prefetch", lambda batches, workers: batches)
    return pretraining_dataset(
        [VideoFile(str(number)) for number in range(FILES)],
        sizes(grid=(1, 2, 2)),
        batch_size=3,
        repeats=2,
        stride=STRIDE,
        mask_ratio=0.25,
        skipped=skipped,
    )


def validation(training, seed):
    """Return the validation samples of the same files."""
    make_sample = partial(pretraining._centre_sample, **training.make_sample.keywords, seed=seed)
    return batches.EachVideo(training.videos, make_sample)


@pytest.mark.clause("DATA-7", "MASK-6", "RANDOM-1")
def test_each_sample_draws_its_start_crop_and_mask_by_itself(training, monkeypatch):
    def read(index, generator):
        start = training.videos.read.positions(4 * STRIDE + len(STARTS) - 1, generator)[0]
        return np.full((1, 40, 60, 3), start, np.uint8)

    monkeypatch.setattr(training.videos, "try_to_read", read)
    monkeypatch.setattr(
        pretraining.crops, "resize", lambda frames, box, size: (int(frames.flat[0]), *box)
    )
    starts, crops, masks = [], [], []
    for number in range(2000):
        first, second = training.samples(number)
        assert first["video"][0] == second["video"][0]
        starts.append(first["video"][0])
        both = [sample["video"][1:] for sample in (first, second)]
        crops.append([(bottom - top, right - left) for left, top, right, bottom in both])
        masks.append([tuple(sample["visible"].tolist()) for sample in (first, second)])
    assert_uniform(map(tuple, crops), itertools.product(CROPS, repeat=2))
    assert_uniform(map(tuple, masks), itertools.product(MASKS, repeat=2))
    crops, masks = ([each[0] for each in drawn] for drawn in (crops, masks))
    assert_uniform(zip(crops, masks, strict=True), itertools.product(CROPS, MASKS))
    for apart in (1, FILES):  # the next sample, and the same place in the next epoch
        later = zip(starts, masks[apart:], strict=False)
        assert_uniform(later, itertools.product(STARTS, MASKS))
        assert_uniform(zip(masks, masks[apart:], strict=False), itertools.product(MASKS, MASKS))
    assert_uniform(zip(starts, masks, strict=True), itertools.product(STARTS, MASKS))


@pytest.mark.clause("RANDOM-1")
def test_the_seed_decides_every_draw_and_none_follows_another(training, monkeypatch):
    starts = []

    def read(index, generator=None):
        if generator:
            starts.append(int(training.videos.read.positions(4 * STRIDE + 3, generator)[0]))
        return np.zeros((1, 16, 24, 3), np.uint8)

    draws = []
    monkeypatch.setattr(training.videos, "try_to_read", read)
    for seed in range(800):
        training.seed = seed
        own, first, *_ = map(int, training.candidates(0))
        masks = training.samples(0)[0]["visible"], validation(training, seed)[0]["visible"]
        draws.append((own, first, starts[-1], *(6 - int(visible.sum()) for visible in masks)))
    counts = (FILES, FILES, len(STARTS), len(MASKS), len(MASKS))
    for i, j in itertools.combinations(range(len(counts)), 2):
        pairs = itertools.product(range(counts[i]), range(counts[j]))
        assert_uniform(((draw[i], draw[j]) for draw in draws), pairs)


@pytest.mark.clause("RANDOM-1")
def test_each_purpose_has_a_stream_of_its_own(training, monkeypatch):
    """Check sample 12 of five files, which is in epoch 2 and whose first choice of file is broken."""
    frames = [None, *[np.zeros((1, 16, 24, 3), np.uint8)] * 2]
    used = []

    def recorded(*key):
        used.append(key)
        return generator(*key)

    for module in (batches, pretraining):
        monkeypatch.setattr(module, "generator", recorded)
    training.seed = 9
    monkeypatch.setattr(training.videos, "try_to_read", lambda *_: frames.pop(0))
    batches._file_order.cache_clear()
    training.samples(12)
    validation(training, 9)[3]
    sample = (9, Purpose.SAMPLE, 12)
    replacement = (9, Purpose.REPLACEMENT, 12)
    last = (9, Purpose.VALIDATION_MASK, 3)
    assert used == [(9, Purpose.FILE_ORDER, 2), sample, replacement, sample, last]


@pytest.mark.clause("RANDOM-1")
def test_every_order_of_files_and_of_replacements_is_equally_likely(training):
    training.videos.paths = training.videos.paths[:4]
    drawn = [tuple(map(int, training.candidates(sample))) for sample in range(2400)]
    own = [candidates[0] for candidates in drawn]
    orders = list(zip(*[iter(own)] * 4, strict=True))  # one row per epoch
    replacements = [candidates[1:] for candidates in drawn]
    pairs = list(itertools.product(range(4), repeat=2))
    assert_uniform(orders, itertools.permutations(range(4)))
    assert_uniform(itertools.pairwise(order[0] for order in orders), pairs)
    assert_uniform(replacements, itertools.permutations(range(4)))
    assert_uniform(itertools.pairwise(order[0] for order in replacements), pairs)
    assert_uniform(zip(own, (order[0] for order in replacements), strict=True), pairs)
