"""What autograd really keeps for the backward pass, next to the estimate; PyTorch can be asked."""

import dataclasses

import pytest

from backends_tests.support import BACKEND, random_batch
from vmae_keras import VideoMAE, VideoMAEConfig
from vmae_keras.distribution import Devices
from vmae_keras.distribution.memory import pretraining_memory
from vmae_keras.training.recipe import RECIPES

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch tells what it keeps")
CONFIG = VideoMAEConfig.variant("v2-s", frames=8, height=112, width=112, decoder_depth=2)


def kept(model, batch):
    """Bytes of the arrays that autograd keeps, but for the weights."""
    import torch

    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage  # held, or another would get its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.compute_loss(x=batch, y_pred=model(batch, training=True))
    return sum(storage.nbytes() for storage in found.values())


def kept_and_expected(depth, precision):
    import torch

    config, recipe = CONFIG.replace(depth=depth), RECIPES["v2-hybrid-b"]
    recipe = dataclasses.replace(recipe, batch_size=2, repeats=1, precision=precision)
    model = VideoMAE(config, dtype=precision)
    model.compile()
    arrays = random_batch(config, 2, ratio=recipe.mask_ratio, decoder_ratio=0.5)
    batch = {name: torch.as_tensor(array) for name, array in arrays.items()}
    expected = pretraining_memory(config, recipe, Devices())
    return kept(model, batch), expected.activations + expected.copies


@pytest.mark.clause("MEMORY-4", "MEMORY-6")
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_estimate_is_near_what_is_kept(precision):
    (small, of_small), (large, of_large) = (kept_and_expected(depth, precision) for depth in (2, 6))
    # Measured of the whole: .97 and, in mixed precision, .94; of the four blocks: 1.06, 1.01.
    assert 0.85 < large / of_large < 1.1
    assert 0.9 < (large - small) / (of_large - of_small) < 1.15
