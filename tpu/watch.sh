#!/usr/bin/env bash
# Creates the machines, sets them up, runs the command, starts it again after a preemption or exit code 75, and deletes the
# machines, however it ends. Machines of that name that exist already are used, and deleted, only with --adopt.
#   bash tpu/watch.sh --name=NAME --type=v6e-8 -- ste run --config=... --workdir=...   (see tpu/lib.sh)
set -euo pipefail
# shellcheck source=tpu/lib.sh
source "$(dirname "$0")/lib.sh"
need_type
need_command
[ "$CODE" = tarball ] || find_origin # before anything is billed

# shellcheck disable=SC2329  # a trap calls it
leave() {
  trap '' INT TERM HUP # a second Ctrl-C must not prevent the deletion
  # shellcheck disable=SC2046  # one word per job
  kill $(jobs -p) 2> /dev/null || true
  [ -n "$IN_CHARGE" ] || return 0
  if [ -n "$KEEP" ]; then say "$NAME is kept and billed until tpu/delete.sh --name=$NAME"; else delete; fi
}
trap leave EXIT
trap 'exit 130' INT TERM HUP

# Makes the machines ready; fails if they were taken away meanwhile.
prepare() {
  if [ -z "$DRY_RUN" ]; then
    if is_ready; then
      is_ours || name_is_taken
      return 0
    fi
    [ "$STATE" = GONE ] || [ "$STATE" = UNKNOWN ] || is_ours || name_is_taken
    case "$STATE" in
      ACCEPTED | WAITING_FOR_RESOURCES | CREATING | PROVISIONING | UNKNOWN) ! wait_until_active || return 0 ;;
    esac
  fi
  delete # the rest of machines that were taken away still occupies the name
  create
}

if [ -z "$DRY_RUN" ]; then
  look_until_known
  case "$STATE" in
    GONE) ;;
    FAILED | SUSPENDED) if is_ours; then IN_CHARGE=1; else adopt; fi ;; # what an earlier call left
    *) adopt ;;
  esac
fi
for start in $(seq 0 "$RESTARTS"); do
  [ "$start" = 0 ] || { say "start $((start + 1))" && sleep "$POLL_SECONDS"; }
  prepare || continue
  code=0
  { setup && run; } || code=$?
  case "$code" in
    0) exit 0 ;;
    "$EXIT_STOPPED" | "$EXIT_PEER_LOST") ;;
    *) ! is_ready || die "failed with code $code; logs: $LOGS" ;;
  esac
done
die "given up after $RESTARTS restarts; finished work is on disk, the same command resumes from there"
