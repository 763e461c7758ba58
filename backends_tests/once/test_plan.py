"""Tests that errors in a plan are reported before its first stage starts."""

import json

import pytest

from backends_tests.once.test_command_line import vmae
from backends_tests.support import ROOT
from vmae_keras.runs.run import RunError
from vmae_keras.training.plan import check_plan, read_plan
from vmae_keras.training.plan_folder import check_unchanged, definition

PLAN = """
seed = 1
[aliases]
"hopping" = "jump"

[[stage]]
name = "pretrain"
kind = "pretrain"
data = "b"
variant = "tiny"
set = { height = 24 }

[[stage]]
name = "mix"
kind = "finetune"
data = ["a", "b"]

[[stage]]
name = "target"
kind = "finetune"
data = "a"
head = "mapped"
set = { stride = 1 }

[[stage]]
name = "test"
kind = "evaluate"
data = "a"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write two data sets: a with jump, Run; b with hopping, run, walk."""
    folder = tmp_path_factory.mktemp("data")
    for label in ("a/jump", "a/Run", "b/hopping", "b/run", "b/walk"):
        (folder / label).mkdir(parents=True)
        (folder / label / "clip.mp4").touch()
    return folder


def written(data, old="", new=""):
    assert old in PLAN
    path = data / "plan.toml"
    path.write_text(PLAN.replace(old, new, 1))
    return path


@pytest.mark.clause("PLAN-1")
def test_a_stage_starts_from_the_last_one_that_trained(data):
    plan = read_plan(written(data))
    assert [stage.start for stage in plan.stages] == [None, "pretrain", "mix", "target"]
    pretrain, mix, target, test = check_plan(plan)
    assert (pretrain.labels, len(pretrain.files)) == (None, 3)
    assert mix.labels == ("Run", "jump", "walk") and len(mix.files) == 5
    assert target.labels == test.labels == ("Run", "jump")
    assert {file.label for file in test.files} == {"Run", "jump"}
    assert target.config.height == 24 and target.config.dim == pretrain.config.dim
    assert target.recipe.stride == 1 and target.config.drop_path == target.recipe.drop_path
    *_, test = check_plan(read_plan(written(data, "{ height = 24 }", "{ width = 32 }")))
    assert (test.config.height, test.config.width) == (16, 32)  # a model need not be square
    other = read_plan(written(data, 'head = "mapped"', 'start = "pretrain"'))
    assert [stage.start for stage in other.stages] == [None, "pretrain", "pretrain", "target"]


@pytest.mark.clause("LABEL-4", "PLAN-3")
def test_a_plan_names_aliases_of_the_package(tmp_path):
    for label in ("a/jump", "a/Run", "a/drinking", "b/run", "b/sipping_cup"):
        (tmp_path / label).mkdir(parents=True)
        (tmp_path / label / "clip.mp4").touch()
    table = '[aliases]\n"hopping" = "jump"\n'
    _, mix, target, test = check_plan(read_plan(written(tmp_path, table, 'aliases = "k710"\n')))
    assert mix.labels == ("Run", "jump", "sipping cup") and len(mix.files) == 5
    assert target.labels == test.labels == mix.labels
    for wrong, message in {'"k70"': "one of the names k710", "3": "of type dict or str"}.items():
        with pytest.raises(ValueError, match=rf"plan\.toml: .*{message}"):
            read_plan(written(tmp_path, table, f"aliases = {wrong}\n"))


def test_the_example_goes_from_clips_without_labels_to_figures():
    plan = read_plan(ROOT / "docs" / "progressive.toml")
    assert [stage.command for stage in plan.stages] == [
        "pretrain",
        "finetune",
        "finetune",
        "evaluate",
    ]
    assert [stage.head for stage in plan.stages[1:3]] == ["new", "mapped"]
    assert plan.stages[1].data[1] == str(ROOT / "docs" / "second.csv")


