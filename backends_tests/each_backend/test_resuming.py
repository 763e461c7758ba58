"""Tests of resuming killed runs: in half precision with LoRA, averages, patience; on another backend."""

import shutil
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from backends_tests.compare import assert_close
from backends_tests.each_backend.test_finetune import CONFIG, SETTINGS, clips, curve
from backends_tests.each_backend.test_pretrain import (
    SMALL,
    once,
    run,
    run_until,
    start,
    weights,
)
from backends_tests.support import numpy
from vmae_keras import load
from vmae_keras.backend import installed
from vmae_keras.presets import by_path

__all__ = ["clips"]  # a fixture


def same_tensors(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)


@pytest.mark.clause("RESUME-1", "RESUME-3", "OPT-6", "FT-9", "FT-10")
def test_lora_averages_and_patience_in_half_precision_come_back_after_a_kill(clips, tmp_path):
    """Check recovery when the averages hardly change, so that no validation is better than the first."""
    names = ("frames", "height", "width", "tubelet", "dim", "depth", "heads", "mlp_dim")
    options = {
        **{name: getattr(CONFIG, name) for name in names},
        "precision": "mixed_float16",
        "lora_rank": 2,
        "average_decay": 1 - 1e-9,
        "accumulate": 5,
        "patience": 1,
        "warmup_epochs": 0,  # with warm-up the first update would change nothing
    }
    changes = [word for item in options.items() for word in ("--set", "{}={}".format(*item))]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, text = run("finetune", clips, "--out", whole, *SETTINGS, *changes)
    assert code == 0, text
    shutil.copytree(whole, killed)  # the state of a kill before the checkpoint of the last step
    (killed / "checkpoints/step-00000012.safetensors").unlink()
    for part in ("checkpoints", "best"):
        (killed / part / "writing.partial").write_bytes(b"half")
    code, text = run("finetune", "--out", killed, "--resume", "--set", "precision=float32")
    assert code == 1 and "with its own settings. Received: --set" in text.replace("\n", " ")
    code, text = run("finetune", "--out", killed, "--resume")
    assert code == 0 and "Continuing after step 6" in text, text
    assert "Ended early after 12 of 24 steps. The best weights are those of step 6." in text
    assert curve(killed) == curve(whole)
    same_tensors(weights(killed), weights(whole))
    assert weights(whole).get("optimizer/loss_scale_optimizer/step_counter") == 12
    assert not list(killed.rglob("writing*"))
    (kept,) = (killed / "best").iterdir()
    best = load_file(kept)
    same_tensors(best, load_file(whole / "best/step-00000006.safetensors"))

    # A trained run is loaded with the averages of its best weights, with LoRA's products merged.
    def average(path):
        return best[f"optimizer/adamw/video_classifier_{path.replace('/', '_')}_average"]

    for precision in ("float32", "mixed_bfloat16"):
        found = by_path(load(killed, dtype=precision))
        for path, variable in found.items():
            if path.endswith("/kernel") and "/block_0/" in path:
                factors = (
                    average(f"{path.removesuffix('kernel')}lora_kernel_{part}") for part in "ab"
                )
                expected = best[f"video_classifier/{path}"] + np.matmul(*factors)
            elif path.startswith(("fc_norm", "head")):
                expected = average(path)
            else:
                expected = best[f"video_classifier/{path}"]
            np.testing.assert_array_equal(numpy(variable.value), expected, err_msg=path)
    code, text = run("finetune", "--out", killed, "--resume")  # the run has finished
    assert code == 0 and "Ended early after 12" in text and curve(killed) == curve(whole)
    (killed / "best/step-00000006.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="best"):
        load(killed)


@once
@pytest.mark.clause("RESUME-2")
def test_a_run_resumes_under_another_backend_and_back(clips, tmp_path):
    """Check a run that PyTorch begins and ends, with steps of another backend between."""
    other = next((name for name in ("jax", "tensorflow") if name in installed()), None)
    if other is None:
        pytest.skip("needs a second backend")
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    changes = [*SMALL, "--set", "drop_path=0.0", "--set", "average_decay=0.9"]
    code, text = run("pretrain", clips, "--out", whole, *changes)
    assert code == 0, text
    run_until(9, "pretrain", clips, "--out", moved, *changes)
    code, text = start(
        "pretrain",
        "--out",
        moved,
        "--resume",
        "--backend",
        other,
        KERAS_BACKEND=other,
        SIGNALLED=f"trainer 15 {signal.SIGKILL.value}",
    )
    assert code == -signal.SIGKILL, text
    note = f"was trained with torch so far, and resumes with {other}. Its results differ only by rounding"
    assert note in text.replace("\n", " ")
    code, text = run("pretrain", "--out", moved, "--resume")
    # the run's backend by now is PyTorch
    assert code == 1 and f"cannot change to '{other}'" in text
    code, text = run("pretrain", "--out", moved, "--resume", "--backend", "torch")
    assert code == 0 and f"was trained with {other} so far" in text.replace("\n", " "), text
    for mine, theirs in zip(curve(moved), curve(whole), strict=True):
        assert mine["step"] == theirs["step"]
        for name in ("loss", "validation_loss"):
            found, expected = (float(row[name] or 0) for row in (mine, theirs))
            assert_close(found, expected, "resumed.loss", what=name)
    mine, theirs = weights(moved), weights(whole)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert_close(mine[name], value, "resumed.weight", what=name)
