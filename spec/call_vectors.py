"""Golden vectors of single calls: masks, positions, schedules and views."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from spec import augment_reference as augment
from spec import evaluation_reference as evaluation
from spec import masks_reference as masks
from spec import position_reference
from spec import training_reference as training
from spec.model_vectors import SMALL
from spec.vector_draws import Draws
from spec.vector_files import Contents, Tensors, prefixed


class Cases:
    """A file of calls: the numbers and names of each are stored in `about`, its arrays in `tensors`."""

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}
        self.tensors: Tensors = {}

    def add(self, function: str, **values: Any) -> None:
        count = sum(key.startswith(f"{function}/") for key in self.about)
        key = f"{function}/{count}"
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        self.about[key] = {name: value for name, value in values.items() if name not in arrays}
        self.tensors |= prefixed(key, arrays)

    def contents(self) -> Contents:
        return {"cases": self.about}, self.tensors


def mask_cases() -> Contents:
    cases, draws = Cases(), Draws(0)
    for grid in ([4, 4, 6], [5, 3, 5], [2, 3, 2]):
        for ratio in (0.25, 0.5, 0.75):
            for pointer in range(4):
                decoded = np.flatnonzero(masks.running_cell_pattern(grid, ratio, pointer))
                cases.add(
                    "running_cell",
                    grid=grid,
                    ratio=ratio,
                    pointer=pointer,
                    count=masks.running_cell_count(grid, ratio),
                    decoded=decoded,
                )
    for grid, ratio in (([3, 4, 4], 0.75), ([2, 3, 15], 0.6)):
        visible, masked = masks.tube(grid, ratio, draws)
        places = masked[masked < grid[1] * grid[2]]
        cases.add("tube", grid=grid, ratio=ratio, places=places, visible=visible, masked=masked)
    grid, ratio = [5, 2, 3], 0.5
    visible, masked = masks.frame(grid, ratio, draws)
    slots = np.unique(masked // 6)
    cases.add("frame", grid=grid, ratio=ratio, slots=slots, visible=visible, masked=masked)
    for grid in ([8, 14, 14], [8, 16, 16], [3, 3, 15]):
        for ratio in (0.9, 0.75, 0.6):
            for kind in (masks.tube, masks.random, masks.frame, masks.agnostic):
                visible, masked = kind(grid, ratio, draws)
                cases.add(
                    "count",
                    kind=kind.__name__,
                    grid=grid,
                    ratio=ratio,
                    visible=len(visible),
                    masked=len(masked),
                )
    for grid, ratio, decoder_ratio in (
        ([8, 14, 14], 0.9, 0.5),
        ([8, 16, 16], 0.9, 0.5),
        ([4, 4, 6], 0.75, 0.25),
    ):
        ids = masks.pretraining(grid, draws, ratio=ratio, decoder_ratio=decoder_ratio)
        cases.add(
            "dual",
            grid=grid,
            ratio=ratio,
            decoder_ratio=decoder_ratio,
            visible=len(ids["visible"]),
            decoded=len(ids["decoded"]),
            weight_sum=int(ids["weight"].sum()),
        )
    return cases.contents()


def positions() -> Contents:
    cases, draws = Cases(), Draws(0)
    for count, dim, ids in (
        (12, 16, range(12)),
        (20, 10, range(20)),
        # Late tokens, for which angles computed in float32 are off by 1e-4.
        (1568, 384, [783, 1567]),
        (1568, 768, [1, 1000, 1567]),
        (2048, 1408, [2047]),
    ):
        rows = position_reference.sinusoid_positions(count, dim)[list(ids)]
        cases.add("sinusoid", count=count, dim=dim, ids=np.array(ids), rows=rows)
    for grid, new_grid in (
        ([2, 3, 4], [2, 5, 7]),
        ([2, 4, 3], [5, 4, 3]),
        ([5, 5, 5], [3, 2, 3]),
        ([2, 3, 3], [2, 3, 3]),
    ):
        table = draws.dyadic(math.prod(grid), 6)
        resized = position_reference.resize_positions(table, grid, new_grid)
        cases.add("resize", grid=grid, new_grid=new_grid, table=table, resized=resized)
    return cases.contents()


def schedules() -> Contents:
    cases = Cases()
    for warmup in (0, 1, 4):
        of = {
            "base": 0.0015,
            "minimum": 1e-5,
            "videos_per_step": 96,
            "warmup_steps": warmup,
            "total_steps": 15,
        }
        rates = [training.learning_rate(step, **of) for step in range(of["total_steps"])]
        cases.add("learning_rate", **of, rates=np.array(rates))
    for rate, depth in ((0.1, 12), (0.35, 40), (0.2, 1)):
        rates = training.drop_path_rates(rate, depth)
        cases.add("drop_path_rates", rate=rate, depth=depth, rates=rates)
    for decay in (0.7, 0.75):
        names = list(training.classifier_weight_shapes(SMALL, 5))
        scales = [training.layer_decay_scale(name, SMALL.depth, decay) for name in names]
        cases.add(
            "layer_decay", decay=decay, depth=SMALL.depth, names=names, scales=np.array(scales)
        )
    shapes = training.weight_shapes(
        dataclasses.replace(SMALL, layer_scale=0.1, cosine_attention=True)
    )
    decayed = [name for name, shape in shapes.items() if training.decayed(name, shape)]
    cases.add(
        "weight_decay", decayed=decayed, spared=[name for name in shapes if name not in decayed]
    )
    return cases.contents()


def views() -> Contents:
    """Return 0-based positions of frames and crops, for training samples and test views."""
    cases = Cases()
    for count, frames, stride, start in ((80, 16, 4, 7), (65, 16, 4, 1), (10, 8, 4, 0)):
        taken = np.minimum(start + stride * np.arange(frames), count - 1)
        cases.add("dense", count=count, frames=frames, stride=stride, start=start, positions=taken)
    for count, frames, stride, start in (
        (80, 16, 4, 7),
        (64, 16, 4, 0),
        (42, 16, 4, 0),
        (30, 8, 2, 13),
    ):
        taken = augment.clip_positions(count, frames, stride, start)
        cases.add("spread", count=count, frames=frames, stride=stride, start=start, positions=taken)
    for count, frames in ((50, 16), (16, 16), (5, 8)):
        taken = np.array([int((i + 0.5) * count / frames) for i in range(frames)])
        cases.add("uniform", count=count, frames=frames, positions=taken)
    for count, frames, stride, clips in (
        (300, 16, 4, 5),
        (250, 8, 2, 2),
        (40, 16, 4, 5),
        (97, 8, 3, 1),
    ):
        taken = evaluation.dense_views(count, frames, stride, clips)
        cases.add(
            "dense_views", count=count, frames=frames, stride=stride, clips=clips, positions=taken
        )
    for count, frames, clips in ((50, 16, 2), (33, 16, 1), (10, 16, 2)):
        taken = evaluation.uniform_views(count, frames, clips)
        cases.add("uniform_views", count=count, frames=frames, clips=clips, positions=taken)
    for height, width, size, crops in (
        (240, 320, 224, 3),
        (481, 270, 224, 3),
        (256, 341, 224, 1),
        (224, 224, 224, 3),
    ):
        resized = evaluation.view_size(height, width, size)
        corners = evaluation.view_crops(*resized, size, crops)
        cases.add(
            "view_crops",
            height=height,
            width=width,
            size=size,
            crops=crops,
            resized=list(resized),
            corners=np.array(corners),
        )
    for height, width, crop, crops in (
        (240, 320, (224, 128), 3),
        (240, 320, (96, 256), 3),
        (481, 270, (160, 96), 2),
        (256, 341, (128, 192), 1),
        (180, 320, (144, 256), 3),
    ):
        resized = evaluation.fitted_size(height, width, crop)
        corners = evaluation.fitted_crops(*resized, crop, crops)
        cases.add(
            "rectangular_crops",
            height=height,
            width=width,
            size=list(crop),
            crops=crops,
            resized=list(resized),
            corners=np.array(corners),
        )
    logits = 4 * Draws(0).dyadic(15, 6)
    cases.add("average_views", logits=logits, probabilities=evaluation.average_views(logits))
    return cases.contents()
