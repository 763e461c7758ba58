"""Tests of the oracle's layouts and memory, counted by hand on a small model."""

from __future__ import annotations

import pytest

from backends_tests.oracle.small_model import small_config
from spec.config import Config
from spec.memory_reference import device_memory, part

clause = pytest.mark.clause
BLOCK = "encoder/block_3/"
G = "decoder/block_0/mlp/"


@clause("LAYOUT-1")
@pytest.mark.parametrize(
    ("path", "shape", "devices", "held"),
    [
        (BLOCK + "attention/qkv/kernel", (8, 24), 4, (2, 24)),
        (BLOCK + "mlp/output/kernel", (6, 8), 4, (6, 2)),  # the first axis is not divided
        (BLOCK + "mlp/output/kernel", (6, 9), 4, (6, 9)),
        (BLOCK + "mlp/hidden/lora_kernel_a", (8, 4), 4, (2, 4)),
        (BLOCK + "mlp/hidden/bias", (8,), 4, (8,)),
        (BLOCK + "norm1/gamma", (8,), 4, (8,)),
        ("mask_token", (1, 1, 8), 4, (1, 1, 8)),
        ("tubelet_embedding/positions", (12, 8), 4, (3, 8)),
        (G + "hidden/kernel", (512, 2234), 64, (8, 2234)),
        (G + "output/kernel", (2234, 512), 64, (2234, 8)),
    ],
)
def test_fully_sharded_parts_are_cut_along_the_first_axis_that_can_be(path, shape, devices, held):
    assert part(path, shape, "fsdp", devices) == held
    assert part(path, shape, "data", devices) == shape


@clause("LAYOUT-2")
@pytest.mark.parametrize(
    ("path", "shape", "held"),
    [
        (BLOCK + "attention/qkv/kernel", (8, 24), (8, 6)),
        (BLOCK + "attention/projection/kernel", (8, 8), (2, 8)),
        (BLOCK + "attention/projection/bias", (8,), (8,)),
        (BLOCK + "attention/q_bias", (8,), (8,)),
        (BLOCK + "mlp/hidden/kernel", (8, 20), (8, 5)),
        (BLOCK + "mlp/hidden/bias", (20,), (5,)),
        (BLOCK + "mlp/output/kernel", (20, 8), (5, 8)),
        (G + "hidden/kernel", (512, 2234), (512, 2234)),
        (G + "output/kernel", (2234, 512), (2234, 512)),
        ("tubelet_embedding/kernel", (96, 8), (96, 8)),
        ("bridge/kernel", (8, 12), (8, 12)),
        ("head/kernel", (12, 96), (12, 96)),
    ],
)
def test_tensor_parallel_cuts_what_a_layer_computes_then_what_the_next_one_reads(path, shape, held):
    assert part(path, shape, "tensor", 4) == held


# small_config(): P 96; encoder 2 x (D 8, 2 heads, Dm 20), decoder 1 x (12, 3, 28); clips 4 x 8 x 12 x 3.
KERNELS = {  # embedding, an encoder block, a decoder block, bridge, head
    "outside": 96 * 8 + 8 * 12 + 12 * 96,
    "encoder": 8 * 24 + 8 * 8 + 8 * 20 + 20 * 8,
    "decoder": 12 * 36 + 12 * 12 + 12 * 28 + 28 * 12,
}
OTHERS = (8 + 2 * (2 * 16 + 24 + 20 + 8) + 16) + (12 + (2 * 24 + 36 + 28 + 12) + 24 + 96)
BATCH = {"visible": 4, "decoded": 6, "decoder_mask": True}


@clause("MEMORY-1", "MEMORY-2", "MEMORY-3", "MEMORY-4", "MEMORY-5", "MEMORY-6")
def test_one_device_counted_by_hand():
    got = device_memory(small_config(), parallel="data", devices=1, clips=3, **BATCH)
    numbers = KERNELS["outside"] + 2 * KERNELS["encoder"] + KERNELS["decoder"] + OTHERS
    encoder = 4 * (4 * (6 * 8 + 2 * 20) + 8 * 8)
    decoder = 10 * (4 * (6 * 12 + 2 * 28) + 8 * 12)
    assert got == {
        "weights": 4 * numbers,
        "optimizer": 8 * numbers,
        "gradients": 4 * numbers,
        "batch": 3 * (4 * 8 * 12 * 3 + 4 * 4 + 4 * 6 + 4 * 6),
        "activations": 3 * (2 * encoder + decoder + 4 * (4 + 6 + 6) * 96),
        "attention": 3 * 4 * (2 * 2 * 16 + 3 * 100),
        "copies": 0,
    }


@clause("MEMORY-1", "MEMORY-4", "MEMORY-5", "MEMORY-6")
def test_four_devices_with_every_option_counted_by_hand():
    options = {"mixed": True, "remat": True, "average": True, "accumulates": True}
    got = device_memory(small_config(), parallel="fsdp", devices=4, clips=1, **BATCH, **options)
    numbers = KERNELS["outside"] + 2 * KERNELS["encoder"] + KERNELS["decoder"]
    assert got["weights"] == numbers + 4 * OTHERS
    assert got["optimizer"] == 4 * got["weights"]
    largest = 10 * (2 * (6 * 12 + 2 * 28) + 8 * 12)
    inputs = 2 * (4 * 8 * 2) + 10 * 12 * 2
    assert got["activations"] == inputs + largest + 4 * (4 + 6 + 6) * 96
    assert got["attention"] == (4 + 2) * 3 * 100
    assert got["copies"] == 2 * (KERNELS["outside"] + KERNELS["decoder"])


@clause("MEMORY-1", "MEMORY-4", "MEMORY-5", "MEMORY-6")
def test_tensor_parallel_divides_heads_and_the_mlp_and_copies_nothing():
    got = device_memory(small_config(), parallel="tensor", devices=4, clips=1, **BATCH)
    whole = KERNELS["outside"] + OTHERS - 2 * 20 - 28
    assert got["weights"] == 4 * whole + 2 * (KERNELS["encoder"] + 20) + KERNELS["decoder"] + 28
    encoder = 4 * (4 * (2 * 8 + 4 * 8 // 2 + 2 * 5) + 8 * 8)  # four devices, two heads
    decoder = 10 * (4 * (6 * 12 + 2 * 7) + 8 * 12)  # three heads
    assert got["activations"] == 2 * encoder + decoder + 4 * (4 + 6 + 6) * 96
    assert got["attention"] == 4 * (2 * 1 * 16 + 3 * 100)
    assert got["copies"] == 0


@clause("MEMORY-1", "MEMORY-3")
def test_of_the_largest_model_a_64th_and_its_small_weights():
    config = Config.variant("v2-g")
    sizes = {"visible": 208, "decoded": 1024, "decoder_mask": True, "clips": 8}
    one = device_memory(config, parallel="data", devices=64, **sizes)
    assert one["weights"] == 4 * 1026306560
    sharded = device_memory(config, parallel="fsdp", devices=64, **sizes)
    assert 4 * 1026306560 / 64 < sharded["weights"] < 1.05 * 4 * 1026306560 / 64
    assert sharded["batch"] == 8 * (16 * 224 * 224 * 3 + 4 * (208 + 1024) + 4 * 1024)
