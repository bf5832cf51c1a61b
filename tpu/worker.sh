#!/usr/bin/env bash
# Runs a command on a worker, in the environment made by worker_setup.sh; the last line of output is "exit CODE".
#
# A command that an earlier start left running (because its ssh connection broke, for example) is stopped first: two runs
# must not share a workdir. Before a preemption or maintenance the command gets SIGTERM, and with it time to save its work.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PID_FILE="$PWD/.running"
METADATA="http://metadata.google.internal/computeMetadata/v1/instance"
PATH="$PWD/.venv/bin:$PATH"
POLL_SECONDS="${POLL_SECONDS:-5}"

number="$(curl -sf -m 3 -H 'Metadata-Flavor: Google' "$METADATA/attributes/agent-worker-number")"
export STE_WORKER=$((${STE_FIRST:-0} + ${number:-0}))

termination_is_announced() {
  local preempted event
  preempted="$(curl -sf -m 3 -H 'Metadata-Flavor: Google' "$METADATA/preempted")"
  event="$(curl -sf -m 3 -H 'Metadata-Flavor: Google' "$METADATA/maintenance-event")"
  [ "$preempted" = TRUE ] || { [ -n "$event" ] && [ "$event" != NONE ]; }
}

# Prints what identifies a process for good: its id, the boot, and its start time. The id alone is reused.
identity() {
  local stat
  stat="$(cat "/proc/$1/stat" 2> /dev/null)" || return 1
  # Field 22 of the file; the name of the command, field 2, may hold spaces.
  read -ra stat <<< "${stat##*) }"
  echo "$1 $(cat /proc/sys/kernel/random/boot_id) ${stat[19]}"
}

stop_earlier() {
  local earlier pid _
  earlier="$(cat "$PID_FILE" 2> /dev/null)" || return 0
  pid="${earlier%% *}"
  [[ "$pid" =~ ^[0-9]+$ && "$(identity "$pid")" = "$earlier" ]] || return 0
  echo "stopping the command of an earlier start ($pid)"
  kill -TERM "$pid" 2> /dev/null || return 0
  for _ in $(seq 120); do
    kill -0 "$pid" 2> /dev/null || return 0
    sleep 1
  done
  kill -KILL "$pid"
}

# Becomes the command, after a record of its process that a later start finds. It may stay: it identifies no other process.
start() {
  identity "$BASHPID" > "$PID_FILE"
  exec "$@"
}

child="" signalled=""
# shellcheck disable=SC2329  # a trap calls it
pass_on() {
  signalled=1
  [ -z "$child" ] || kill -TERM "$child" 2> /dev/null
}

stop_earlier
trap pass_on TERM INT HUP
start "$@" 2>&1 &
child=$!
[ -z "$signalled" ] || pass_on
while kill -0 "$child" 2> /dev/null; do
  if termination_is_announced; then
    echo "this machine is about to be taken away: sending SIGTERM to the run, which saves its work"
    kill -TERM "$child"
    break
  fi
  sleep "$POLL_SECONDS" &
  wait -n "$child" $! 2> /dev/null
done
wait "$child"
code=$?
# A signal that this shell caught ends `wait` early.
while kill -0 "$child" 2> /dev/null; do
  wait "$child"
  code=$?
done
echo "exit $code"
