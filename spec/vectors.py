"""Golden vectors: what the oracle computes, as small files that any language can read.

    python -m spec.vectors           # writes vectors/*.safetensors and vectors/SHA256SUMS
    python -m spec.vectors --check   # writes nothing; exit 1 and the name of every tensor that differs

The files are the same to the byte wherever they are generated, although float64 arithmetic is not:
inputs come from PCG64's raw stream alone and are exact in float32; results are rounded as
`vector_files` describes. vectors/README.md documents the contents.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spec import augment_reference as augment
from spec import evaluation_reference as evaluation
from spec import masks_reference as masks
from spec import reference
from spec import training_reference as training
from spec.config import Config
from spec.gradient_reference import pretraining_gradients
from spec.position_reference import resize_positions
from spec.vector_files import MARGIN, Contents, Tensors, differences, encode, room

FOLDER = Path(__file__).with_name("vectors")


class Draws:
    """Numbers that every version of NumPy draws alike; the oracle's masks take it as a generator."""

    def __init__(self, seed: int):
        self._bits = np.random.PCG64(seed)

    def _raw(self, shape: Sequence[int]) -> np.ndarray:
        return self._bits.random_raw(math.prod(shape)).reshape(shape)

    def dyadic(self, *shape: int) -> np.ndarray:
        """float32 multiples of 2^-11 in [-1, 1)."""
        return ((self._raw(shape) >> 52).astype(np.float32) - 2048) / 2048

    def pixels(self, *shape: int) -> np.ndarray:
        """uint8"""
        return (self._raw(shape) >> 56).astype(np.uint8)

    def integers(self, high: int) -> int:
        return int(self._bits.random_raw()) % high

    def random(self, count: int) -> np.ndarray:
        return np.ldexp(self._raw((count,)).astype(np.float64), -64)

    def permutation(self, of: int | np.ndarray) -> np.ndarray:
        values = np.arange(of) if isinstance(of, int) else of
        return values[np.argsort(self._raw(values.shape), kind="stable")]


# What the files hold -----------------------------------------------------------------------------

SMALL = Config(
    frames=4,
    height=8,
    width=12,
    tubelet=(2, 4, 3),
    dim=16,
    depth=2,
    heads=2,
    mlp_dim=28,
    decoder_dim=12,
    decoder_depth=1,
    decoder_heads=3,
    decoder_mlp_dim=20,
)
# An epsilon near the gradients' size: 1e-8 shows no wrong place of it (OPT-5), and turns the sign of
# what is left of a vanishing gradient into a whole step.
ADAMW = {
    "rates": [0.004, 0.01, 0.002],
    "weight_decay": 0.05,
    "beta_1": 0.9,
    "beta_2": 0.95,
    "epsilon": 0.01,
}


def v1() -> Contents:
    config = dataclasses.replace(SMALL, depth=1, decoder_depth=2)
    return pretraining(config, seed=10, ratio=0.75, adamw=ADAMW)


def v2() -> Contents:
    adamw = {**ADAMW, "layer_decay": 0.7}
    config = dataclasses.replace(SMALL, frames=8)
    return pretraining(config, seed=3, ratio=0.75, decoder_ratio=0.5, adamw=adamw)


def odd_grid() -> Contents:
    config = dataclasses.replace(SMALL, frames=6, height=12, width=15, depth=1)
    return pretraining(
        config, seed=4, kind="random", ratio=0.8, decoder_ratio=0.25, low_contrast=True
    )


def options() -> Contents:
    config = dataclasses.replace(
        SMALL,
        depth=1,
        channels=1,
        norm_pix=False,
        layer_scale=0.1,
        cosine_attention=True,
        mean=(0.45,),
        std=(0.3,),
        layer_norm_epsilon=0.01,
    )
    return pretraining(config, seed=24, kind="agnostic", ratio=0.6)


def pretraining(
    config: Config,
    *,
    seed: int,
    kind: str = "tube",
    ratio: float,
    decoder_ratio: float | None = None,
    low_contrast: bool = False,
    adamw: dict[str, Any] | None = None,
) -> Contents:
    """One batch of two clips: weights, inputs, every intermediate, target, loss, gradients."""
    draws = Draws(seed)
    weights = drawn_weights(training.weight_shapes(config), draws)
    shape = (2, config.frames, config.height, config.width, config.channels)
    # Floats where the pixels are to be predicted as they are; both kinds of video are thus covered.
    video = draws.pixels(*shape) if config.norm_pix else (draws.dyadic(*shape) + 1) / 2
    if low_contrast:  # ten levels of one clip's pixels: there the epsilon of TARGET-2 shows
        video[1] = 100 + video[1] // 26
    clips = [
        masks.pretraining(config.grid, draws, kind=kind, ratio=ratio, decoder_ratio=decoder_ratio)
        for _ in range(2)
    ]
    batch = {
        "video": video,
        **{name: np.stack([clip[name] for clip in clips]) for name in clips[0]},
    }
    loss, gradients = pretraining_gradients(config, weights, batch)
    tensors = {
        **batch,
        **prefixed("weights", weights),
        **prefixed("forward", reference.forward(config, weights, batch, named=True)),
        "target": reference.target(config, video, batch["decoded"]),
        "loss": np.asarray(loss),
        **prefixed("gradients", gradients),
    }
    about = {"config": dataclasses.asdict(config), "seed": seed}
    if adamw:
        about["adamw"] = adamw
        batches = [batch] * len(adamw["rates"])
        tensors |= prefixed("updated", training.adamw_steps(config, weights, batches, **adamw))
    return about, tensors


