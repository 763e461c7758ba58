#!/usr/bin/env bash
# Pretrain a small VideoMAE V2 on drawn clips and reconstruct an unseen one:
#   bash scripts/demo.sh [--backend jax|tensorflow|torch] [--out FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh

backend=jax out=
while [ $# -gt 0 ]; do
    case $1 in
        --backend) backend=${2:?"--backend needs jax, tensorflow or torch"}; shift 2 ;;
        --out) out=${2:?"--out needs a folder"}; shift 2 ;;
        *) echo "Unknown argument: $1. Usage: demo.sh [--backend jax|tensorflow|torch] [--out FOLDER]" >&2; exit 2 ;;
    esac
done
case $backend in
    jax | tensorflow | torch) ;;
    *) echo "--backend must be jax, tensorflow or torch. Received: $backend" >&2; exit 2 ;;
esac
out=${out:-runs/demo-$backend}

prepare "$backend"
vmae synthesize runs/clips --count 640
vmae synthesize runs/unseen --count 1 --seed 1
if [ -e "$out/run.json" ]; then
    vmae pretrain --out "$out" --resume --backend "$backend"
else
    vmae pretrain runs/clips --out "$out" --backend "$backend"
fi
unseen=(runs/unseen/*.mp4)
vmae reconstruct "$out" "${unseen[0]}" --out "$out/reconstruction"
