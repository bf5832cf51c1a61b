#!/usr/bin/env bash
# The main job on two CPU cores, from a fresh checkout: installs, gets the model, runs the method, shows the result.
#
#   bash scripts/quickstart.sh [--config.iterations=3 --workdir=... and any other flag of `ste run`]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
setup_venv ""
setup_model
export JAX_PLATFORMS=cpu
exec "$VENV/bin/ste" run --config=configs/quickstart.py --workdir=runs/quickstart --config.model="$MODEL" "$@"
