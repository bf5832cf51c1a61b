#!/usr/bin/env bash
# Installs a git commit and its environment on all workers.   bash tpu/setup.sh --name=NAME ...   (see tpu/lib.sh)
set -euo pipefail
# shellcheck source=tpu/lib.sh
source "$(dirname "$0")/lib.sh"
setup
