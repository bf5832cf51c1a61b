#!/usr/bin/env bash
# Sourced by the other scripts: makes .venv, installs the package, and gets the model of the quickstart and the tests.
#
#   setup_venv EXTRA   (for example "[test]") installs ste_jax, editable, with CPU jax, unless pyproject.toml is unchanged
#   setup_model        sets MODEL to the GGUF file of SmolLM2-135M-Instruct (Apache-2.0), fetched once
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-$ROOT/.venv}"

setup_venv() {
  [ -z "${STE_INSTALLED:-}" ] || return 0 # $VENV is set up already
  local extra="$1" stamp="$VENV/.installed-${1//[^a-z]/}" wanted
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "ste_jax needs Python 3.11 or newer; name one with PYTHON=python3.11 bash $0" >&2
    exit 1
  }
  "$VENV/bin/python" -m pip --version > /dev/null 2>&1 || "$PYTHON" -m venv --clear "$VENV"
  wanted="$(cat "$ROOT/setup.py" "$ROOT/pyproject.toml" <(echo "$extra") | "$PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
  if [ ! -f "$stamp" ] || ! grep -qx "$wanted" "$stamp"; then
    echo "installing ste_jax$extra into $VENV ..."
    # Python compiles the modules that it imports; those of the whole of torch and others would take a minute.
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -e "$ROOT$extra"
    echo "$wanted" > "$stamp"
  fi
}

setup_model() {
  MODEL="${STE_TEST_MODEL:-$ROOT/models/SmolLM2-135M-Instruct.Q4_1.gguf}"
  "$VENV/bin/python" -m ste_jax.checkpoint.small_model "$MODEL" > /dev/null
}
