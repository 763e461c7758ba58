"""Draw the moving picture of the README: clips, what the model saw, and its reconstructions.

    python scripts/moving_picture.py RUN CLIP [CLIP ...] --out docs/reconstruction.webp

RUN is the folder of a run of `vmae pretrain`, as `bash scripts/demo.sh` leaves it. Each clip is a row.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vmae_keras.data.pretraining import read_clip
from vmae_keras.data.random_streams import Purpose, generator
from vmae_keras.pictures.clips import INK, PAPER
from vmae_keras.pictures.patch_statistics import masked_clip
from vmae_keras.pictures.reconstruction import load_model, reconstruct
from vmae_keras.runs.run import Run

SIDE, GAP, LINE = 192, 8, 26
FRAME, LAST_FRAME = 160, 800  # milliseconds that a frame is shown


def rows_of(run, paths):
    """Return the label of each column, and three videos (T, H, W, 3) for each clip."""
    model, _ = load_model(run)
    config, recipe = model.config, run.settings().recipe
    rows = []
    for number, path in enumerate(paths):
        clip = read_clip(
            path,
            frames=config.frames,
            height=config.height,
            width=config.width,
            stride=recipe.stride,
            sampling=recipe.sampling,
        )
        draws = generator(number, Purpose.RECONSTRUCTION_MASK)
        visible = recipe.draw_masks(config.grid, draws)["visible"]
        # All hidden tubelets are rebuilt, not only those that the decoder sees in training.
        hidden = np.setdiff1d(np.arange(config.num_tokens), visible).astype(np.int32)
        rebuilt = reconstruct(model, clip, visible, hidden, "seamless")
        rows.append((clip, masked_clip(clip, visible, config.tubelet), rebuilt))
    seen = f"seen: {len(visible)} of {config.num_tokens} tubelets"
    return ("clip", seen, "reconstruction"), rows


def picture(labels, rows, index):
    """Draw frame `index` of all clips."""
    size = (3 * (SIDE + GAP) + GAP, LINE + len(rows) * (SIDE + GAP) + GAP)
    canvas = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    for column, label in enumerate(labels):
        left = GAP + column * (SIDE + GAP)
        draw.text((left, GAP), label, INK, font)
        for row, videos in enumerate(rows):
            frame = Image.fromarray(videos[column][index])
            frame = frame.resize((SIDE, SIDE), Image.Resampling.NEAREST)
            canvas.paste(frame, (left, LINE + row * (SIDE + GAP)))
    return canvas


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("docs/reconstruction.webp"))
    arguments = parser.parse_args()
    labels, rows = rows_of(Run(arguments.run), arguments.clips)
    frames = [picture(labels, rows, index) for index in range(len(rows[0][0]))]
    times = [FRAME] * (len(frames) - 1) + [LAST_FRAME]
    options = {"quality": 90, "method": 6, "minimize_size": True, "loop": 0}
    frames[0].save(
        arguments.out, save_all=True, append_images=frames[1:], duration=times, **options
    )
    print(f"{arguments.out}: {len(frames)} frames, {arguments.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
