#!/usr/bin/env bash
# The main job on two CPU cores, from a fresh checkout: installs, gets the model, runs the method, shows the result,
# and asks the seed and the last model about a few outside pairs.
#
#   bash scripts/quickstart.sh [--config.iterations=3 --workdir=... and any other flag of `ste run`]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
setup_venv "[select,report]"
setup_model
export JAX_PLATFORMS=cpu
workdir=runs/quickstart
for flag in "$@"; do
  case "$flag" in --workdir=*) workdir="${flag#--workdir=}" ;; esac
done
workdir="${workdir/#\~\//$HOME/}"
"$VENV/bin/ste" run --config=quickstart --workdir="$workdir" --config.model="$MODEL" "$@"
trained="$(find "$workdir" -mindepth 2 -maxdepth 2 -path '*/iteration_*/model' | sort -V | tail -n 1)"
[ -n "$trained" ] || exit 0
pairs=ste_jax/data/starter_pairs.jsonl
seed_result="$workdir/starter_pairs-seed.jsonl"
trained_result="$workdir/starter_pairs-trained.jsonl"
# A result is never mixed with another model's: after --redo these would be of another.
rm -f "$seed_result" "$trained_result"
"$VENV/bin/ste" evaluate --model="$MODEL" --data="$pairs" --out="$seed_result" --max_new_tokens=24 > /dev/null
"$VENV/bin/ste" evaluate --model="$trained" --data="$pairs" --out="$trained_result" --max_new_tokens=24
"$VENV/bin/ste" stats "$seed_result"
exec "$VENV/bin/ste" compare "$seed_result" "$trained_result"
