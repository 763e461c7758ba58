"""Tests of each stage's public function, from recipe and videos to weights, against torch in float64.

Torch receives batches made by hand. The backends agree with each other as closely as with torch.
"""

import numpy as np
import pytest
import torch
from keras import ops
from safetensors.numpy import load_file
from torch.nn import functional

from backends_tests import by_hand, stages
from backends_tests.compare import assert_close
from backends_tests.oracle.torch_witness import Witness
from backends_tests.support import SEED_SHIFT, assign, by_path
from spec import distillation_reference, reference, training_reference
from vmae_keras import VideoClassifier, backend
from vmae_keras.runs.run import Run
from vmae_keras.training import distillation, fine_tuning, pretraining
from vmae_keras.training.session import Session

FILES, SEED = 12, 7
MODEL = {
    "frames": 4,
    "height": 32,
    "width": 32,
    "tubelet": (2, 8, 8),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.6, 0.7, 0.8),
    "dim": 8,
    "heads": 2,
    "mlp_dim": 16,
    "decoder_dim": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "decoder_mlp_dim": 16,
}
# Three epochs of three steps, one update per two steps: two of warm-up, one at the peak, one half-way down.
STEPS, UPDATES, WARMUP = 9, 4, 2
RECIPE = {
    "epochs": 3,
    "warmup_epochs": 1.4,
    "batch_size": 4,
    "repeats": 2,
    "accumulate": 2,
    "validation": 0.25,
    "base_learning_rate": 0.32,
    "minimum_learning_rate": 0.1,
    "weight_decay": 0.5,
    "beta_1": 0.8,
    "beta_2": 0.9,
    "clip_norm": 0.5,
    "average_decay": 0.7,
    "stride": 3,
}
MASKS = {"mask": "random", "mask_ratio": 0.6, "decoder_mask_ratio": 0.5}
FINE_TUNING = RECIPE | {
    "layer_decay": 0.6,
    "drop_path": 0.3,
    "head_dropout": 0.4,
    "label_smoothing": 0.2,
    "mixup": 0.6,
    "cutmix": 2.0,
    "mixup_probability": 0.9,
    "auto_augment": "rand-m6-n2-mstd0.4-inc1",
    "crop_area": (0.3, 0.6),
    "crop_aspect": (0.8, 1.1),
    "flip_probability": 0.4,
    "erasing_probability": 0.6,
}
DISTILLATION = FINE_TUNING | {
    "label_smoothing": 0.0,
    "temperature": 2.5,
    "drop_path": 0.0,
    "head_dropout": 0.0,
}
# Uniform numbers per step, of drop-path (depth, 2, B) and of head dropout (B, D), selected by their axes.
DRAWN = {
    len(shape): np.random.default_rng(0).random((STEPS, *shape)).astype("float32")
    for shape in ((2, 2, 8), (8, MODEL["dim"]))
}


def drawn(shape, axis, seed):
    """Replace a draw of `keras.random` by this step's numbers; the seed state counts the uses."""
    use = ops.cast(ops.convert_to_tensor(seed.next())[1], "int32")
    return ops.take(ops.convert_to_tensor(DRAWN[len(shape)]), use, axis=0)


def kept(axes, rates):
    """Return the keep factors of every step. BLOCK-7, FT-3."""
    survive = 1 - np.asarray(rates, np.float64)
    return (DRAWN[axes] < survive) / survive


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Limit torch to one thread, as several only wait for each other in models this small."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Write a folder of videos as high as the clips, so views are not resized; return it and the frames."""
    folder = tmp_path_factory.mktemp("videos")
    return folder, stages.write_videos(folder, FILES, height=32)


