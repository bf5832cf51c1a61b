#!/usr/bin/env bash
# Runs a command on all workers, with logs in logs/NAME; exits with the command's code.
#   bash tpu/run.sh --name=NAME -- ste run --config=... --workdir=...   (see tpu/lib.sh)
# 75: stopped at a safe point, 76: a worker was lost; start it again after either.
set -euo pipefail
# shellcheck source=tpu/lib.sh
source "$(dirname "$0")/lib.sh"
trap 'say "$NAME still exists and is billed until tpu/delete.sh --name=$NAME"' EXIT
run
