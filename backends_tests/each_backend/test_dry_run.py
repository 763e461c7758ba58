"""Tests of steps compiled for many simulated devices, in a new process and without allocation; JAX only."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import pytest

from backends_tests.profiles import NIGHTLY
from backends_tests.support import BACKEND, ROOT
from spec.weight_table import expand
from vmae_keras import VideoMAEConfig
from vmae_keras.backend import PARALLEL
from vmae_keras.distribution import Devices
from vmae_keras.distribution.memory import pretraining_memory
from vmae_keras.recipes.pretraining import RECIPES
from vmae_keras.training.dry_run import Setup, collectives, compile_in_worker, exchanged

pytestmark = pytest.mark.skipif(BACKEND != "jax", reason="XLA divides the step; on JAX alone")
COUNTERS = 12  # bytes: the optimizer's update counter; the loss's total and count

SHORT = {"depth": 1, "decoder_depth": 1}  # all blocks are alike, and each takes seconds to compile
SHORT_B = VideoMAEConfig.variant("v1-b", **SHORT)
# XLA moves the smaller operand, which would be the activations if the batch had fewer tokens than an MLP is
# wide.
CLIPS, VISIBLE = 32, 160
V1 = dataclasses.replace(RECIPES["v1-k400-b"], batch_size=CLIPS, repeats=1)
G = VideoMAEConfig.variant("v2-g")
V2 = dataclasses.replace(
    RECIPES["v2-hybrid-g"], batch_size=8 * 64, repeats=1, precision="mixed_bfloat16"
)
ALL = dataclasses.replace(V2, average_decay=0.9, accumulate=2)
SETUPS = {
    **{parallel: Setup(SHORT_B, V1, 4, parallel) for parallel in PARALLEL},
    "short g": Setup(G.replace(**SHORT), ALL, 64, "fsdp"),
}
if NIGHTLY:  # all 44 blocks take a minute and a half
    SETUPS["g"] = Setup(G, V2, 64, "fsdp")


@pytest.fixture(scope="module")
def results():
    return dict(zip(SETUPS, compile_in_worker(list(SETUPS.values())), strict=True))


def kernels(config):
    """Return the shape of each kernel."""
    weights = expand(config, "pretraining")
    return [weight.shape for path, weight in weights.items() if path.endswith("kernel")]


def expected(name):
    setup = SETUPS[name]
    return pretraining_memory(setup.config, setup.recipe, Devices(setup.devices, setup.parallel))


@pytest.mark.clause("LAYOUT-3", "MEMORY-1", "MEMORY-3")
@pytest.mark.parametrize("name", SETUPS)
def test_the_step_takes_what_was_expected_to_the_byte(name, results):
    got, right = results[name], expected(name)
    counters = got.state_bytes - right.state
    assert 0 < counters <= COUNTERS and counters % 4 == 0
    assert got.batch_bytes == right.batch
    assert got.argument_bytes == right.state + right.batch + COUNTERS


@pytest.mark.clause("LAYOUT-1")
def test_data_parallel_adds_up_gradients_and_nothing_else(results):
    found = results["data"].collectives
    assert {each.kind for each in found} == {"all-reduce"}
    weights = expand(SHORT_B, "pretraining").values()
    numbers = sum(math.prod(weight.shape) for weight in weights)
    ((count, size),) = exchanged(found).values()
    # The loss is two scalars. Query and value biases come from one sum, with zeros for keys between them.
    keys = SHORT_B.depth * SHORT_B.dim + SHORT_B.decoder_depth * SHORT_B.decoder_dim
    assert size == 4 * (numbers + keys) + 8, (count, size)


@pytest.mark.clause("LAYOUT-1")
@pytest.mark.parametrize("name", [name for name in SETUPS if SETUPS[name].parallel == "fsdp"])
def test_fully_sharded_gathers_kernels_and_nothing_else(name, results):
    setup, found = SETUPS[name], results[name].collectives
    assert {each.kind for each in found} <= {"all-gather", "all-reduce", "reduce-scatter"}
    shapes = kernels(setup.config)
    gathered = [each for each in found if each.kind == "all-gather"]
    assert {each.shape for each in gathered} == set(shapes)
    if not setup.recipe.remat:  # once for the forward and backward pass
        assert sum(each.count for each in gathered) == len(shapes)


@pytest.mark.clause("LAYOUT-2")
def test_tensor_parallel_exchanges_activations_and_no_kernel(results):
    found = results["tensor"].collectives
    assert {each.kind for each in found} == {"all-gather", "all-reduce", "collective-permute"}
    shapes = {tuple(sorted(shape)) for shape in kernels(SHORT_B)}
    assert not [each for each in found if tuple(sorted(each.shape)) in shapes]
    # Projection and MLP, forward and backward, sum over devices in each block.
    summed = (CLIPS, VISIBLE, SHORT_B.dim)
    counts = {(each.kind, each.shape): each.count for each in found}
    assert counts["all-reduce", summed] == 4 * SHORT_B.depth
    # Splits of qkv into thirds, instead of between heads, are gathered.
    assert counts["all-gather", (CLIPS, VISIBLE, 3 * SHORT_B.dim)] == SHORT_B.depth
    moved = [each for each in found if each.kind == "collective-permute"]
    assert all(len(each.shape) == 1 for each in moved)  # biases


@pytest.mark.skipif(not NIGHTLY, reason="compiled with --nightly")
@pytest.mark.clause("LAYOUT-1", "LAYOUT-3")
def test_the_largest_model_is_compiled_for_64_devices_without_being_allocated(results):
    state = 12 * sum(math.prod(w.shape) for w in expand(G, "pretraining").values())
    assert state > 12e9
    # Measured: 2.0 GB.
    assert results["g"].host_bytes < 0.3 * state
    assert results["g"].state_bytes < 1.05 * state / 64


ALLOCATED = """
import collections, json, jax
jax.config.update("jax_num_cpu_devices", 4)
from vmae_keras import VideoMAE, VideoMAEConfig
from vmae_keras.distribution.jax_devices import keras_distribution
from vmae_keras.training.optimizer import AdamW

