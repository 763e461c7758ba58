"""Synthetic videos: one shaded shape moves over a colour gradient. Drawn with NumPy.

VideoMAE predicts tubelets normalised to zero mean and unit variance per channel. In a uniform tubelet only
codec noise would be left to predict, so nothing here is uniform. The background is a linear gradient in
each channel, and every visible tubelet shows its direction. The shape has a steeper gradient of its own.
The background's hues move with the shape, so any visible tubelet of the same time reveals the shape's
position. A small model soon learns the gradient, and within minutes the position.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vmae_keras.data.encode import write_video
from vmae_keras.data.random_streams import Purpose, generator

SHAPES = ("disc", "square", "triangle")
MOTIONS = ("bounce", "circle")
# Lengths are in units of the picture's shorter side, times in frames.
RADIUS = (0.22, 0.26)  # of the disc; the other shapes have the same area
SPEED = (0.03, 0.045)  # per frame
RAMP = (0.0, 0.4)  # direction of the red background gradient, in radians
FOLLOW = 0.6  # movement of the background's hues relative to the shape's: 0 none, 1 the same
BACKGROUND = (4.0, 251.0)  # levels at the two ends of each channel's gradient
SHAPE_TOP = 255.0  # the shape is white at its top ...
SHAPE_BOTTOM = ((150.0, 50.0, 0.0), (120.0, 0.0, 80.0), (0.0, 60.0, 150.0), (30.0, 110.0, 0.0))
# Label: (motion, direction of a bounce, clockwise). Walls reverse a direction, so both directions along a
# line are one class. A single frame does not reveal the label.
LABELLED = {
    "horizontal": ("bounce", 0.0, False),
    "vertical": ("bounce", math.pi / 2, False),
    "falling diagonal": ("bounce", math.pi / 4, False),
    "rising diagonal": ("bounce", -math.pi / 4, False),
    "clockwise": ("circle", 0.0, True),
    "anticlockwise": ("circle", 0.0, False),
}
_SIDES = {"square": 4, "triangle": 3}


@dataclass(frozen=True)
class Scene:
    """Complete description of a clip's content, independent of the clip's size and length.

    `position` is the shape's centre (x, y) at frame 0. Its range [0, 1] covers the positions where a disc
    stays inside the picture. Angles are in radians; x points right and y down.
    """

    shape: str
    motion: str
    radius: float
    position: tuple[float, float]
    direction: float
    speed: float
    clockwise: bool
    ramp: float
    bottom: tuple[float, float, float]


def random_scene(generator: np.random.Generator) -> Scene:
    """Draw the parameters of a clip."""
    return Scene(
        shape=SHAPES[generator.integers(len(SHAPES))],
        motion=MOTIONS[generator.integers(len(MOTIONS))],
        radius=generator.uniform(*RADIUS),
        position=(generator.random(), generator.random()),
        direction=generator.uniform(0, 2 * math.pi),
        speed=generator.uniform(*SPEED),
        clockwise=bool(generator.integers(2)),
        ramp=generator.uniform(*RAMP),
        bottom=SHAPE_BOTTOM[generator.integers(len(SHAPE_BOTTOM))],
    )


def random_motion(generator: np.random.Generator, label: str) -> Scene:
    """Draw a scene with a labelled motion. The label determines the motion and nothing else."""
    motion, direction, clockwise = LABELLED[label]
    if motion == "bounce":
        # Back and forth along the line, starting in either direction.
        direction += generator.uniform(-0.3, 0.3) + math.pi * generator.integers(2)
    else:
        direction = generator.uniform(0, 2 * math.pi)
    scene = random_scene(generator)
    return replace(scene, motion=motion, direction=direction, clockwise=clockwise)


def draw_scene(scene: Scene, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Draw a scene as uint8 video (frames, height, width, 3). `size` is (height, width).

    Raises:
        ValueError: `frames` is not positive, or a side of `size` is less than 16 pixels.
    """
    height, width = size
    if frames < 1 or min(size) < 16:
        raise ValueError(
            "`frames` must be positive and both sides of `size` at least 16 pixels. "
            f"Received: frames={frames}, size={tuple(size)}. Use for example 24 and (80, 80)."
        )
    y, x = np.mgrid[:height, :width].astype("float32")[..., None] + 0.5
    radius = scene.radius * min(size)
    centre = _centres(scene, frames, size)[:, None, None]
    right, down = x - centre[..., :1], y - centre[..., 1:]

    # The three channels increase in directions a third of a turn apart. So the hue changes around the
    # picture at constant brightness, and a shape that is bright in all channels stands out everywhere.
    angle = scene.ramp + 2 * math.pi / 3 * np.arange(3, dtype="float32")
    origin = np.array([width, height], "float32") / 2
    origin = origin + FOLLOW * (centre - origin)
    along = np.cos(angle) * (x - origin[..., :1]) + np.sin(angle) * (y - origin[..., 1:])
    # Half the extent of the picture along the gradient, enlarged by the distance that the origin can move.
    reach = (np.abs(np.cos(angle)) * width + np.abs(np.sin(angle)) * height) / 2
    along /= reach * (1 + FOLLOW * (1 - 2 * scene.radius))
    low, high = BACKGROUND
    background = (low + high) / 2 + (high - low) / 2 * along

    inside = np.clip(0.5 - _distance(scene.shape, right, down, radius), 0, 1)
    depth = (np.clip(down / (1.3 * radius), -1, 1) + 1) / 2
    shape = SHAPE_TOP + depth * (np.asarray(scene.bottom, "float32") - SHAPE_TOP)
    return np.rint(background + inside * (shape - background)).astype("uint8")


