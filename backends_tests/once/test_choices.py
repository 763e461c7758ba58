"""Tests that the command line offers the choices that the library states, and that its tables have them."""

import re
import typing

import pytest
from typer.testing import CliRunner

from vmae_keras.backend import BACKENDS, PARALLEL
from vmae_keras.cli.app import EXAMPLES, app
from vmae_keras.conversion import TARGETS
from vmae_keras.data import SAMPLINGS
from vmae_keras.data.views import CLIPS
from vmae_keras.evaluation import FEATURE_FORMATS
from vmae_keras.evaluation.probes import PROBES
from vmae_keras.export import DTYPES, FORMATS, QUANTIZATIONS, formats
from vmae_keras.export.comparison import TOLERANCES
from vmae_keras.export.contract import OUTPUTS
from vmae_keras.pictures import STATISTICS
from vmae_keras.pictures.patch_statistics import LABELS
from vmae_keras.recipes.page_files import STAGES
from vmae_keras.runs import HEADS
from vmae_keras.runs.settings import SETTINGS_OF
from vmae_keras.variants import CLASSES, POOLINGS

TRAINING = ("pretrain", "finetune", "distill")
USING = (
    "convert",
    "evaluate",
    "export",
    "features",
    "predict",
    "probe",
    "progressive",
    "reconstruct",
)
CHOICES = {
    ("convert", "to"): TARGETS,
    ("export", "format"): FORMATS,
    ("export", "quantize"): QUANTIZATIONS,
    ("export", "input"): DTYPES,
    ("export", "kind"): CLASSES,
    ("features", "pooling"): (*POOLINGS, "none"),
    ("features", "format"): FEATURE_FORMATS,
    ("finetune", "head"): HEADS,
    ("probe", "kind"): PROBES,
    ("probe", "sampling"): SAMPLINGS,
    ("reconstruct", "statistics"): STATISTICS,
    **{(command, "backend"): BACKENDS for command in (*TRAINING, *USING)},
    **{(command, "parallel"): PARALLEL for command in (*TRAINING, "memory")},
}


@pytest.mark.parametrize("place", CHOICES, ids=" ".join)
def test_a_command_offers_what_the_library_states(place):
    command, option = place
    outcome = CliRunner().invoke(app, [command, f"--{option}", "?"], env={"COLUMNS": "200"})
    assert outcome.exit_code == 2
    offered = re.search(r"'\?' is not one of (.*?)\.", outcome.output)[1]
    assert re.findall(r"'([\w-]+)'", offered) == list(CHOICES[place])


def test_every_option_with_choices_is_tested():
    offering = {
        (module.__name__.rpartition(".")[2], name)
        for module in EXAMPLES
        for name, kind in typing.get_type_hints(module.main).items()
        if any(typing.get_origin(each) is typing.Literal for each in (kind, *typing.get_args(kind)))
    }
    assert offering == CHOICES.keys()


def test_the_tables_of_the_library_have_an_entry_for_each_choice():
    assert OUTPUTS.keys() == CLASSES.keys()
    assert formats.BACKENDS.keys() == FORMATS.keys()
    assert TOLERANCES.keys() == {None, *QUANTIZATIONS}
    assert CLIPS.keys() == set(SAMPLINGS)
    assert tuple(SETTINGS_OF) == STAGES
    assert LABELS.keys() == {*STATISTICS, "pixels"}
