"""Draw the moving picture of the README: clips, what the model saw, and its reconstructions.

    python scripts/moving_picture.py RUN CLIP [CLIP ...] --out docs/reconstruction.webp

RUN is the folder of a run of `vmae pretrain`, as `bash scripts/demo.sh` leaves it. Each clip is a row.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vmae_keras.pictures.clips import INK, PAPER
from vmae_keras.pictures.reconstruction import load_model, reconstruct
from vmae_keras.runs.run import Run

SIDE, GAP, LINE = 192, 8, 26
FRAME, LAST_FRAME = 160, 800  # milliseconds that a frame is shown


def rows_of(run, paths):
    """Return the label of each column, and three videos (T, H, W, 3) for each clip."""
    model, _ = load_model(run)
    recipe = run.settings().recipe
    names = ("sampling", "stride", "mask", "mask_ratio")
    options = {name: getattr(recipe, name) for name in names}
    found = [reconstruct(model, path, seed=number, **options) for number, path in enumerate(paths)]
    seen = found[0].labels[1].replace("what the model saw", "seen")
    return ("clip", seen, "reconstruction"), [(f.clip, f.masked, f.rebuilt) for f in found]


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
