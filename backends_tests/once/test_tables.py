"""The library's variants and recipes are those of the specification's tables."""

import dataclasses

import pytest

from spec import recipe_table, training_reference
from spec.config import VARIANTS as PUBLISHED
from spec.config import Config
from vmae_keras import VideoMAEConfig
from vmae_keras.config import VARIANTS
from vmae_keras.training.fine_tuning_recipe import RECIPES as FINE_TUNING_RECIPES
from vmae_keras.training.recipe import RECIPES, Recipe

OURS = {"demo", "tiny"}
FINE_TUNING = recipe_table.runs("fine_tuning")
PRETRAINING = {
    name: run for name, run in recipe_table.runs("pretraining").items() if "unknown" not in run
}


def test_the_published_variants_are_all_there_and_no_others():
    assert VARIANTS.keys() - OURS == PUBLISHED.keys()


@pytest.mark.clause("CONFIG-2", "COUNT-1", "COUNT-2")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_variant_has_the_published_sizes_and_counts(name):
    config, published = VideoMAEConfig.variant(name), PUBLISHED[name]
    assert config.to_dict() == dataclasses.asdict(Config.variant(name))
    encoder = training_reference.count_encoder_parameters(config)
    assert encoder == published["encoder_parameters"]
    assert training_reference.count_parameters(config) == published["pretraining_parameters"]


def test_the_specifications_configuration_has_the_librarys_fields_and_defaults():
    assert dataclasses.asdict(Config()) == VideoMAEConfig().to_dict()


def test_the_published_recipes_are_all_there_and_no_others():
    assert RECIPES.keys() - OURS == PRETRAINING.keys()


def test_published_fine_tuning_recipes_are_all_there_that_are_wholly_known():
    known = {name for name, run in FINE_TUNING.items() if "unknown" not in run}
    assert FINE_TUNING_RECIPES.keys() - OURS == known


@pytest.mark.parametrize("name", sorted(FINE_TUNING_RECIPES.keys() - OURS))
def test_a_fine_tuning_recipe_has_the_published_values(name):
    run, recipe = FINE_TUNING[name], dataclasses.asdict(FINE_TUNING_RECIPES[name])
    of_hardware = {"accumulate", "validation", "precision"}  # a choice of ours
    fields = recipe.keys() - of_hardware
    assert fields - run.keys() <= {"clip_norm"}  # absent: does not apply
    published = {key: run.get(key) for key in fields}
    assert {key: recipe[key] for key in fields} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in published.items()
    }


@pytest.mark.clause("OPT-1", "OPT-3", "DATA-1", "DATA-7")
@pytest.mark.parametrize("name", PRETRAINING)
def test_a_recipe_has_the_published_values(name):
    run, recipe = PRETRAINING[name], RECIPES[name]
    of_hardware = {"accumulate", "validation", "precision"}  # a choice of ours
    fields = {field.name for field in dataclasses.fields(Recipe)} - of_hardware
    assert fields - run.keys() <= {"clip_norm", "decoder_mask_ratio"}  # absent: does not apply
    assert {key: getattr(recipe, key) for key in fields} == {key: run.get(key) for key in fields}
    config = VideoMAEConfig.variant(run["variant"])
    assert (config.norm_pix, config.drop_path) == (run["norm_pix"], run["drop_path"])
    assert recipe.learning_rate == run["base_learning_rate"] * run["batch_size"] / 256