with keras_distribution(jax.devices(), "fsdp").scope():
    model = VideoMAE(VideoMAEConfig.variant("v1-b", depth=1, decoder_depth=1))
    model.compile(AdamW())
    model.optimizer.build(model.trainable_variables)
held = collections.Counter()
for variable in model.trainable_variables + model.optimizer.variables:
    for part in variable.value.addressable_shards:
        held[part.device.id] += part.data.nbytes
print(json.dumps([list(held.values()), 12 * model.count_params()]))
"""


@pytest.mark.clause("LAYOUT-1", "LAYOUT-3", "MEMORY-1")
def test_of_weights_and_optimizer_each_of_four_devices_really_holds_a_quarter(results):
    output = subprocess.run(
        [sys.executable, "-c", ALLOCATED],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"},
    ).stdout
    held, whole = json.loads(output)
    right = pretraining_memory(SHORT_B, V1, Devices(4, "fsdp"))
    assert held == [right.state + 8] * 4  # the optimizer's rate and number of updates
    assert max(held) < 0.35 * whole  # measured: .251


def test_collectives_are_read_out_of_a_programs_text():
    text = """
  %a.1 = f32[8,4]{1,0} all-gather(%b), dimensions={0}
  %a.2 = (f32[8,4]{1,0}, f32[]) all-reduce(%b, %c), to_apply=%add
  %a.3 = f32[8,4]{1,0} get-tuple-element(%a.2), index=0
  ROOT %a.4 = bf16[2]{0} collective-permute(%d)
"""
    found = {(each.kind, each.shape, each.dtype): each.count for each in collectives(text)}
    assert found == {
        ("all-gather", (8, 4), "f32"): 1,
        ("all-reduce", (8, 4), "f32"): 1,
        ("all-reduce", (), "f32"): 1,
        ("collective-permute", (2,), "bf16"): 1,
    }
    assert exchanged(collectives(text))["all-reduce"] == (2, 132)
