"""RandAugment of official VideoMAE fine-tuning: a few of fifteen operations, the same in all frames."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

LARGEST_MAGNITUDE = 10
# Probability that a drawn operation is applied; the official code has no setting for it.
PROBABILITY = 0.5
# Name of an operation in OPERATIONS, and its argument or None.
Told = tuple[str, float | int | None]
_GREY = (128, 128, 128)
_NAME = re.compile(r"rand-m(\d+)-n(\d+)-mstd(\d+(?:\.\d+)?)-inc1")


@dataclass(frozen=True)
class RandAugment:
    """RandAugment policy: random operations of random magnitude for each clip.

    Draws from OPERATIONS with replacement. Each drawn operation is skipped with probability 1/2.

    Args:
        magnitude: Mean of the operations' magnitude, which is normally distributed and clipped to [0, 10].
        operations: Number of operations to draw.
        deviation: Standard deviation of the magnitude.

    Raises:
        ValueError: A setting is out of range.

    Source: official `rand_augment.py`, "rand-m7-n4-mstd0.5-inc1"; clauses AUG-6, AUG-7.
    """

    magnitude: float = 7
    operations: int = 4
    deviation: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude <= LARGEST_MAGNITUDE:
            raise ValueError(
                f"`magnitude` must be from 0 to {LARGEST_MAGNITUDE}. "
                f"Received: magnitude={self.magnitude}."
            )
        for name in ("operations", "deviation"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"`{name}` must not be negative. Received: {name}={getattr(self, name)}."
                )

    @classmethod
    def parse(cls, name: str) -> "RandAugment":
        """Parse a policy name from a recipe, such as "rand-m7-n4-mstd0.5-inc1".

        Raises:
            ValueError: The name has another form.
        """
        match = _NAME.fullmatch(name)
        if not match:
            raise ValueError(
                "An augmentation must have the form rand-m7-n4-mstd0.5-inc1: magnitude, operations "
                "and deviation, in the variant whose operations grow stronger with the magnitude. "
                f"Received: {name!r}."
            )
        return cls(int(match[1]), int(match[2]), float(match[3]))

    def __call__(self, frames: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Draw operations and apply them to all frames alike: (T, H, W, 3) uint8 -> the same shape."""
        return apply_operations(frames, self.draw(generator))

    def draw(self, generator: np.random.Generator) -> list[Told]:
        """Draw the operations of a clip, in order, each with its argument."""
        drawn = []
        for index in generator.integers(len(OPERATIONS), size=self.operations):
            if generator.random() < PROBABILITY:
                continue
            magnitude = generator.normal(self.magnitude, self.deviation)
            level = min(max(magnitude, 0), LARGEST_MAGNITUDE) / LARGEST_MAGNITUDE
            sign = 1 if generator.random() < 0.5 else -1
            name = OPERATIONS[index]
            drawn.append((name, _argument(name, level, sign)))
        return drawn


def apply_operations(frames: np.ndarray, operations: Sequence[Told]) -> np.ndarray:
    """Apply the operations, in order, to each frame separately: (T, H, W, 3) uint8 -> the same shape.

    Source: official `rand_augment.py`; clauses AUG-7, AUG-8.
    """
    if not operations:
        return frames
    images = [Image.fromarray(frame) for frame in frames]
    for name, argument in operations:
        images = [_OPERATIONS[name](image, argument) for image in images]
    return np.stack([np.asarray(image) for image in images])


def _argument(name: str, level: float, sign: float) -> float | None:
    match name:
        case "Rotate":
            return sign * (level * 30.0)
        case "Posterize":
            return 4 - int(level * 4)
        case "Solarize":
            return 256 - int(level * 256)
        case "SolarizeAdd":
            return int(level * 110)
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return 1.0 + sign * (level * 0.9)
        case "ShearX" | "ShearY":
            return sign * (level * 0.3)
        case "TranslateXRel" | "TranslateYRel":
            return sign * (level * 0.45)
    return None


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    # ImageOps.posterize rejects 0 bits, which the largest magnitude gives.
    return image.point([i & (256 - 2 ** (8 - bits)) for i in range(256)] * 3)


def _solarize_add(image: Image.Image, add: int) -> Image.Image:
    return image.point([min(255, i + add) if i < 128 else i for i in range(256)] * 3)


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=_GREY)


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    # The matrix maps positions in the result to positions in the source.
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=_GREY
    )


_OPERATIONS = {
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageOps.invert(image),
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": ImageOps.solarize,
    "SolarizeAdd": _solarize_add,
    "Color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "Contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "Brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "Sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "ShearX": lambda image, slope: _affine(image, 1, slope, 0, 0, 1, 0),
    "ShearY": lambda image, slope: _affine(image, 1, 0, 0, slope, 1, 0),
    "TranslateXRel": lambda image, share: _affine(image, 1, 0, share * image.width, 0, 1, 0),
    "TranslateYRel": lambda image, share: _affine(image, 1, 0, 0, 0, 1, share * image.height),
}
OPERATIONS = tuple(_OPERATIONS)
