#!/usr/bin/env bash
# Creates the machines, sets them up, runs the command, starts it again after a preemption or exit code 75, and deletes the
# machines, however it ends.
#   bash tpu/watch.sh --name=NAME --type=v6e-8 -- ste run --config=... --workdir=...   (see tpu/lib.sh)
set -euo pipefail
# shellcheck source=tpu/lib.sh
source "$(dirname "$0")/lib.sh"
need_type
need_command

# shellcheck disable=SC2329  # a trap calls it
leave() {
  trap '' INT TERM HUP # a second Ctrl-C must not prevent the deletion
  # shellcheck disable=SC2046  # one word per job
  kill $(jobs -p) 2> /dev/null || true
  if [ -n "$KEEP" ]; then say "$NAME is kept and billed until tpu/delete.sh --name=$NAME"; else delete; fi
}
trap leave EXIT
trap 'exit 130' INT TERM HUP

for start in $(seq 0 "$RESTARTS"); do
  [ "$start" = 0 ] || { say "start $((start + 1))" && sleep "$POLL_SECONDS"; }
  if [ -n "$DRY_RUN" ] || ! is_ready; then
    delete # the rest of machines that were taken away still occupies the name
    create || continue
  fi
  code=0
  { setup && run; } || code=$?
  case "$code" in
    0) exit 0 ;;
    "$EXIT_STOPPED" | "$EXIT_PEER_LOST") ;;
    *) ! is_ready || die "failed with code $code; logs: $LOGS" ;;
  esac
done
die "given up after $RESTARTS restarts; finished work is on disk, the same command resumes from there"
