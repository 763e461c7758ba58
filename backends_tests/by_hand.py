"""Independent reconstruction of a run's batches from the recipe, the seed and the videos' frames.

It uses plain code and the oracle, in the order of the library's draws. Videos are (T0, H0, W0, 3) uint8, in
the order of the list. Clips are square.
"""

import math

import numpy as np
from PIL import Image

from spec import (
    augment_reference,
    evaluation_reference,
    masks_reference,
    mix_reference,
    share_reference,
)
from spec.position_reference import linear, resize_axis
from vmae_keras.data.rand_augment import apply_operations

HOLD_OUT, FILE_ORDER, SAMPLE, MIXING, VALIDATION_MASK = 1, 2, 3, 5, 6
SCALES = (1, 0.875, 0.75, 0.66)
QUARTERS = [
    (0, 0),
    (4, 0),
    (0, 4),
    (4, 4),
    (2, 2),
    (0, 2),
    (4, 2),
    (2, 0),
    (2, 4),
    (1, 1),
    (3, 1),
    (1, 3),
    (3, 3),
]


def stream(seed, purpose, *numbers):
    """Return the random generator of a purpose. RANDOM-1."""
    words = [word for number in numbers for word in (number % 2**32, number // 2**32)]
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=[purpose, *words]))


def held_out(count, share, seed, labels=None):
    """Return the indices of the held-out videos; with labels, an equal share of each class.

    HOLD-2, HOLD-3.
    """
    draws = stream(seed, HOLD_OUT)
    order = draws.permutation(count).tolist()
    wanted = int(count * share)
    if labels is None:
        return sorted(order[:wanted])
    of_class = {}
    for place in order:
        of_class.setdefault(labels[place], []).append(place)
    able = [place for places in of_class.values() for place in places[1:]]
    start = int(draws.integers(len(able)))
    return sorted(able[(i * len(able) + start) // wanted] for i in range(wanted))


def files_of_batch(count, recipe, seed, step):
    """Yield (sample number, file index) for each video of a batch. RANDOM-1."""
    for sample in range(step * recipe.batch_size, (step + 1) * recipe.batch_size):
        epoch, place = divmod(sample, count)
        yield sample, stream(seed, FILE_ORDER, epoch).permutation(count)[place]


# Pretraining -------------------------------------------------------------------------------------


def pretraining_batch(config, recipe, seed, videos, step):
    """Return the batch of a step. DATA-*, MASK-*, DUAL-*."""
    clips = []
    for sample, place in files_of_batch(len(videos), recipe, seed, step):
        draws = stream(seed, SAMPLE, sample)
        frames = videos[place][_positions(config, recipe, len(videos[place]), draws)]
        for _ in range(recipe.repeats):
            video = _resized(frames, _multi_scale_crop(frames, config.height, draws), config)
            clips.append({"video": video, **_ids(config, recipe, draws)})
    return {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}


def pretraining_validation(config, recipe, seed, videos):
    """Return the held-out clips as one batch."""
    clips = []
    for place, frames in enumerate(videos):
        frames = frames[_positions(config, recipe, len(frames), None)]
        height, width = frames.shape[1:3]
        side = min(height, width)
        corner = (width - side) // 2, (height - side) // 2
        video = _resized(frames, (*corner, corner[0] + side, corner[1] + side), config)
        ids = _ids(config, recipe, stream(seed, VALIDATION_MASK, place))
        clips.append({"video": video, **ids})
    return {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}


def _positions(config, recipe, count, draws):
    every = np.arange(config.frames)
    if recipe.sampling == "dense":
        spare = count - config.frames * recipe.stride
        return (draws.integers(spare + 1) if draws else spare // 2) + recipe.stride * every
    length = count // config.frames
    if draws:
        return every * length + draws.integers(length, size=config.frames)
    return evaluation_reference.uniform_views(count, config.frames, 1)[0]


def _multi_scale_crop(frames, size, draws):
    height, width = frames.shape[1:3]
    sides = [int(min(height, width) * scale) for scale in SCALES]
    sides = [size if abs(side - size) < 3 else side for side in sides]
    pairs = [(sides[i], sides[j]) for i in range(4) for j in range(4) if abs(i - j) <= 1]
    h, w = pairs[draws.integers(len(pairs))]
    across, down = QUARTERS[draws.integers(len(QUARTERS))]
    left, top = across * ((width - w) // 4), down * ((height - h) // 4)
    return left, top, left + w, top + h


def _resized(frames, box, config):
    size = (config.width, config.height)
    images = [Image.fromarray(frame).crop(box) for frame in frames]
    return np.stack([np.asarray(image.resize(size, Image.Resampling.BILINEAR)) for image in images])


def _ids(config, recipe, draws):
    """Draw token ids for grids whose running cells have no surplus.

    MASK-2 to MASK-5, CELL-1, DUAL-1 to DUAL-3.
    """
    t, h, w = config.grid
    ratio, every = recipe.mask_ratio, np.arange(t * h * w)
    match recipe.mask:
        case "tube":
            hidden = np.isin(
                every % (h * w), draws.choice(h * w, int(ratio * h * w), replace=False)
            )
        case "random":
            hidden = np.isin(every, draws.choice(t * h * w, int(ratio * t * h * w), replace=False))
        case "frame":
            hidden = np.isin(every // (h * w), draws.choice(t, int(ratio * t), replace=False))
        case "agnostic":
            lowest = np.argsort(draws.random(t * h * w))[: int(t * h * w * (1 - ratio))]
            hidden = ~np.isin(every, lowest)
    ids = {"visible": every[~hidden], "decoded": every[hidden]}
    if recipe.decoder_mask_ratio:
        pointer = int(draws.integers(4))
        cells = masks_reference.running_cell_pattern(
            config.grid, recipe.decoder_mask_ratio, pointer
        )
        ids["decoded"] = every[cells.ravel()]
        ids["weight"] = hidden[ids["decoded"]].astype("float32")
    return ids


# Fine-tuning and distillation --------------------------------------------------------------------


def mixed_batch(config, recipe, seed, videos, labels, classes, step):
    """Return the videos and targets of a step. AUG-*, MIX-*, SHARD-2."""
    clips, numbers = [], []
    for sample, place in files_of_batch(len(videos), recipe, seed, step):
        draws = stream(seed, SAMPLE, sample)
        frames = videos[place]
        frames = frames[_spread(config, recipe, len(frames), draws)]
        clips += [_augmented(config, recipe, frames, draws) for _ in range(recipe.repeats)]
        numbers += [labels[place]] * recipe.repeats
    choice = _choice(config, recipe, stream(seed, MIXING, step))
    choices = mix_reference.choices_of_clips(choice, len(clips))
    mixed = mix_reference.mixed_videos(np.stack(clips), choices)
    ratios = [ratio for ratio, _ in choices]
    targets = mix_reference.soft_targets(numbers, classes, recipe.label_smoothing, ratios)
    order = share_reference.mixed_order(len(clips), 0, 1)
    return mixed[order], targets[order]


def centre_views(config, recipe, videos, labels, classes):
    """Return the held-out clips, with levels before rounding, and their targets. EVAL-3, EVAL-5, EVAL-6."""
    size, views = (config.height, config.width), []
    for frames in videos:
        frames = frames[_spread(config, recipe, len(frames), None)]
        height, width = evaluation_reference.fitted_size(*frames.shape[1:3], size)
        frames = resize_axis(resize_axis(frames, 1, height, linear), 2, width, linear)
        ((y, x),) = evaluation_reference.fitted_crops(height, width, size, 1)
        views.append(frames[:, y : y + size[0], x : x + size[1]])
    return np.stack(views), np.eye(classes)[labels]


def _spread(config, recipe, count, draws):
    if recipe.sampling == "uniform":
        return _positions(config, recipe, count, draws)
    spare = count - config.frames * recipe.stride
    start = draws.integers(spare) if draws else spare // 2
    return augment_reference.clip_positions(count, config.frames, recipe.stride, start)


def _augmented(config, recipe, frames, draws):
    # The oracle's own image operations (AUG-8) take seconds and do not depend on a recipe.
    frames = apply_operations(frames, list(_operations(recipe, draws)))
    tries, corner = _fitting(frames.shape[1:3], recipe.crop_area, recipe.crop_aspect, draws, False)
    box = augment_reference.crop_box(*frames.shape[1:3], tries, corner)
    mirrored = draws.random() < recipe.flip_probability
    clip = augment_reference.resize_crop(frames, box, (config.height, config.width))
    clip = clip[:, :, ::-1] if mirrored else clip
    if draws.random() < recipe.erasing_probability:
        area, aspect = (0.02, 1 / 3), (0.3, 1 / 0.3)
        tries, corner = _fitting(clip.shape[1:3], area, aspect, draws, True)
        box = augment_reference.erased_box(*clip.shape[1:3], tries, corner)
        shape = (len(clip), box[3] - box[1], box[2] - box[0], 3)
        noise = draws.standard_normal(shape, np.float32)
        clip = augment_reference.erase(clip, box, noise, config.mean, config.std)
    return clip


def _operations(recipe, draws):
    _, magnitude, count, deviation, _ = recipe.auto_augment.split("-")
    magnitude, count = float(magnitude[1:]), int(count[1:])
    for index in draws.integers(len(augment_reference.OPERATIONS), size=count):
        if draws.random() < 0.5:
            continue
        drawn = min(max(draws.normal(magnitude, float(deviation.removeprefix("mstd"))), 0), 10)
        sign = 1 if draws.random() < 0.5 else -1
        operation = augment_reference.OPERATIONS[index]
        yield operation, augment_reference.argument(operation, drawn, sign)


def _fitting(picture, area, aspect, draws, erased):
    """Return the crop attempts up to the first that fits, and the corner drawn for it."""
    height, width = picture
    for _ in range(100 if erased else 10):
        share, log = draws.uniform(*area), draws.uniform(*map(math.log, aspect))
        pixels, ratio = share * height * width, math.exp(log)
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if erased:
            w, h = h, w
        if (h < height and w < width) if erased else (h <= height and w <= width):
            corner = int(draws.integers(width - w + 1)), int(draws.integers(height - h + 1))
            return [(share, log)], corner
    raise ValueError("No try fits. Take wider ranges, or another seed.")


def _choice(config, recipe, draws):
    """Draw (ratio, box or None) for a batch. MIX-3 to MIX-5."""
    if draws.random() >= recipe.mixup_probability:
        return 1.0, None
    if draws.random() >= recipe.cutmix_switch_probability:
        return draws.beta(recipe.mixup, recipe.mixup), None
    ratio = draws.beta(recipe.cutmix, recipe.cutmix)
    y, x = int(draws.integers(config.height)), int(draws.integers(config.width))
    box = mix_reference.cutmix_box(config.height, config.width, ratio, (x, y))
    return mix_reference.cutmix_ratio(config.height, config.width, box), box
