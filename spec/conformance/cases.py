"""The cases for every implementation: configurations with weights of sigma .5, and batches.

With weights ten times smaller, rounding would hide a tanh in place of the GELU's erf.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from spec import masks_reference, training_reference
from spec.config import Config
from spec.conformance.adapter import Adapter, Classifier, Model

# No two sizes are equal, so that swapped axes are detected.
SMALL = Config(
    frames=4,
    height=16,
    width=24,
    tubelet=(2, 4, 4),
    dim=32,
    depth=2,
    heads=2,
    mlp_dim=80,
    decoder_dim=24,
    decoder_depth=1,
    decoder_heads=3,
    decoder_mlp_dim=56,
)
CLASSES = 5

Video = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def noise(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw uint8 over its whole range."""
    return generator.integers(0, 256, shape, dtype=np.uint8)


def floating(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float32 in [0, 1]."""
    return noise(generator, shape).astype(np.float32) / np.float32(255)


def half(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float16 in [0, 1]."""
    return floating(generator, shape).astype(np.float16)


def low_contrast(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw from ten grey levels, so that the value and place of TARGET-2's epsilon show."""
    return generator.integers(100, 110, shape, dtype=np.uint8)


def one_colour(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a video of one colour, with variances of 0."""
    return np.full(shape, 77, np.uint8)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Case:
    """A pretraining model and a batch.

    `clauses` are those that the case needs beyond the plain V1 case. An implementation with a gap in one
    of them is not checked on it. `adjust` changes the drawn weights in place.
    """

    name: str
    config: Config = SMALL
    masking: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    video: Video = noise
    clauses: tuple[str, ...] = ()
    adjust: Callable[[dict[str, np.ndarray]], None] | None = None
    clips: int = 2
    seed: int = 0

    def __repr__(self) -> str:
        """Return the call that creates the case, as shown by a failing property test."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        given = (f"{name}={getattr(v, '__name__', repr(v))}" for name, v in values.items())
        return f"{type(self).__name__}({', '.join(given)})"

    @property
    def model(self) -> tuple:
        """Key of the model to build; equal for cases that can share a model."""
        return (self.config,)

    def build(self, adapter: Adapter) -> Model | Classifier:
        return adapter.build(self.config)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return training_reference.weight_shapes(self.config)

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Drawn float32 weights, which are exact in the oracle's float64."""
        generator = np.random.default_rng(self.seed)
        drawn = training_reference.random_weights_of(self.shapes, generator)
        weights = {name: value.astype(np.float32) for name, value in drawn.items()}
        if self.adjust:
            self.adjust(weights)
        return weights

    @cached_property
    def batch(self) -> dict[str, np.ndarray]:
        """Batch in which each clip has its own masks."""
        generator = np.random.default_rng(self.seed)
        ids = [
            masks_reference.pretraining(
                self.config.grid, generator, **{"ratio": 0.75, **self.masking}
            )
            for _ in range(self.clips)
        ]
        batch = {name: np.stack([one[name] for one in ids]) for name in ids[0]}
        return {"video": self._draw(generator), **batch}

    def _draw(self, generator: np.random.Generator) -> np.ndarray:
        c = self.config
        return self.video(generator, (self.clips, c.frames, c.height, c.width, c.channels))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ClassifierCase(Case):
    """A classifier and a video."""

    pooling: str = "mean"

    @property
    def model(self) -> tuple:
        return self.config, self.pooling

    def build(self, adapter: Adapter) -> Classifier:
        return adapter.build_classifier(self.config, CLASSES, self.pooling)

    @cached_property
    def batch(self) -> dict[str, np.ndarray]:
        return {"video": self._draw(np.random.default_rng(self.seed))}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return training_reference.classifier_weight_shapes(self.config, CLASSES, self.pooling)


def _beyond_the_clamp(weights: dict[str, np.ndarray]) -> None:
    """Set one head's log_scale above the clamp of BLOCK-8, 4.6052."""
    for name, value in weights.items():
        if name.endswith("log_scale"):
            value[0] = 5.0


def _changed(**changes: Any) -> Config:
    return dataclasses.replace(SMALL, **changes)


V1 = Case("V1")
RANDOM_MASK = Case("V1, random mask", masking={"kind": "random"}, seed=1)
AGNOSTIC_MASK = Case("V1, agnostic mask", masking={"kind": "agnostic"}, seed=2)
FLOAT_VIDEO = Case("V1, float video", video=floating, clauses=("INPUT-1",))
LOW_CONTRAST = Case("V1, low contrast", video=low_contrast)
ONE_COLOUR = Case("V1, one colour", video=one_colour)
V2 = Case("V2", _changed(frames=8), {"decoder_ratio": 0.5}, clauses=("DUAL-2",))
V2_ODD_GRID = Case(
    "V2, odd grid",
    _changed(frames=6, height=20, width=12, depth=1),
    {"decoder_ratio": 0.25},
    clauses=("DUAL-2",),
)
OBLONG_TUBELETS = Case(
    "tubelets of 1 x 8 x 4", _changed(tubelet=(1, 8, 4), depth=1), clauses=("TUBE-2",)
)
RAW_PIXELS = Case(
    "raw pixels, frame mask",
    _changed(norm_pix=False),
    {"kind": "frame", "ratio": 0.5},
    clauses=("TARGET-3",),
)
ONE_CHANNEL = Case("one channel", _changed(channels=1, mean=(0.0,), std=(1.0,), depth=1))
OTHER_SETTINGS = Case(
    "other mean, std and epsilon",
    _changed(depth=1, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), layer_norm_epsilon=1e-2),
    clauses=("INPUT-2",),
)
LAYER_SCALE = Case("layer scale", _changed(depth=1, layer_scale=0.1), clauses=("BLOCK-6",))
COSINE_ATTENTION = Case(
    "cosine attention",
    _changed(depth=1, cosine_attention=True),
    clauses=("BLOCK-8",),
    adjust=_beyond_the_clamp,
)
IMAGE = _changed(frames=1, tubelet=(1, 4, 4), depth=1, class_token=True)
MAE = Case(
    "MAE, learned positions",
    dataclasses.replace(
        IMAGE, learned_positions=True, planar_positions=True, bridge_bias=True, mae_target=True
    ),
    {"kind": "random"},
    clauses=("IMAGE-1", "IMAGE-2", "IMAGE-4", "IMAGE-5", "IMAGE-6"),
)
# The mean is near the grey levels and std is 1: values stay close together, so that the epsilon shows.
MAE_LOW_CONTRAST = Case(
    "MAE, low contrast",
    dataclasses.replace(MAE.config, mean=(0.41,) * 3, std=(1.0,) * 3),
    {"kind": "random"},
    low_contrast,
    clauses=("INPUT-2", "IMAGE-6"),
)

# Cases that can change the predictions, and the target.
PREDICTED = (
    V1,
    RANDOM_MASK,
    AGNOSTIC_MASK,
    FLOAT_VIDEO,
    V2,
    V2_ODD_GRID,
    OBLONG_TUBELETS,
    RAW_PIXELS,
    ONE_CHANNEL,
    OTHER_SETTINGS,
    LAYER_SCALE,
    COSINE_ATTENTION,
    MAE,
)
TARGETED = (V1, FLOAT_VIDEO, V2, V2_ODD_GRID, OBLONG_TUBELETS, RAW_PIXELS, ONE_CHANNEL, MAE)
FOUR_TOKENS = _changed(frames=2, height=8, width=8)
CLASSIFIERS = (
    ClassifierCase("mean pooling", FOUR_TOKENS, clauses=("FT-1",)),
    ClassifierCase("first token", FOUR_TOKENS, clauses=("FT-2",), pooling="first"),
    ClassifierCase(
        "ViT, mean pooling",
        dataclasses.replace(IMAGE, planar_positions=True),
        clauses=("FT-1", "IMAGE-1", "IMAGE-3", "IMAGE-4"),
    ),
    ClassifierCase(
        "ViT, class token",
        dataclasses.replace(IMAGE, learned_positions=True),
        clauses=("FT-2", "IMAGE-1", "IMAGE-3"),
        pooling="first",
    ),
)
