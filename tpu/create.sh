#!/usr/bin/env bash
# Requests one or more TPU slices as a queued resource, and waits until they are active.
#   bash tpu/create.sh --name=NAME --type=v6e-8   (see tpu/lib.sh)
# Refuses a name that is taken. Withdraws its own request when it is interrupted.
set -euo pipefail
# shellcheck source=tpu/lib.sh
source "$(dirname "$0")/lib.sh"
trap '[ $? = 0 ] || [ -z "$IN_CHARGE" ] || delete' EXIT
trap 'exit 130' INT TERM HUP
create
