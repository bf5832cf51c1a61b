#!/usr/bin/env bash
# Linters, types and the test suite without its marked parts, from a fresh checkout.   bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
setup_venv "[test]"
setup_model
export STE_TEST_MODEL="$MODEL" JAX_PLATFORMS=cpu ALLOW_MULTIPLE_LIBTPU_LOAD=1
if ! command -v chromium > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  echo "installing chromium for the report's tests ..."
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver > /dev/null
fi
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check --quiet .
TYPES="$(mktemp)"
trap 'rm -f "$TYPES"' EXIT
"$VENV/bin/pyright" --pythonpath "$VENV/bin/python" --level error > "$TYPES" 2>&1 &
PYRIGHT=$!
# Three workers on two cores: many tests wait for processes of their own.
FAILED=0
"$VENV/bin/python" -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder "$@" || FAILED=$?
wait "$PYRIGHT" || {
  cat "$TYPES"
  FAILED=1
}
exit "$FAILED"
