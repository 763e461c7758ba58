"""Tests of recipe pages: the package's, and those of users."""

import dataclasses
import importlib.resources
import warnings
from contextlib import contextmanager

import pytest

from backends_tests.once.test_command_line import vmae
from backends_tests.support import imported
from vmae_keras import VideoMAEConfig
from vmae_keras.recipes import distillation, fine_tuning, page_files, pretraining
from vmae_keras.recipes.page_files import STAGES, list_pages, read_page
from vmae_keras.runs.settings import FineTuningSettings, PretrainingSettings, evaluation_views
from vmae_keras.training.optimizer import build_optimizer

PAGE = """
stage = "pretraining"
variant = "v2-s"

[values]
epochs = 7
warmup_epochs = 1
batch_size = 4
base_learning_rate = 1e-3
clip_norm = 1
decoder_mask_ratio = "None"
"""


def written(folder, text, name="mine.toml"):
    (folder / name).write_text(text)
    return str(folder / name)


def test_the_pages_travel_with_the_package():
    packaged = importlib.resources.files("vmae_keras.recipes") / "pages"
    for stage in STAGES:
        names = {page.name for page in (packaged / stage).iterdir()}
        assert names == {f"{name}.toml" for name in list_pages(stage)} and names


def test_a_page_of_the_users_gives_its_values_and_defaults(tmp_path):
    chosen = pretraining.RECIPES.choose(written(tmp_path, PAGE), {"epochs": 9})
    assert chosen == pretraining.PretrainingRecipe(
        epochs=9, warmup_epochs=1.0, batch_size=4, base_learning_rate=1e-3, clip_norm=1.0
    )


@contextmanager
def refused(message):
    """Expect a ValueError, and no warning instead."""
    with pytest.raises(ValueError, match=message), warnings.catch_warnings(action="ignore"):
        yield


@pytest.mark.parametrize("stage", STAGES)
def test_a_warm_up_that_leaves_no_room_keeps_its_share_and_this_is_said(stage):
    modules = (pretraining, fine_tuning, distillation)
    recipes = {each.RECIPES.stage: each.RECIPES for each in modules}
    page = recipes[stage]["demo"]
    for epochs in (1, int(page.warmup_epochs)):
        with pytest.warns(
            UserWarning, match=f"epochs={epochs} leaves no room .* of {page.epochs} epochs"
        ):
            chosen = recipes[stage].choose("demo", {"epochs": epochs})
        share = page.warmup_epochs / page.epochs
        assert chosen.warmup_epochs / epochs == pytest.approx(share) and chosen.epochs == epochs
    longer = recipes[stage].choose("demo", {"epochs": int(page.warmup_epochs) + 1})
    assert longer.warmup_epochs == page.warmup_epochs
    for changes in ({"epochs": 2, "warmup_epochs": 2.0}, {"warmup_epochs": float(page.epochs)}):
        with refused("`warmup_epochs` must be less than `epochs`"):
            recipes[stage].choose("demo", changes)
    # requested from Python, or by an old run
    with refused("`warmup_epochs` must be less than `epochs`"):
        build_optimizer(dataclasses.replace(page, epochs=int(page.warmup_epochs)), 10)


def test_a_page_whose_warm_up_does_not_fit_is_refused(tmp_path):
    page = written(tmp_path, PAGE.replace("warmup_epochs = 1", "warmup_epochs = 7"))
    for changes in ({}, {"epochs": 5}):
        with refused("Received: warmup_epochs=7, epochs="):
            pretraining.RECIPES.choose(page, changes)


def test_a_run_of_few_updates_is_told_what_to_change():
    gpu = fine_tuning.RECIPES.choose("gpu")
    told = gpu.few_updates(12) or "nothing"  # 180 videos
    assert "33 updates" in told and "batch_size (now 16)" in told and "accumulate (now 32)" in told
    epochs = int(told.partition("epochs=")[2].split()[0])
    assert dataclasses.replace(gpu, epochs=epochs).few_updates(12) is None
    assert dataclasses.replace(gpu, epochs=epochs - 1).few_updates(12) is not None
    assert pretraining.RECIPES["demo"].few_updates(36) is None


