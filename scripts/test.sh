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
"$VENV/bin/pyright" --pythonpath "$VENV/bin/python" --level error
# Two workers: most of the time goes into compilation, which uses one core.
exec "$VENV/bin/python" -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder "$@"
