#!/usr/bin/env bash
# The main job on two CPU cores, from a fresh checkout: installs, gets the model, trains a judge, shows what it gained,
# and ranks five answers to a question with it.
#
#   bash scripts/quickstart.sh [--config=paper_small --workdir=... and any other flag of `ste run`]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
setup_venv "[select,report]"
setup_model
export JAX_PLATFORMS=cpu
workdir=runs/quickstart
config=quickstart
others=()
for flag in "$@"; do
  case "$flag" in
    --workdir=*) workdir="${flag#--workdir=}" ;;
    --config=*) config="${flag#--config=}" ;;
    *) others+=("$flag") ;;
  esac
done
workdir="${workdir/#\~\//$HOME/}"
# The language filter needs an extra that the core of the package does not have, so the configuration leaves it out.
"$VENV/bin/ste" run --config="$config" --workdir="$workdir" --config.model="$MODEL" \
  --config.select.filters.languages="('en',)" "${others[@]}"
trained="$(find "$workdir" -mindepth 2 -maxdepth 2 -path '*/iteration_*/model' | sort -V | tail -n 1)"
[ -n "$trained" ] || exit 0
echo
exec "$VENV/bin/python" scripts/rank_answers.py "$trained"
