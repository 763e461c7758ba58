#!/usr/bin/env bash
# The whole suite: format, lint, import layers, types, golden vectors, then the tests of the oracle, of the
# library without a backend and on each one, and of other implementations. Ends with the table of clauses.
#   bash scripts/test.sh [--nightly]     --nightly: many more random examples, others every day, and
#                                        scripts/mutation.py, minimum.py
#   SEED=20261128 bash scripts/test.sh --nightly     that day's examples again
#   bash scripts/test.sh --backend jax               only the tests of one backend
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh

profile=suite limit=300 seed=0 only=
usage="Usage: test.sh [--nightly | --backend jax|tensorflow|torch]"
case "$#:${1:-}:${2:-}" in
    0::) ;;
    1:--nightly:)
        profile=nightly limit=7200 seed=${SEED:-$(date +%Y%m%d)}
        echo "Random examples by the seed $seed; the same again: SEED=$seed bash scripts/test.sh --nightly" ;;
    2:--backend:jax | 2:--backend:tensorflow | 2:--backend:torch) only=$2 ;;
    *) echo "Unknown arguments: $*. $usage" >&2; exit 2 ;;
esac

prepare dev,jax,tensorflow,torch,peers,export
export TF_CPP_MIN_LOG_LEVEL=3 HYPOTHESIS_PROFILE=$profile
# Two workers share the cores: more threads than that in each only wait for one another.
export OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
# Many tests build the same small models: JAX compiles each once.
export JAX_COMPILATION_CACHE_DIR=$PWD/build/jax-cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

if [ -z "$only" ]; then
    ruff format --check .
    ruff check .
    lint-imports
    mypy
    python -m spec.vectors --check
fi

records=build/clauses logs=build/logs
rm -rf "$records" "$logs"
mkdir -p "$records" "$logs"
workers=$((($(getconf _NPROCESSORS_ONLN) + 1) / 2)) # of each section
run() { # FOLDER [BACKEND]: its tests, which are shown when they have ended
    local log="$logs/$1${2:+-$2}.txt" status=0 began=$SECONDS
    ${2:+env KERAS_BACKEND=$2} pytest -n $workers --dist loadfile --no-loadscope-reorder --timeout $limit \
        --hypothesis-seed "$seed" --clauses "$records" "backends_tests/$1" >"$log" 2>&1 || status=1
    printf '== %s after %d s\n%s\n' "$1 ${2:-}" $((SECONDS - began)) "$(cat "$log")"
    return $status
}
if [ -n "$only" ]; then
    run each_backend "$only"
    exit
fi
# Four sections at a time for two cores: a test often waits for a process, and none runs alone at the end.
echo "Running the tests; each section is shown when it has ended, and until then is in $logs ..."
export -f run
export records logs workers limit seed
failed=0
printf '%s\n' "each_backend jax" "each_backend tensorflow" once "each_backend torch" oracle peers |
    xargs -P 4 -L 1 bash -c 'run "$@"' run || failed=1
# That it deviates is known, and held by the tests of `peers`: this is for the table.
python -m spec.conformance backends_tests.adapters.hugging_face:Adapter \
    --json "$records/hugging_face.json" || true
python -m backends_tests.report "$records" || failed=1
if [ "$profile" = nightly ]; then
    echo "== random changes"
    python scripts/mutation.py || failed=1
    for backend in jax tensorflow torch; do
        echo "== lowest versions $backend"
        python scripts/minimum.py --backend "$backend" || failed=1
    done
fi
exit $failed