def moving_shapes(generator: np.random.Generator, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Draw a random clip: uint8 (frames, height, width, 3). `size` is (height, width)."""
    return draw_scene(random_scene(generator), frames, size)


def write_moving_shapes(
    folder: str | os.PathLike,
    count: int,
    *,
    seed: int = 0,
    frames: int = 24,
    size: tuple[int, int] = (80, 80),
    rate: int = 12,
) -> list[Path]:
    """Write `count` random clips as .mp4 files into `folder`, and return their paths in order.

    Clip i depends only on (seed, i), so a longer list starts with the shorter one. The file name encodes
    the settings. An existing file of that name is complete and is not written again.

    Args:
        folder: Folder for the files, created if missing.
        count: Number of clips.
        seed: Random seed.
        frames: Number of frames per clip.
        size: (height, width), both even.
        rate: Frames per second.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    height, width = size
    paths = []
    for index in range(count):
        path = folder / f"shapes_{frames}x{height}x{width}_rate{rate}_seed{seed}_{index:05d}.mp4"
        if not path.exists():
            video = moving_shapes(generator(seed, Purpose.SYNTHETIC_CLIP, index), frames, size)
            write_video(path, video, rate, near_lossless=True)
        paths.append(path)
    return paths


def write_labelled_motions(
    folder: str | os.PathLike,
    count: int,
    *,
    seed: int = 0,
    frames: int = 24,
    size: tuple[int, int] = (80, 80),
    rate: int = 12,
) -> list[Path]:
    """Write `count` random clips of LABELLED motions, in one folder per label, and return their paths.

    The labels alternate. Clip i depends only on (seed, i). Existing files are not written again. The
    arguments are the same as in `write_moving_shapes`.
    """
    paths = []
    for index in range(count):
        label = list(LABELLED)[index % len(LABELLED)]
        path = (
            Path(folder) / label / f"motion_{frames}x{size[0]}x{size[1]}_seed{seed}_{index:05d}.mp4"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            scene = random_motion(generator(seed, Purpose.SYNTHETIC_CLIP, index), label)
            write_video(path, draw_scene(scene, frames, size), rate, near_lossless=True)
        paths.append(path)
    return paths


def _centres(scene: Scene, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Return the shape's centre in each frame: float32 (frames, 2) as (x, y) in pixels."""
    side = np.array([size[1], size[0]], "float64")
    margin = scene.radius * min(size)
    time = np.arange(frames)[:, None]
    if scene.motion == "circle":
        # Around the centre of the picture, at a radius that keeps the shape inside.
        orbit = (side / 2 - margin) * 0.85
        step = scene.speed * min(size) / orbit.min() * (1 if scene.clockwise else -1)
        angle = scene.direction + step * time
        return (side / 2 + orbit * np.hstack([np.cos(angle), np.sin(angle)])).astype("float32")
    room = side - 2 * margin
    heading = np.array([math.cos(scene.direction), math.sin(scene.direction)])
    walked = np.array(scene.position) * room + scene.speed * min(size) * heading * time
    folded = room - np.abs(walked % (2 * room) - room)  # walls reflect
    return (margin + folded).astype("float32")


def _distance(shape: str, right: np.ndarray, down: np.ndarray, radius: float) -> np.ndarray:
    """Return the distance to the shape's border in pixels, negative inside. All shapes have equal area."""
    if shape == "disc":
        return np.hypot(right, down) - radius
    sides = _SIDES[shape]
    inner = radius * math.sqrt(math.pi / (sides * math.tan(math.pi / sides)))
    normals = math.pi / 2 + 2 * math.pi * np.arange(sides) / sides  # one side lies at the bottom
    return np.max([math.cos(a) * right + math.sin(a) * down for a in normals], axis=0) - inner
