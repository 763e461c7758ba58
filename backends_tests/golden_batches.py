"""Summary numbers of the first batch of each stage, which pin what is drawn and in which order.

    python -m backends_tests.golden_batches

regenerates golden_batches.json. It holds numbers and not a hash of the pixels, because another version of
Pillow or libm may round differently while the draws are the same.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

import vmae_keras
from backends_tests import stages
from vmae_keras.data.random_streams import DRAWS, Purpose, generator, keras_seed
from vmae_keras.evaluation.probes.probing import held_out_places

FILE = Path(__file__).with_name("golden_batches.json")
SEED = 7
MODEL = {"frames": 4, "height": 32, "width": 32, "tubelet": (2, 8, 8)}
TRAINING = {"batch_size": 4, "repeats": 2, "validation": 0.25, "stride": 3}
RECIPES = {
    "pretraining": {"mask_ratio": 0.75, "decoder_mask_ratio": 0.5},
    "fine-tuning": {"auto_augment": "rand-m7-n4-mstd0.5-inc1", "mixup": 0.8, "cutmix": 1.0},
    "distillation": {"auto_augment": "rand-m7-n4-mstd0.5-inc1", "mixup": 0.8, "cutmix": 1.0},
}


def batches(folder: Path) -> dict:
    """Return {stage: numbers} of the first training batch and the validation batch."""
    (folder / "videos").mkdir()
    stages.write_videos(folder / "videos", 12)
    found = {}
    for stage, recipe in RECIPES.items():
        with pytest.MonkeyPatch.context() as patch:
            given = (
                patch,
                stage,
                folder / "videos",
                folder / stage,
                MODEL,
                TRAINING | recipe,
                SEED,
            )
            seen = stages.run(patch, stages.begun(*given), folder / stage)
        found[stage] = {
            "batch": _numbers(seen["fit.batches"][0]),
            "validation": _numbers(seen["fit.validation_data"]),
        }
    of_class = np.repeat(np.arange(3), 8)
    found["probe"] = {
        "held out": held_out_places(np.arange(24), of_class, 0.25, SEED).tolist(),
        "order": generator(SEED, Purpose.PROBE_ORDER, 0).permutation(24).tolist(),
    }
    found["first weights"] = {"seed of Keras": keras_seed(SEED)}
    return found


def _numbers(arrays) -> list:
    """Summarise each array: row means, or a hash for ids."""
    values = []
    for array in arrays:
        if isinstance(array, dict):
            values += _numbers([array[name] for name in sorted(array)])
        elif array.dtype == np.int32:
            values.append(hashlib.sha256(array.astype("<i4").tobytes()).hexdigest()[:16])
        else:
            share = array / 255 if array.dtype == np.uint8 else array
            weighted = share.reshape(len(array), -1) @ np.linspace(-1, 1, array[0].size)
            values.append([round(float(value) / array[0].size, 6) for value in weighted])
    return values


def main():
    """Write golden_batches.json."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = {"version": vmae_keras.__version__, "draws": DRAWS, **batches(Path(folder))}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in made.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
