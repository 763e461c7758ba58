"""Tests that the library's variants and recipes match the specification's tables."""

import dataclasses
import re

import pytest
import typer

from spec import cost_reference, recipe_table
from spec.config import VARIANTS as PUBLISHED
from spec.config import Config
from vmae_keras import VideoMAEConfig
from vmae_keras.cli.app import app
from vmae_keras.recipes.fine_tuning import RECIPES as FINE_TUNING_RECIPES
from vmae_keras.recipes.fine_tuning import FineTuningRecipe
from vmae_keras.recipes.page_files import STAGES, list_pages
from vmae_keras.recipes.pretraining import RECIPES, PretrainingRecipe
from vmae_keras.runs import settings as runs_settings
from vmae_keras.variants import VARIANTS

OURS = {"demo", "tiny", "gpu", "gpu-post"}
# No published run states these. They are our choices, or the user's.
CHOICES = {
    "accumulate",
    "validation",
    "precision",
    "average_decay",
    "patience",
    "freeze_encoder",
    "lora_rank",
}
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
    encoder = cost_reference.count_encoder_parameters(config)
    assert encoder == published["encoder_parameters"]
    total = published.get("pretraining_parameters")  # vit has none: only encoder and classifier
    assert total in (None, cost_reference.count_parameters(config))


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
    fields = recipe.keys() - CHOICES
    assert fields - run.keys() <= {"clip_norm"}  # absent if it does not apply
    published = {key: run.get(key) for key in fields}
    assert {key: recipe[key] for key in fields} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in published.items()
    }


@pytest.mark.clause("OPT-1", "OPT-3", "DATA-1", "DATA-7")
@pytest.mark.parametrize("name", PRETRAINING)
def test_a_recipe_has_the_published_values(name):
    run, recipe = PRETRAINING[name], RECIPES[name]
    fields = {field.name for field in dataclasses.fields(PretrainingRecipe)} - CHOICES
    assert fields - run.keys() <= {"clip_norm", "decoder_mask_ratio"}  # absent if it does not apply
    assert {key: getattr(recipe, key) for key in fields} == {key: run.get(key) for key in fields}
    config = VideoMAEConfig.variant(run["variant"])
    assert (config.norm_pix, config.drop_path) == (run["norm_pix"], run["drop_path"])
    assert recipe.learning_rate == run["base_learning_rate"] * run["batch_size"] / 256


@pytest.mark.parametrize("stage", recipe_table.STAGES)
def test_every_published_run_has_a_page_that_says_what_the_table_says(stage):
    found = list_pages(stage.replace("_", "-"))
    runs = recipe_table.runs(stage)
    assert found.keys() - OURS == runs.keys()
    kind = {"pretraining": PretrainingRecipe, "fine_tuning": FineTuningRecipe}[stage]
    fields = {field.name for field in dataclasses.fields(kind)}
    for name, run in runs.items():
        page = found[name]
        assert page.values == {key: run[key] for key in fields & run.keys()}, name  # no others
        for fact in ("source", "variant", "data", "classes"):
            assert getattr(page, fact) == run.get(fact), (name, fact)
        for fact in ("unchecked", "unknown"):
            assert getattr(page, fact) == tuple(run.get(fact, ())), (name, fact)
        assert page.our_top_1 == "not run" and page.paper
        if stage == "fine_tuning":
            assert page.published_top_1 == run.get("top_1", "none")
            stage_of_start, _, name_of_start = run["start"].partition(".")
            assert page.start == f"{stage_of_start.replace('_', '-')}/{name_of_start}"


def test_a_pretraining_page_gives_the_figures_of_what_was_fine_tuned_from_it():
    for name, page in list_pages("pretraining").items():
        if name not in OURS:
            after = [
                (f"{run['top_1']:.1f}", run["data"], of_run)
                for of_run, run in FINE_TUNING.items()
                if run["start"] == f"pretraining.{name}" and "top_1" in run
            ]
            figures = r"(\d+\.\d) on (\w+) after fine-tuning/([\w-]+)"
            assert re.findall(figures, page.published_top_1) == after


@pytest.mark.clause("OPT-3")
@pytest.mark.parametrize("stage", ["pretraining", "fine-tuning"])
def test_a_published_batch_is_that_of_all_gpus_without_repeats(stage):
    for name, page in list_pages(stage).items():
        if name not in OURS:
            layout = r"(\d+) nodes? x (\d+) GPUs?.*, (\d+) videos each"
            nodes, gpus, videos = map(int, re.match(layout, page.hardware).groups())
            assert page.values["batch_size"] == nodes * gpus * videos, name


@pytest.mark.parametrize("stage", STAGES)
def test_a_page_s_command_is_one_and_names_the_page(stage):
    commands = typer.main.get_command(app).commands
    for name, page in list_pages(stage).items():
        vmae, command, *arguments = page.command.split()
        context = commands[command].make_context(command, arguments)
        assert vmae == "vmae" and context.params["recipe"] == name
        assert runs_settings.SETTINGS_OF[stage].command == command
        if context.params["variant"]:
            assert context.params["variant"] == page.variant
        settings = [text.partition("=")[0] for text in context.params["change"] or ()]
        assert set(page.unknown) <= set(settings)


def test_our_pages_say_whether_they_were_run():
    for stage in STAGES:
        for name in list_pages(stage).keys() & {"gpu", "gpu-post"}:
            page = list_pages(stage)[name]
            assert "not run on a GPU" in page.hardware and page.our_top_1 == "not run"
            recipe = page.recipe(PretrainingRecipe if stage == "pretraining" else FineTuningRecipe)
            assert recipe.precision == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("ours", "published", "script"),
    [
        ("pretraining/gpu", "pretraining/v2-hybrid-b", "vit_b_hybrid_pt.sh"),
        ("fine-tuning/gpu", "fine-tuning/v2-k400-b", "vit_b_k400_ft.sh"),
        ("fine-tuning/gpu-post", "fine-tuning/v2-k710-b", "vit_b_k710_ft.sh"),
    ],
)
def test_a_recipe_for_a_single_gpu_trains_as_the_published_one(ours, published, script):
    page, other = (
        list_pages(stage)[name] for stage, name in (ours.split("/"), published.split("/"))
    )
    assert page.source == f"ours, after {other.source}" and other.source.endswith(script)
    ours, published = page.values, other.values
    different = {key for key in ours | published if ours.get(key) != published.get(key)}
    assert different == {"batch_size", "accumulate", "precision"}
    assert ours["batch_size"] * ours["accumulate"] == published["batch_size"]
