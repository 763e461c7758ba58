"""Pytest configuration: checks clause ids, starts long files first and records test results.

It also loads the Hypothesis profile of all tests.
"""

import gc
import os
from pathlib import Path

import pytest

from backends_tests import clauses, profiles

if not profiles.NIGHTLY:
    # XLA compiles the small test models in a quarter of the time: without optimisation, by its older
    # emitters of fusions, and without splitting small programs.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )
# Slowest files on two cores, first. One worker runs a whole file, so a slow file that starts late delays
# the end.
LONG_FILES = (
    "test_distribution",
    "test_mutants",
    "test_mutants_on_a_backend",
    "test_gradients",
    "test_processes_of_a_job",
    "test_pretrain",
    "test_conformance",
    "test_dry_run",
    "test_vectors",
    "test_drawn_models",
    "test_batches",
    "test_presets",
    "test_progressive",
    "test_stages",
    "test_training_options",
    "test_readme",
    "test_finetune",
    "test_probe",
    "test_hugging_face_files",
    "test_export",
)


def pytest_addoption(parser):
    parser.addoption(
        "--clauses",
        type=Path,
        metavar="FOLDER",
        help="folder for records of the test results per clause, one file per implementation",
    )


def pytest_configure(config):
    folder = config.getoption("--clauses")
    if folder and not hasattr(config, "workerinput"):  # xdist's workers report to the controller
        config.pluginmanager.register(clauses.Recorder(folder))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    for item in (node for node in report.result or () if isinstance(node, pytest.Item)):
        marks = item.iter_markers("clause")
        ids = list(dict.fromkeys(clause for mark in marks for clause in mark.args))
        if unknown := clauses.unknown(ids):
            report.outcome = "failed"
            report.longrepr = (
                f"{item.nodeid} names clauses that spec/SPEC.md does not have: {', '.join(unknown)}"
            )
        if ids:
            owner = clauses.implementation(item.path)
            item.user_properties += [("clauses", ids), ("implementation", owner)]
    return report


@pytest.fixture(autouse=True, scope="module")
def _without_old_garbage():
    """Freeze the objects of earlier files, as garbage collection would take up to an eighth of the time."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    ranks = {name: rank for rank, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))
