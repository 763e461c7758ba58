"""Tests of the memory estimate per device, against the oracle, and of the command that prints it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from spec import masks_reference, memory_reference
from spec.config import Config
from vmae_keras import VideoMAEConfig, backend
from vmae_keras.backend import PARALLEL
from vmae_keras.cli import app
from vmae_keras.distribution import Devices, DistributionError
from vmae_keras.distribution.memory import pretraining_memory
from vmae_keras.recipes.pretraining import RECIPES, PretrainingRecipe
from vmae_keras.training import dry_run

SIZES = ("v2-s", "v2-b", "v2-l", "v2-h", "v2-g")
MEMORY = ("MEMORY-1", "MEMORY-2", "MEMORY-3", "MEMORY-4", "MEMORY-5", "MEMORY-6")


def expected(config, recipe, parallel, devices, groups=1):
    ids = masks_reference.pretraining(
        config.grid,
        np.random.default_rng(0),
        kind=recipe.mask,
        ratio=recipe.mask_ratio,
        decoder_ratio=recipe.decoder_mask_ratio,
    )
    tensor = parallel == "tensor"
    return memory_reference.device_memory(
        config,
        parallel=parallel,
        devices=devices // groups if tensor else devices,
        clips=recipe.batch_size * recipe.repeats // (groups if tensor else devices),
        visible=len(ids["visible"]),
        decoded=len(ids["decoded"]),
        decoder_mask=recipe.decoder_mask_ratio is not None,
        mixed=recipe.precision != "float32",
        remat=recipe.remat,
        average=recipe.average_decay is not None,
        accumulates=recipe.accumulate > 1,
    )


@pytest.mark.clause("LAYOUT-1", "LAYOUT-2", *MEMORY)
@pytest.mark.parametrize("name", SIZES)
def test_published_models_take_what_the_oracle_says(name):
    recipe = RECIPES["v2-hybrid-g"]
    for devices in (1, 4, 8, 64):
        for parallel in PARALLEL:
            got = pretraining_memory(
                VideoMAEConfig.variant(name), recipe, Devices(devices, parallel)
            )
            right = expected(Config.variant(name), recipe, parallel, devices)
            assert dataclasses.asdict(got) == right
            counted = [value for part, value in right.items() if part != "attention"]
            assert got.total == sum(counted) and got.state == right["weights"] + right["optimizer"]


@st.composite
def recipes(draw):
    return PretrainingRecipe(
        epochs=1,
        warmup_epochs=0,
        base_learning_rate=1.0,
        batch_size=16 * draw(st.integers(1, 4)),
        repeats=draw(st.integers(1, 3)),
        accumulate=draw(st.integers(1, 2)),
        average_decay=draw(st.sampled_from([None, 0.9])),
        remat=draw(st.booleans()),
        precision=draw(st.sampled_from(["float32", "mixed_bfloat16"])),
        mask=draw(st.sampled_from(["tube", "random", "agnostic"])),
        decoder_mask_ratio=draw(st.sampled_from([None, 0.5])),
    )


@pytest.mark.clause(*MEMORY, "LAYOUT-3")
@given(
    st.sampled_from(["demo", "v1-b", "mae-b"]),
    recipes(),
    st.sampled_from(PARALLEL),
    st.sampled_from([(1, 1), (4, 2), (8, 1), (16, 4)]),
)
def test_any_recipe_takes_what_the_oracle_says(name, recipe, parallel, together):
    devices, groups = together
    config = VideoMAEConfig.variant(name)
    got = pretraining_memory(config, recipe, Devices(devices, parallel, processes=groups))
    right = expected(config, recipe, parallel, devices, groups)
    assert dataclasses.asdict(got) == right


def test_devices_that_divide_nothing_are_refused():
    config, recipe = VideoMAEConfig.variant("tiny"), RECIPES["demo"]  # 16 videos per step
    with pytest.raises(DistributionError, match="multiple of 3 "):
        pretraining_memory(config, recipe, Devices(3, "fsdp"))
    with pytest.raises(DistributionError, match="9 devices, 2 processes"):
        pretraining_memory(config, recipe, Devices(9, "tensor", processes=2))


ARGUMENTS = [
    "memory",
    "--variant",
    "v2-g",
    "--recipe",
    "v2-hybrid-g",
    "--devices",
    "64",
    "--batch-per-device",
    "8",
    "--set",
    "repeats=1",
]


def rows(output):
    """Return {title: columns} of the table."""
    lines = [line.rsplit(maxsplit=3) for line in output.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if len(cells) == 4}


def test_the_command_tells_each_way_in_gigabytes():
    done = CliRunner().invoke(app.app, ARGUMENTS, catch_exceptions=False)
    assert done.exit_code == 0
    assert "v2-g, clips of 16 x 224 x 224, float32, remat; GB on each device:" in done.output
    table = rows(done.output)
    assert table["weights"] == ["4.105", "0.067", "0.114"]
    assert table["clips of the batch"] == ["8", "8", "8"]
    config, recipe = VideoMAEConfig.variant("v2-g"), RECIPES["v2-hybrid-g"]
    recipe = dataclasses.replace(recipe, batch_size=512, repeats=1)
    found = pretraining_memory(config, recipe, Devices(64, "fsdp"))
    assert table["total *"][1] == f"{found.total / 1e9:.3f}"


def test_the_command_shows_one_way_and_refuses_what_does_not_fit(tmp_path):
    run = CliRunner()
    one = run.invoke(app.app, ["memory", "--parallel", "fsdp", "--devices", "4"])
    assert one.exit_code == 0 and "fsdp" in one.output and "tensor" not in one.output
    wrong = run.invoke(app.app, ["memory", "--devices", "3"])
    assert wrong.exit_code == 1 and "multiple of 3 " in wrong.output
    page = tmp_path / "mine.toml"
    page.write_text("[values]\nepochs = 9\nwarmup_epochs = 1\nbase_learning_rate = 1e-3\n")
    unsaid = run.invoke(app.app, ["memory", "--recipe", str(page)])
    assert unsaid.exit_code == 1 and "batch_size" in unsaid.output


FOUND = dry_run.Result(
    state_bytes=3_000_004,
    batch_bytes=1_000_000,
    lower_seconds=1.0,
    host_bytes=950_000_000,
    argument_bytes=4_000_012,
    temporary_bytes=46_000_000,
    compile_seconds=2.6,
    collectives=(
        dry_run.Collective("all-gather", (128, 512), "f32", 40),
        dry_run.Collective("all-gather", (), "f32", 2),
    ),
)


def test_the_command_tells_what_a_dry_run_found(monkeypatch):
    asked = []
    monkeypatch.setattr(
        dry_run, "compile_in_worker", lambda setups: asked.extend(setups) or [FOUND]
    )
    arguments = [
        "memory",
        "--dry-run",
        "--parallel",
        "tensor",
        "--devices",
        "8",
        "--processes",
        "2",
    ]
    done = CliRunner().invoke(app.app, arguments, catch_exceptions=False)
    assert asked == [
        dry_run.Setup(VideoMAEConfig.variant("demo"), RECIPES["demo"], 8, "tensor", processes=2)
    ]
    found = pretraining_memory(asked[0].config, asked[0].recipe, Devices(8, "tensor", processes=2))
    for line in (
        "tensor: compiled for 8 devices in 4 s",
        "  weights, optimizer, batch: 0.004000 GB as the compiler counts, "
        f"{(found.state + found.batch) / 1e9:.6f} GB expected",
        "  all-gather: 42 arrays, 0.010 GB",
        "The compiling process held at most 0.95 GB.",
    ):
        assert line in done.output.splitlines()


def test_setups_and_results_travel_between_processes_unchanged(tmp_path):
    setup = dry_run.Setup(VideoMAEConfig.variant("v2-g"), RECIPES["v2-hybrid-g"], 64, "fsdp")
    setup.save(tmp_path / "setup.json")
    FOUND.save(tmp_path / "result.json")
    assert dry_run.Setup.load(tmp_path / "setup.json") == setup
    assert dry_run.Result.load(tmp_path / "result.json") == FOUND


def test_why_there_is_no_dry_run_is_told(monkeypatch):
    setup = dry_run.Setup(VideoMAEConfig.variant("tiny"), RECIPES["demo"], 4, "fsdp")
    with pytest.raises(DistributionError, match="multiple of 5 "):
        dry_run.compile_in_worker([dataclasses.replace(setup, devices=5)])
    monkeypatch.setattr(dry_run, "run_worker", lambda *arguments: "killed by SIGKILL")
    with pytest.raises(dry_run.DryRunError, match="killed by SIGKILL"):
        dry_run.compile_in_worker([setup])
    monkeypatch.setattr(backend, "installed", lambda names: [])
    with pytest.raises(dry_run.DryRunError, match=r"pip install 'vmae-keras\[jax\]'"):
        dry_run.compile_in_worker([setup])
