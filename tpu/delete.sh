#!/usr/bin/env bash
# Deletes the machines and waits until nothing is left that could be billed.   bash tpu/delete.sh --name=NAME ...   (see tpu/lib.sh)
set -euo pipefail
# shellcheck source=tpu/lib.sh
source "$(dirname "$0")/lib.sh"
delete