def carried_out(patch, stage, module, folder, data, recipe, depth):
    """Run a stage; return its settings, initial weights, rows of the log and final tensors."""
    patch.setattr(backend, "uniform_of_batch", drawn)
    chosen = stages.begun(patch, stage, data, folder, MODEL | {"depth": depth}, recipe, SEED)
    build, weights = module.build, {}

    def with_weights(*given):
        model, schedule = build(*given)
        shapes = {name: tuple(weight.shape) for name, weight in by_path(model).items()}
        drawn_weights = training_reference.random_weights_of(
            shapes, np.random.default_rng(SEED_SHIFT)
        )
        weights.update({name: value.astype("float32") for name, value in drawn_weights.items()})
        assign(model, weights)
        return model, schedule

    patch.setattr(module, "build", with_weights)
    run = Run(folder)
    stages.TRAIN[module](Session(chosen, run, stages.display({})))
    return chosen, weights, run.rows(), load_file(run.checkpoints / f"step-{STEPS:08}.safetensors")


def torchs(chosen, weights, loss_of, validate):
    """Return torch's losses of every step, validation losses of the averages, and final weights."""
    recipe, depth = chosen.recipe, chosen.config.depth
    witness = Witness(chosen.config, weights)
    decay = getattr(recipe, "layer_decay", 1.0)
    groups = [
        {
            "params": [weight],
            "scale": training_reference.layer_decay_scale(name, depth, decay),
            "weight_decay": recipe.weight_decay
            if training_reference.decayed(name, weights[name].shape)
            else 0.0,
        }
        for name, weight in witness.weights.items()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(recipe.beta_1, recipe.beta_2), eps=1e-8)
    averages = {name: value.astype("float64") for name, value in weights.items()}
    losses, validations, norms = [], [validate(weights)], []
    for step in range(STEPS):
        loss = loss_of(witness, step)
        (loss / recipe.accumulate).backward()
        losses.append(loss.item())
        update, rest = divmod(step + 1, recipe.accumulate)
        if not rest:
            parameters = list(witness.weights.values())
            norms.append(torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm).item())
            for group in optimizer.param_groups:
                group["lr"] = group["scale"] * training_reference.learning_rate(
                    update - 1,
                    base=recipe.base_learning_rate,
                    minimum=recipe.minimum_learning_rate,
                    videos_per_step=8,
                    warmup_steps=WARMUP,
                    total_steps=UPDATES,
                )
            optimizer.step()
            optimizer.zero_grad()
            for name, weight in witness.weights.items():
                held = recipe.average_decay * averages[name]
                averages[name] = held + (1 - recipe.average_decay) * weight.detach().numpy()
        if step % 3 == 2:
            validations.append(validate(averages))
    assert min(norms) > recipe.clip_norm
    updated = {name: weight.detach().numpy() for name, weight in witness.weights.items()}
    return losses, validations, updated


def compare(found, expected):
    """Compare the log's rows, each the mean of an epoch's three losses, and the last weights."""
    _, weights, rows, tensors = found
    losses, validations, updated = expected
    logged = [row["loss"] for row in rows if row["loss"] is not None]
    means = np.reshape(losses, (3, 3)).mean(1)
    validated = [row["validation_loss"] for row in rows]
    for loss, wanted in zip([*logged, *validated], [*means, *validations], strict=True):
        assert_close(loss, wanted, "stage.loss")
    largest = max(np.abs(updated[name] - weights[name]).max() for name in weights)
    for name in weights:
        kept_as = {key for key in tensors if key.endswith(f"/{name}")}
        (mine,) = (key for key in kept_as if not key.startswith("optimizer/"))
        assert_close(tensors[mine], updated[name], "stage.weight", largest, name)


