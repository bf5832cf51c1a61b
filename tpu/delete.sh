#!/usr/bin/env bash
# Deletes the machines and waits until nothing is left that could be billed.   bash tpu/delete.sh --name=NAME ...   (see tpu/lib.sh)
# Deletes what a script created from this folder; machines of another origin only with --adopt.
set -euo pipefail
# shellcheck source=tpu/lib.sh
source "$(dirname "$0")/lib.sh"
if [ -z "$DRY_RUN" ]; then
  look_until_known
  [ "$STATE" = GONE ] || is_ours || adopt
fi
delete
