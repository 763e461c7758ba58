#!/usr/bin/env bash
# The quick check, in under a minute on two cores: format, lint, import layers, types, and tests that need no
# training: tables, masks, configurations, help and errors of the command line, documentation.
#   bash scripts/check.sh
# Uses the active virtual environment, else .venv, which it makes. `scripts/test.sh` runs everything.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${VIRTUAL_ENV:-}" ]; then
    . scripts/environment.sh
    prepare dev,jax,tensorflow,torch,peers,export
fi
export TF_CPP_MIN_LOG_LEVEL=3 HYPOTHESIS_PROFILE=suite OMP_NUM_THREADS=1

ruff format --check .
ruff check .
lint-imports
mypy
tests=backends_tests
pytest -q -n "$(nproc)" --timeout 60 \
    $tests/oracle/test_tables.py \
    $tests/oracle/test_masks_reference.py \
    $tests/once/test_config.py \
    $tests/once/test_documentation.py \
    $tests/once/test_layout.py \
    $tests/once/test_masks.py \
    $tests/once/test_positions.py \
    $tests/once/test_running_cells.py \
    $tests/once/test_tables.py \
    $tests/once/test_command_line.py \
    --deselect $tests/once/test_command_line.py::test_conversion_says_what_is_lost_and_what_went_wrong \
    --deselect $tests/once/test_command_line.py::test_importing_is_silent_and_adds_little_to_keras \
    --deselect $tests/once/test_command_line.py::test_a_run_imports_no_other_backend_than_keras_and_seeds_as_it_does