def classifier() -> Contents:
    """Logits of both poolings from one set of weights; each takes the norm that is its own."""
    seed, classes = 0, 5
    draws, shapes = Draws(seed), {}
    for pooling in ("mean", "first"):
        shapes |= training.classifier_weight_shapes(SMALL, classes, pooling)
    weights = drawn_weights(shapes, draws)
    video = draws.pixels(2, SMALL.frames, SMALL.height, SMALL.width, SMALL.channels)
    tensors = {"video": video, **prefixed("weights", weights)}
    for pooling in ("mean", "first"):
        named = reference.classify(SMALL, weights, video, pooling=pooling, named=True)
        tensors |= prefixed(pooling, named)
    return {"config": dataclasses.asdict(SMALL), "classes": classes, "seed": seed}, tensors


def drawn_weights(shapes: dict[str, tuple[int, ...]], draws: Draws) -> Tensors:
    """Large, so that a wrong detail shows: gammas within 1 +- .5, log_scales 3 +- 3, others +- 1."""
    weights = {name: draws.dyadic(*shape) for name, shape in shapes.items()}
    for name, values in weights.items():
        if name.endswith("gamma"):
            weights[name] = 1 + values / 2
        if name.endswith("log_scale"):
            weights[name] = 3 + 3 * values
    return weights


class Cases:
    """A file of calls: numbers and names of each lie in about, its arrays in tensors beside."""

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
        # Late tokens, where angles computed in float32 are off by 1e-4.
        (1568, 384, [783, 1567]),
        (1568, 768, [1, 1000, 1567]),
        (2048, 1408, [2047]),
    ):
        rows = reference.sinusoid_positions(count, dim)[list(ids)]
        cases.add("sinusoid", count=count, dim=dim, ids=np.array(ids), rows=rows)
    for grid, new_grid in (
        ([2, 3, 4], [2, 5, 7]),
        ([2, 4, 3], [5, 4, 3]),
        ([5, 5, 5], [3, 2, 3]),
        ([2, 3, 3], [2, 3, 3]),
    ):
        table = draws.dyadic(math.prod(grid), 6)
        resized = resize_positions(table, grid, new_grid)
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
    """Positions of frames and crops in pixels, 0-based: of training samples and of test views."""
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


FILES: dict[str, Callable[[], Contents]] = {
    "v1": v1,
    "v2": v2,
    "odd_grid": odd_grid,
    "options": options,
    "classifier": classifier,
    "masks": mask_cases,
    "positions": positions,
    "schedules": schedules,
    "views": views,
}


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


# Contents -> files --------------------------------------------------------------------------------


class NearBoundary(ValueError):
    """A result that another machine might round otherwise."""


def files(made: dict[str, Contents]) -> dict[str, bytes]:
    """Name -> content of every file, SHA256SUMS last."""
    encoded = {f"{name}.safetensors": encode(*contents) for name, contents in made.items()}
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in encoded.items()]
    return {**encoded, "SHA256SUMS": "".join(sums).encode()}


def write(folder: Path) -> None:
    """Raises NearBoundary, and writes nothing, where a result depends on the machine."""
    made = {name: make() for name, make in FILES.items()}
    for name, (_, tensors) in made.items():
        for key, values in tensors.items():
            if values.dtype == np.float64 and (distance := room(values)) < MARGIN:
                raise NearBoundary(
                    f"{name}: {key} has a value that another machine might round otherwise. Received: "
                    f"{distance:.1e} of the tensor's size from a boundary, less than {MARGIN}. Take "
                    "another seed."
                )
    for name, content in files(made).items():
        (folder / name).write_bytes(content)


def check(folder: Path) -> list[str]:
    """One line for every file, or tensor in it, that is not what the oracle computes now."""
    wanted = files({name: make() for name, make in FILES.items()})
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    lines = [
        f"{name}: nobody makes this file" for name in found.keys() - wanted.keys() - {"README.md"}
    ]
    for name, content in wanted.items():
        if name not in found:
            lines.append(f"{name}: missing")
        elif name == "SHA256SUMS":
            lines += [f"{name}: differs"] * (found[name] != content)
        else:
            lines += [f"{name}: {line}" for line in differences(found[name], content)]
    return sorted(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spec.vectors")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, compare with the files"
    )
    if not parser.parse_args(arguments).check:
        write(FOLDER)
        return 0
    lines = check(FOLDER)
    sys.stdout.write("\n".join(lines or ["Every file is as the oracle makes it."]) + "\n")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
