#!/usr/bin/env bash
# The whole suite: format, lint, import layers, tests without a backend, tests on each backend.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare dev,jax,tensorflow,torch

export TF_CPP_MIN_LOG_LEVEL=3
ruff format --check .
ruff check .
lint-imports
pytest -n 2 backends_tests/once
for backend in jax tensorflow torch; do
    echo "== $backend"
    KERAS_BACKEND=$backend pytest -n 2 backends_tests/each_backend
done