def parts(videos, by_class):
    """Return frames and labels of the training videos and of the held-out ones."""
    labels = [number // 4 for number in range(FILES)]
    held = by_hand.held_out(FILES, 0.25, SEED, labels if by_class else None)
    kept_ones = [place for place in range(FILES) if place not in held]
    return [
        ([videos[p] for p in places], [labels[p] for p in places]) for places in (kept_ones, held)
    ]


@pytest.mark.clause(
    "OPT-2", "OPT-3", "OPT-4", "OPT-5", "OPT-6", "BLOCK-7", "LOSS-1", "LOSS-2", "DUAL-3"
)
def test_pretraining_equals_torchs_from_recipe_to_weights(videos, tmp_path, monkeypatch):
    folder, frames = videos
    found = carried_out(
        monkeypatch, "pretraining", pretraining, tmp_path, folder, RECIPE | MASKS, 1
    )
    chosen = found[0]
    config, given = chosen.config, (chosen.config, chosen.recipe, SEED)
    (training, _), (held, _) = parts(frames, by_class=False)

    def loss_of(witness, step):
        batch = by_hand.pretraining_batch(*given, training, step)
        target = reference.target(config, batch["video"], batch["decoded"])
        return witness.loss(batch, target)

    validation = by_hand.pretraining_validation(*given, held)
    expected = torchs(
        chosen,
        found[1],
        loss_of,
        lambda weights: reference.pretraining_loss(config, weights, validation),
    )
    compare(found, expected)


@pytest.mark.clause(
    "FT-1", "FT-3", "FT-6", "FT-7", "BLOCK-7", "MIX-1", "OPT-2", "OPT-4", "OPT-5", "OPT-6"
)
def test_fine_tuning_equals_torchs_from_recipe_to_weights(videos, tmp_path, monkeypatch):
    folder, frames = videos
    found = carried_out(monkeypatch, "fine-tuning", fine_tuning, tmp_path, folder, FINE_TUNING, 2)
    chosen = found[0]
    training, held = parts(frames, by_class=True)
    rates = training_reference.drop_path_rates(0.3, 2)[:, None, None]
    drop_path, dropout = kept(3, rates), kept(2, 0.4)

    def loss_of(witness, step):
        clips, targets = by_hand.mixed_batch(chosen.config, chosen.recipe, SEED, *training, 3, step)
        logits = witness.classify(clips, "mean", drop_path[step], torch.tensor(dropout[step]))
        return functional.cross_entropy(logits, torch.tensor(targets))

    views, targets = by_hand.centre_views(chosen.config, chosen.recipe, *held, 3)
    expected = torchs(
        chosen,
        found[1],
        loss_of,
        lambda weights: cross_entropy(chosen.config, weights, views, targets, 1.0),
    )
    compare(found, expected)


@pytest.mark.clause("DISTILL-1", "FT-1", "FT-6", "FT-7", "OPT-5")
def test_distillation_equals_torchs_from_recipe_to_weights(videos, tmp_path, monkeypatch):
    folder, frames = videos
    taught = {}

    def load_teacher(preset, config, recipe):
        teacher = VideoClassifier(config, 3)
        shapes = {name: tuple(weight.shape) for name, weight in by_path(teacher).items()}
        values = training_reference.random_weights_of(shapes, np.random.default_rng(1 + SEED_SHIFT))
        taught.update({name: value.astype("float32") for name, value in values.items()})
        assign(teacher, taught)
        return teacher

    monkeypatch.setattr(distillation, "load_teacher", load_teacher)
    found = carried_out(
        monkeypatch, "distillation", distillation, tmp_path, folder, DISTILLATION, 1
    )
    chosen = found[0]
    (training, _), (held, _) = parts(frames, by_class=False)

    def answers(clips):
        logits = reference.classify(chosen.config, taught, clips)
        return distillation_reference.softened(logits, 2.5)

    def loss_of(witness, step):
        clips, _ = by_hand.mixed_batch(
            chosen.config, chosen.recipe, SEED, training, [0] * 9, 1, step
        )
        logits = witness.classify(clips, "mean")
        target = torch.tensor(answers(clips))
        return 2.5**2 * functional.cross_entropy(logits / 2.5, target)

    views, _ = by_hand.centre_views(chosen.config, chosen.recipe, held, [0] * 3, 1)
    target = answers(views.astype(np.uint8))
    expected = torchs(
        chosen,
        found[1],
        loss_of,
        lambda weights: cross_entropy(chosen.config, weights, views, target, 2.5),
    )
    compare(found, expected)


def cross_entropy(config, weights, views, targets, temperature):
    """Return the oracle's cross-entropy of uint8 views."""
    logits = reference.classify(config, weights, views.astype(np.uint8))
    shares = distillation_reference.softened(logits, temperature)
    return -(temperature**2) * (targets * np.log(shares)).sum(1).mean()
