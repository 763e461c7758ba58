"""Tests of the configuration: variants, derived sizes, refusals, overrides."""

import dataclasses
import json
import math

import pytest

from vmae_keras import VideoMAEConfig
from vmae_keras.recipes.distillation import DistillationRecipe
from vmae_keras.recipes.fine_tuning import FineTuningRecipe
from vmae_keras.recipes.overrides import apply_overrides
from vmae_keras.recipes.pretraining import RECIPES, PretrainingRecipe
from vmae_keras.runs.run import Run, RunError
from vmae_keras.runs.settings import PretrainingSettings
from vmae_keras.variants import VARIANTS


def test_derived_sizes_of_a_non_square_clip():
    config = VideoMAEConfig.variant(
        "tiny", frames=6, height=24, width=40, channels=2, tubelet=(3, 8, 10)
    )
    assert config.grid == (2, 3, 4)
    assert (config.num_tokens, config.tubelet_size) == (24, 480)
    assert (config.mean, config.std) == ((0.0, 0.0), (1.0, 1.0))


@pytest.mark.clause("CONFIG-1", "IMAGE-4")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 15, "tubelet": (2, 16, 16)}, r"frames=15, tubelet=\(2, 16, 16\). Use 14 or 16"),
        ({"height": 3}, r"height=3, tubelet=\(2, 4, 4\). Use 4."),
        ({"heads": 5}, "dim=32, heads=5"),
        ({"decoder_heads": 3}, "decoder_dim=16, decoder_heads=3"),
        ({"depth": 0}, "`depth` must be a positive integer. Received: depth=0"),
        ({"width": 24.0}, "`width` must be a positive integer"),
        ({"tubelet": (2, 4)}, "`tubelet` must be three positive integers"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\), channels=3"),
        ({"drop_path": 1.0}, r"must be in \[0, 1\)"),
        ({"tubelet": (1, 1, 1)}, "Use norm_pix=False"),
        ({"planar_positions": True}, r"frames=4, tubelet=\(2, 4, 4\).*Use planar_positions=False"),
        ({"planar_positions": True, "frames": 2, "decoder_dim": 18}, "decoder_dim=18"),
        ({"class_token": 1}, "`class_token` must be True or False"),
        ({"layer_scale": float("nan")}, "`layer_scale` must be a number of at least 0"),
        ({"layer_scale": -0.1}, "`layer_scale` must be a number of at least 0"),
        ({"last_norm_epsilon": 0.0}, "epsilons must be positive"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        VideoMAEConfig.variant("tiny", **change)


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 10**6},
        {"decoder_depth": 1025},
        {"dim": 10**5},
        {"channels": 10**9},
        {"mlp_dim": 10**400},
        {"frames": 2 * 10**9},
        {"tubelet": (2, 4, 10**9), "width": 10**9},
        {"frames": 2**15, "height": 2**15, "width": 2**15},
        {"position_grid": (2**10, 2**10, 2)},
    ],
)
def test_sizes_that_no_model_has_cost_nothing(change):
    with pytest.raises(ValueError, match=r"must (be|have) at most"):
        VideoMAEConfig.variant("tiny", **change)


def test_config_is_frozen_and_hashable():
    config = VideoMAEConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.depth = 3
    assert len({config, VideoMAEConfig(), config.replace(depth=3)}) == 2


def test_unknown_variant_lists_the_known():
    with pytest.raises(ValueError, match="v1-s, v1-b"):
        VideoMAEConfig.variant("huge")


def test_all_variants_build():
    assert {VideoMAEConfig.variant(name).channels for name in VARIANTS} == {3}


def test_overrides_reach_config_and_recipe():
    config, recipe = apply_overrides(
        VideoMAEConfig.variant("tiny"),
        RECIPES["demo"],
        ["epochs=3", "tubelet=(1,4,4)", "clip_norm=1", "decoder_mask_ratio=None", "mask=random"],
    )
    assert config.tubelet == (1, 4, 4)
    assert (recipe.epochs, recipe.clip_norm, recipe.decoder_mask_ratio) == (3, 1.0, None)
    assert type(recipe.clip_norm) is float and recipe.mask == "random"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch=3", "No setting is called 'epoch'. Did you mean 'epochs'?"),
        ("epochs", "must be KEY=VALUE"),
        ("epochs=many", "`epochs` must be of type int. Received: epochs=many"),
        ("epochs=2.5", "`epochs` must be of type int"),
        ("norm_pix=1", "`norm_pix` must be of type bool"),
        ("clip_norm=a", "`clip_norm` must be of type float or None"),
        ("mask=cube", "`mask` must be one of tube, random, frame, agnostic. Received: 'cube'"),
        ("mask_ratio=90", "`mask_ratio` must be between 0 and 1"),
        ("frames=15", "Use 14 or 16"),
        ("warmup_epochs=-1", "`warmup_epochs` must not be negative"),
        ("base_learning_rate=0", "`base_learning_rate` must be above 0"),
        ("beta_2=1", "`beta_2` must be in [0, 1)"),
    ],
)
def test_wrong_overrides_are_explained(text, message):
    with pytest.raises(ValueError) as error:
        apply_overrides(VideoMAEConfig(), RECIPES["demo"], [text])
    assert message in str(error.value)