def test_uniform_sampling_has_two_clips_wherever_five_are_the_default():
    config = VideoMAEConfig.variant("tiny")
    uniform = pretraining.RECIPES.choose("demo", {"sampling": "uniform"})
    assert evaluation_views(PretrainingSettings("", "", config, uniform, 0, ""))["clips"] == 2
    with pytest.warns(UserWarning, match="test_clips is 2, not 5"):
        tuned = fine_tuning.RECIPES.choose("v1-k400-b", {"sampling": "uniform"})
    assert tuned.test_clips == 2
    with pytest.raises(ValueError, match=r"at most 2 clips of a video\. Received: test_clips=3"):
        changes = {"sampling": "uniform", "test_clips": 3}
        fine_tuning.RECIPES.choose("v1-k400-b", changes)
    old = dataclasses.replace(tuned, test_clips=5)  # the form that earlier versions stored
    for chosen, clips in ((tuned, 2), (old, 2), (fine_tuning.RECIPES["v1-k400-b"], 5)):
        settings = FineTuningSettings("", "", None, ("a",), config, chosen, 0, "")
        assert evaluation_views(settings)["clips"] == clips
    assert evaluation_views(None)["clips"] == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "epochs = 7",
            "epoch = 7",
            "No value of a recipe is called 'epoch'. Did you mean 'epochs'",
        ),
        (
            "variant",
            "varient",
            "No key of a recipe page is called 'varient'. Did you mean 'variant'",
        ),
        ("epochs = 7", "epochs = 7.5", "`epochs` must be of type int. Received: epochs=7.5"),
        ("epochs = 7", "epochs = 0", "`epochs` must be at least 1"),
        ("epochs = 7\n", "", "does not say: epochs. Give them, as in --set epochs=VALUE"),
        ("[values]", "unknown = ['stride']\n[values]", "does not say: stride"),
        ("[values]", "[value]", "Did you mean 'values'"),
        ("pretraining", "fine-tuning", "a page of fine-tuning, and one of pretraining is needed"),
        ("= 7", "=", "mine.toml cannot be used"),
    ],
)
def test_a_wrong_page_says_what_is_wrong(old, new, message, tmp_path):
    path = written(tmp_path, PAGE.replace(old, new, 1), "mine.toml")
    with pytest.raises(ValueError) as caught:
        pretraining.RECIPES.choose(path)
    assert message in str(caught.value)


def test_what_no_source_states_must_be_given(tmp_path, monkeypatch):
    unknown = 'unknown = ["batch_size", "clip_norm", "repeats"]\n\n[values]'
    lines = PAGE.replace("[values]", unknown).splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith(("batch_size", "clip_norm")))
    (tmp_path / "pretraining").mkdir()
    path = written(tmp_path / "pretraining", text)
    recipes = pretraining.RECIPES
    with pytest.raises(ValueError, match="does not say: batch_size, clip_norm, repeats"):
        recipes.choose(path, {})
    given = {"batch_size": 8, "clip_norm": None, "repeats": 2}
    chosen = recipes.choose(path, given)
    assert (chosen.epochs, chosen.repeats, chosen.batch_size) == (7, 2, 8)
    with pytest.raises(ValueError, match="does not say: repeats"):
        recipes.choose(path, {key: given[key] for key in given if key != "repeats"})
    monkeypatch.setattr(page_files, "FOLDER", tmp_path)
    assert list(page_files.list_pages("pretraining")) == ["mine"]
    # No default replaces an unknown value.
    assert "mine" not in recipes and list(recipes) == []


def test_a_missing_page_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_page(tmp_path / "nowhere.toml", "pretraining")
    with pytest.raises(ValueError, match="or the path of a page"):
        pretraining.RECIPES.choose("best")


def test_the_command_trains_by_a_users_page_or_says_what_is_wrong_with_it(tmp_path):
    (tmp_path / "clip.mp4").touch()
    path = written(tmp_path, PAGE.replace("stride", "strides") + "strides = 2\n")
    code, _, errors = vmae(
        "pretrain", str(tmp_path), "--out", str(tmp_path / "run"), "--recipe", path
    )
    assert code == 1 and "Did you mean 'stride'" in errors and "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_the_recipes_are_listed_and_printed():
    code, text, _ = vmae("recipes")
    rows = [line.split() for line in text.splitlines()]
    assert code == 0 and rows[0][:3] == ["name", "stage", "variant"]
    assert ["v1-k400-b", "pretraining", "v1-b", "1600", "2048"] in rows
    assert ["v1-k400-b", "fine-tuning", "v1-b", "75", "384", "81.5"] in rows
    assert ["gpu", "pretraining", "v2-b", "200", "1024"] in rows
    assert ["v2-hybrid-h", "pretraining", "v2-h", "300", "2048"] in rows
    assert ["v2-k710-b", "fine-tuning", "v2-b", "90", "512"] in rows  # no published result
    assert ["v2-k400-b", "fine-tuning", "v2-b", "90", "512", "(81.5)"] in rows
    assert len(rows) == 2 + sum(len(list_pages(stage)) for stage in STAGES)
    code, text, _ = vmae("recipes", "v1-k400-b")
    both = [list_pages(stage)["v1-k400-b"].text for stage in ("pretraining", "fine-tuning")]
    assert code == 0 and text == "\n".join(both)
    assert vmae("recipes", "fine-tuning/v1-k400-b")[1] == both[1]
    code, _, errors = vmae("recipes", "v1-k400-bb")
    assert code == 1 and "Did you mean 'v1-k400-b'" in errors


def test_recipes_are_read_once_each_and_without_keras():
    found, text = imported("""
import tomllib
from vmae_keras.recipes import fine_tuning, pretraining
read, loads = [], tomllib.loads
tomllib.loads = lambda text: read.append(text) or loads(text)
for kind in (pretraining, fine_tuning) * 2:
    list(kind.RECIPES), kind.RECIPES["demo"]
print(len(read), len(set(read)))
""")
    pages_read = len(list_pages("pretraining")) + len(list_pages("fine-tuning"))
    assert text == f"{pages_read} {pages_read}\n"
    assert "keras" not in found