@pytest.mark.clause("PLAN-3")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 1", "sed = 1", "No key of a plan is called 'sed'. Did you mean 'seed'"),
        ("seed = 1", "seed = 1.5", "`seed` must be of type int"),
        ("seed = 1", "seed = -1", "`seed` must be from 0 to"),
        ("data = ", "dat = ", "No key of a stage that is to pretrain is called 'dat'"),
        ('kind = "finetune"', 'kind = "finetunes"', "Did you mean 'finetune'"),
        ('name = "mix"', 'name = "pretrain"', "that no stage before has. Received: 'pretrain'"),
        ('name = "mix"', 'name = "../mix"', "Received: '../mix'"),
        ('data = "b"', "data = []", "`data` must be a data set or a list of them"),
        ('data = "b"', 'data = "c"', "stage 'pretrain': `source` does not exist"),
        ('data = ["a", "b"]', 'data = ["a", "a/jump"]', "stage 'mix': 1 of 1 videos have no label"),
        ('variant = "tiny"', 'variant = "tinny"', "`name` must be one of"),
        ('variant = "tiny"', 'recipe = "v3"', "`--recipe` must be one of demo"),
        ('variant = "tiny"', 'recipe = "mine.toml"', "mine.toml"),
        (
            'variant = "tiny"',
            'head = "new"',
            "No key of a stage that is to pretrain is called 'head'",
        ),
        ("{ height = 24 }", "{ heigth = 24 }", "Did you mean 'height'"),
        ("{ height = 24 }", "{ height = 25 }", "`height` must be a multiple of the tubelet"),
        ("{ height = 24 }", "{ mask_ratio = 0.01 }", "stage 'pretrain'"),
        ("{ stride = 1 }", "{ mixup = 1.0, batch_size = 3 }", "must hold an even number"),
        ("{ stride = 1 }", "{ frames = 5 }", "stage 'target': `frames` must be a multiple"),
        ('head = "mapped"', 'head = "old"', "`head` must be 'new' or 'mapped'"),
        (
            "{ stride = 1 }",
            '{ pooling = "first" }',
            "stage 'target': A mapped head keeps its pooling",
        ),
        ('head = "mapped"', 'start = "mx"', "Did you mean 'mix'"),
        (
            'head = "mapped"',
            'variant = "tiny"',
            "It starts from 'mix', which says what the model is",
        ),
        (
            '"a"\nhead = "mapped"',
            '["a", "b"]\nhead="mapped"\nstart = "pretrain"',
            "cannot be matched",
        ),
        ('kind = "evaluate"', 'kind = "evaluate"\nstart = "pretrain"', "one of: mix, target"),
        ('"evaluate"\ndata = "a"', '"evaluate"\ndata = "b"', "not in the model. Received: walk"),
        (
            'kind = "evaluate"',
            'kind = "evaluate"\nset = { epochs = 3 }',
            "No setting of an evaluation",
        ),
        ('kind = "evaluate"', 'kind = "evaluate"\nset = { test_clips = 0 }', "at least 1"),
        (
            '{ stride = 1 }\n\n[[stage]]\nname = "test"',
            '{ sampling = "uniform" }\n[[stage]]\nset = { test_clips = 5 }\nname = "test"',
            "'target' samples uniformly, which has at most 2 clips",
        ),
        ('"hopping" =', '"hoping" =', "is called 'hoping'. Did you mean 'hopping'"),
        ("[[stage]]", "[[stages]]", "Did you mean 'stage'"),
        (PLAN, "stage = [3]", "stage 1: `stage` must be of type dict"),
        (PLAN, "[[stage]]\nkind = 3", "No kind of stage is called '3'"),
        (PLAN, "seed = 3", "It has no stage"),
        ("seed = 1", "seed =", "plan.toml"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said(old, new, message, data):
    with pytest.raises(ValueError) as caught:
        check_plan(read_plan(written(data, old, new)))
    assert message in str(caught.value) and "plan.toml" in str(caught.value)


@pytest.mark.clause("PLAN-3")
def test_a_wrong_plan_ends_the_command_with_one_line_and_writes_nothing(data, tmp_path):
    path = written(data, "{ stride = 1 }", "{ strid = 1 }")
    code, _, errors = vmae("progressive", str(path), "--out", str(tmp_path / "out"))
    assert code == 1 and "Did you mean 'stride'" in errors and "Traceback" not in errors
    assert not (tmp_path / "out").exists()
    code, _, errors = vmae("progressive", str(tmp_path / "nothing.toml"))
    assert code == 1 and "nothing.toml" in errors and "Traceback" not in errors


@pytest.mark.clause("PLAN-3")
def test_what_changed_of_stages_that_have_begun_is_named(data, tmp_path):
    def definitions(*change):
        plan = read_plan(written(data, *change))
        return {each.stage.name: definition(each, plan.seed, "jax") for each in check_plan(plan)}

    before = definitions()
    check_unchanged(tmp_path, before)
    for name in ("pretrain", "mix"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stage.json").write_text(json.dumps(before[name]))
    check_unchanged(tmp_path, before)
    # this stage has not started
    check_unchanged(tmp_path, definitions("{ stride = 1 }", "{ stride = 2 }"))
    check_unchanged(
        tmp_path, definitions("{ height = 24 }", "{ height = 24, epochs = 20 }")
    )  # its present value
    for change, named in (
        (("seed = 1", "seed = 2"), "'pretrain', seed: 2, was 1"),
        (
            ("{ height = 24 }", "{ height = 24, epochs = 3 }"),
            "'pretrain', recipe.epochs: 3, was 20",
        ),
        (("{ height = 24 }", "{ height = 16, width = 16 }"), "'mix', model.height: 16, was 24"),
        (('["a", "b"]', '["b", "a"]'), "stage 'mix', labels"),
        (('name = "pretrain"', 'name = "first"'), "stage 'pretrain' is gone"),
    ):
        with pytest.raises(RunError) as caught:
            check_unchanged(tmp_path, definitions(*change))
        assert named in str(caught.value)