FLOATS = [
    (recipe, field.name)
    for recipe in (PretrainingRecipe, FineTuningRecipe, DistillationRecipe)
    for field in dataclasses.fields(recipe)
    if "float" in str(field.type)
]


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize(
    ("recipe", "name"), FLOATS, ids=lambda each: getattr(each, "__name__", each)
)
def test_numbers_that_make_no_sense_are_refused_with_the_recipe(recipe, name, value):
    whole = recipe(epochs=1, warmup_epochs=0, batch_size=2, base_learning_rate=1.0)
    if name in ("crop_area", "crop_aspect"):
        value = (abs(value), math.nan)
    with pytest.raises(ValueError, match=f"`{name}` must"):
        dataclasses.replace(whole, **{name: value})


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999", "-1.0"])
def test_a_page_with_a_rate_that_makes_no_sense_is_refused(number, tmp_path):
    page = tmp_path / "mine.toml"
    page.write_text(
        f"[values]\nepochs=1\nwarmup_epochs=0\nbatch_size=2\nbase_learning_rate={number}\n"
    )
    with pytest.raises(ValueError, match="`base_learning_rate` must be"):
        RECIPES.choose(str(page))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "-1", '"1"', "[1]", "null"])
@pytest.mark.parametrize("name", ["base_learning_rate", "beta_2"])
def test_a_run_whose_settings_make_no_sense_is_refused(name, value, tmp_path):
    Run(tmp_path).save(
        PretrainingSettings("", "", VideoMAEConfig.variant("tiny"), RECIPES["demo"], 0, "jax")
    )
    assert Run(tmp_path).settings().recipe == RECIPES["demo"]
    text = (tmp_path / "run.json").read_text()
    stated = json.dumps(getattr(RECIPES["demo"], name))
    (tmp_path / "run.json").write_text(text.replace(f'"{name}": {stated}', f'"{name}": {value}'))
    with pytest.raises(RunError, match=f"run.json cannot be read: `{name}` must"):
        Run(tmp_path).settings()


@pytest.mark.clause("OPT-3")
def test_learning_rate_counts_videos_not_their_crops():
    recipe = dataclasses.replace(
        RECIPES["v2-hybrid-g"], batch_size=128, accumulate=4, repeats=4, base_learning_rate=1e-3
    )
    assert recipe.learning_rate == pytest.approx(2e-3)
    assert recipe.final_learning_rate == pytest.approx(2e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mask_ratio=0.001"], "hides 0 of 64"),
        (["decoder_mask_ratio=0.1"], "Use 0.25, 0.5 or 0.75"),
        (["channels=2", "mean=(0.,0.)", "std=(1.,1.)"], r"Received: channels=2"),
    ],
)
def test_settings_whose_parts_do_not_fit_are_refused(overrides, message):
    config, recipe = apply_overrides(VideoMAEConfig.variant("demo"), RECIPES["demo"], overrides)
    with pytest.raises(ValueError, match=message):
        PretrainingSettings("clips", "0", config, recipe, 0, "jax")


def test_log_survives_a_half_written_line_and_rewinds(tmp_path):
    run = Run(tmp_path)
    run.rewind(0)
    for step in (10, 20, 30):
        run.append({"step": step, "epoch": step / 7, "loss": 1 / step})
    with open(run.log, "a") as file:
        file.write("40,5.7")
    assert [row["step"] for row in run.rows()] == [10, 20, 30]
    assert run.rows()[0]["loss"] == 0.1 and run.rows()[0]["validation_loss"] is None
    before = run.log.read_text().splitlines()
    run.rewind(20)
    assert run.log.read_text().splitlines() == before[:3]
    run.rewind(-1)
    assert run.rows() == []
