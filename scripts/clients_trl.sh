#!/usr/bin/env bash
# Tests of reward functions inside TRL, in a virtual environment of their own.
#   bash scripts/clients_trl.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
VENV="${VENV:-$PWD/.venv-trl}"
source scripts/setup.sh
setup_venv "[test]"
setup_model
"$VENV/bin/pip" install --quiet "trl==1.16.0"
export STE_TEST_MODEL="$MODEL" JAX_PLATFORMS=cpu ALLOW_MULTIPLE_LIBTPU_LOAD=1
# TRL and its libraries warn.
exec "$VENV/bin/python" -m pytest -o filterwarnings=default -m clients tests/clients/test_trl.py "$@"
