"""Pretraining and fine-tuning of a small model in one process or several, for tests of equal results.

    python -m backends_tests.many_devices CLIPS LABELS OUT NAME=DEVICES[,PARALLEL] ...

Each NAME is a folder in OUT with the run `pretrained` and, if no PARALLEL is given, `fine-tuned`.
"""

import sys
from pathlib import Path

from rich.console import Console

from backends_tests.support import BACKEND
from vmae_keras import distribution
from vmae_keras.training import callbacks, new_run

MODEL = {
    "height": 16,
    "width": 24,
    "tubelet": "(2,4,4)",
    "frames": 4,
    "dim": 32,
    "depth": 2,
    "heads": 4,
    "mlp_dim": 64,
    "drop_path": 0.2,
}
# Everything that splitting the batch could change. Pretraining: drop-path, per-clip loss weights (running
# cells), gradient-norm limits, averages. Fine-tuning: mixed clips, head dropout, repetitions. Both:
# gradient accumulation, except on TensorFlow, which cannot accumulate on several devices.
SOME = {} if BACKEND == "tensorflow" else {"accumulate": 2}
PRETRAINING = (
    MODEL
    | SOME
    | {
        "decoder_dim": 16,
        "decoder_depth": 1,
        "decoder_heads": 4,
        "decoder_mask_ratio": 0.5,
        "batch_size": 8,
        "epochs": 2,
        "warmup_epochs": 0,
        "repeats": 1,
        "clip_norm": 0.5,
        "average_decay": 0.9,
    }
)
FINE_TUNING = (
    MODEL
    | SOME
    | {
        "batch_size": 8,
        "epochs": 2,
        "warmup_epochs": 0,
        "repeats": 2,
        "head_dropout": 0.3,
        "layer_decay": 0.7,
    }
)


def changes(values):
    return [f"{name}={value}" for name, value in values.items()]


def main(clips, labels, out, *runs):
    from vmae_keras.runs.run import Run

    for each in runs:
        name, value = each.split("=")
        devices, *parallel = value.split(",")
        used = distribution.start(BACKEND, int(devices) or None, *parallel)
        from vmae_keras.training.display import Display
        from vmae_keras.training.fine_tuning import finetune
        from vmae_keras.training.pretraining import pretrain
        from vmae_keras.training.session import Session

        for stage, train, settle, data, values in (
            ("pretrained", pretrain, new_run.prepare_pretraining, clips, PRETRAINING),
            ("fine-tuned", finetune, new_run.prepare_fine_tuning, labels, FINE_TUNING),
        ):
            if parallel and stage == "fine-tuned":
                continue  # the distributed code is the same there
            run = Run(Path(out) / name / stage, used.process)
            settings, files = settle(run, data, changes=changes(values), seed=1, backend=BACKEND)
            train(Session(settings, run, Display(Console(quiet=True)), files=files, devices=used))


if __name__ == "__main__":
    callbacks.SAVE_SECONDS, callbacks.SAVE_SHARE = 0.0, 1e9
    if BACKEND == "torch":
        from vmae_keras.distribution import torch_devices

        torch_devices.BUCKET_BYTES = 4096  # gives this small model several buckets
    main(*sys.argv[1:])
