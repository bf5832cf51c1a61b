#!/usr/bin/env bash
# Shared functions of the scripts in this folder, which source it with their arguments.
#
#   --name=NAME           name of the queued resource and prefix of its nodes
#   --type=TYPE           accelerator type, such as v4-16, v5litepod-16, v5p-128, v6e-64
#   --project=ID --zone=ZONE                 project and zone (default: those of gcloud)
#   --slices=N            number of slices of that type (default 1)
#   --tier=spot|on-demand|reserved           provisioning (default spot); --reservation=NAME names one of several
#   --runtime=VERSION     software version of the TPU VM (default: by type)
#   --repo=URL --commit=HASH                 commit that the workers check out (default: origin and HEAD of this checkout)
#   --code=git|tarball    how the commit reaches the workers: they clone it (default), or an archive of it is copied to them,
#                         for repositories that they cannot read
#   --nfs=SERVER:/SHARE   share to mount as /mnt/ste on every worker, for a common workdir
#   --logs=FOLDER         folder of the logs, with one folder per start (default logs/NAME)
#   --restarts=N          maximum number of restarts by watch.sh (default 20)
#   --keep                watch.sh keeps the machines at its end; they are billed
#   --adopt               watch.sh and delete.sh take over machines of that name that they did not create
#   --dry-run             print every command, run none
#   -- COMMAND ...        command that run.sh and watch.sh start on all workers
# shellcheck disable=SC2034  # watch.sh reads RESTARTS and KEEP, create.sh IN_CHARGE
set -euo pipefail

readonly EXIT_STOPPED=75 # ste stopped at a safe point; the same command resumes from there
readonly EXIT_PEER_LOST=76      # a worker was lost; `ste` on the others exits with this code
POLL_SECONDS="${POLL_SECONDS:-20}"
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# Prints the first comment of the script and of this file.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  echo
  sed -n '4,/^[^#]/{/shellcheck/d;s/^# \{0,1\}//p}' "$HERE/lib.sh"
}

say() { echo "[$(date -u +%H:%M:%S)] $*" >&2; }

# ---- arguments ---------------------------------------------------------------

NAME="" TYPE="" PROJECT="" ZONE="" SLICES=1 TIER=spot RESERVATION="" RUNTIME="" REPO="" COMMIT="" NFS="" LOGS=""
CODE=git RESTARTS=20 KEEP="" ADOPT="" DRY_RUN="" COMMAND=()
while [ $# -gt 0 ]; do
  case "$1" in
    --name=* | --type=* | --project=* | --zone=* | --slices=* | --tier=* | --reservation=* | --runtime=* | --repo=* | \
      --commit=* | --code=* | --nfs=* | --logs=* | --restarts=*)
      key="${1%%=*}"
      key="${key#--}"
      printf -v "${key^^}" %s "${1#*=}"
      ;;
    --keep) KEEP=1 ;;
    --adopt) ADOPT=1 ;;
    --dry-run) DRY_RUN=1 ;;
    --help | -h)
      usage
      exit 0
      ;;
    --)
      shift
      COMMAND=("$@")
      break
      ;;
    *) die "unknown argument $1; the top of tpu/lib.sh lists all of them" ;;
  esac
  shift
done
[[ "$NAME" =~ ^[a-z][-a-z0-9]{0,39}$ ]] || die "--name must be lower-case letters, digits and dashes, not '$NAME'"
[[ "$SLICES" =~ ^[1-9][0-9]*$ ]] || die "--slices must be 1 or more, not '$SLICES'"
[[ "$TIER" =~ ^(spot|on-demand|reserved)$ ]] || die "--tier must be spot, on-demand or reserved, not '$TIER'"
[[ "$CODE" =~ ^(git|tarball)$ ]] || die "--code must be git or tarball, not '$CODE'"
LOGS="${LOGS:-logs/$NAME}"
# Holds the time of creation of the machines that a script created or adopted, until they are deleted; or REQUESTED while
# a script requests them: if it is killed then, nobody knows whether they exist, and whose the machines of that name are.
CREATED_FILE="$LOGS/.created"
readonly REQUESTED=requested
LOGS="$LOGS/$(date -u +%Y%m%dT%H%M%SZ)" STEPS=0
# Set once this call created or adopted the machines. Nothing else may be deleted when it ends.
IN_CHARGE=""
WHERE=(${PROJECT:+--project="$PROJECT"} ${ZONE:+--zone="$ZONE"})

need_type() { [ -n "$TYPE" ] || die "--type is missing, as --type=v6e-8"; }

need_command() { [ "${#COMMAND[@]}" -gt 0 ] || die "the command is missing: ... -- ste run --config=... --workdir=..."; }

# ---- gcloud ------------------------------------------------------------------

# Runs a command that changes something; a dry run prints it instead.
act() {
  if [ -n "$DRY_RUN" ]; then
    printf '+' >&2
    printf ' %q' "$@" >&2
    echo >&2
  else
    "$@"
  fi
}

tpus() { act gcloud compute tpus "$1" "$2" "${@:3}" "${WHERE[@]}" --quiet; }

nodes() {
  if [ "$SLICES" = 1 ]; then echo "$NAME"; else seq -f "$NAME-%g" 0 $((SLICES - 1)); fi
}

# Sets STATE to the state of the queued resource (GONE if there is none, UNKNOWN if gcloud fails), and CREATED to its time
# of creation, which is noted if this call has requested it.
look() {
  local out
  STATE=UNKNOWN CREATED=""
  if out="$(gcloud compute tpus queued-resources describe "$NAME" "${WHERE[@]}" --format='value(state.state,createTime)' 2>&1)"; then
    read -r STATE CREATED <<< "${out##*$'\n'}"
    [ -z "$IN_CHARGE" ] || [ "$(noted)" != "$REQUESTED" ] || note "$CREATED"
  elif [[ "$out" == *NOT_FOUND* || "$out" == *"not found"* ]]; then
    STATE=GONE
  else
    say "gcloud cannot describe $NAME: $out"
  fi
}

# Does what `look` does, again after a while if gcloud fails.
look_until_known() {
  local _
  for _ in $(seq 15); do
    look
    [ "$STATE" = UNKNOWN ] || return 0
    sleep "$POLL_SECONDS"
  done
  die "gcloud cannot describe $NAME (above); nothing was changed"
}

# Succeeds if every node exists and is ready.
is_ready() {
  local node found
  look
  [ "$STATE" = ACTIVE ] || return 1
  for node in $(nodes); do
    found="$(gcloud compute tpus tpu-vm describe "$node" "${WHERE[@]}" --format='value(state)' 2> /dev/null)" || return 1
    [ "$found" = READY ] || return 1
  done
}

# Prints "NODE/WORKER" for every worker; fails if a node is gone.
workers() {
  local node found worker
  for node in $(nodes); do
    found="$(gcloud compute tpus tpu-vm describe "$node" "${WHERE[@]}" --format='value(networkEndpoints[].ipAddress)')" || return 1
    worker=0
    for _ in ${found//;/ }; do
      echo "$node/$((worker++))"
    done
  done
}

# ---- whose machines they are --------------------------------------------------

noted() { cat "$CREATED_FILE" 2> /dev/null || true; }

# Succeeds if the queued resource that `look` found was created or adopted by a script from this folder.
is_ours() { [ -n "$CREATED" ] && [ "$(noted)" = "$CREATED" ]; }

# Replaces the note, at once: a kill leaves the old one or the new one.
note() {
  [ -z "$DRY_RUN" ] || return 0
  mkdir -p "${CREATED_FILE%/*}"
  echo "$1" > "$CREATED_FILE.new"
  mv "$CREATED_FILE.new" "$CREATED_FILE"
}

# Makes this call responsible for the queued resource that `look` found, with --adopt only.
adopt() {
  local why="was not created by this command"
  [ "$(noted)" != "$REQUESTED" ] || why="may be what a command requested here before it was killed, or somebody else's"
  [ -n "$ADOPT" ] || die "$NAME exists already ($STATE, since $CREATED) and $why: it is left alone;" \
    "choose another --name, or take the machines over with --adopt"
  say "$NAME exists already ($STATE) and is taken over"
  IN_CHARGE=1
  note "$CREATED"
}

# ---- create and delete -------------------------------------------------------

default_runtime() {
  case "$TYPE" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v4-* | v3-* | v2-*) echo tpu-ubuntu2204-base ;;
    *) die "unknown type $TYPE: set --runtime (TPU7x has no queued resources: use tpu/jobset.yaml)" ;;
  esac
}

# Refuses a size that no flat slice has; the other generations have too many sizes for a table here.
check_size() {
  [[ ! "$TYPE" =~ ^(v5litepod|v6e)- ]] || [[ "${TYPE#*-}" =~ ^(1|4|8|16|32|64|128|256)$ ]] ||
    die "there is no slice $TYPE: sizes of ${TYPE%%-*} are 1, 4, 8, 16, 32, 64, 128 and 256 chips"
}

# Requests the machines and waits until they are active; fails if they were taken away meanwhile.
create() {
  local version tier=() size=(--node-id="$NAME")
  need_type
  check_size
  version="${RUNTIME:-$(default_runtime)}"
  [ "$SLICES" = 1 ] || size=(--node-count="$SLICES" --node-prefix="$NAME")
  case "$TIER" in
    spot) tier=(--spot) ;;
    reserved) if [ -n "$RESERVATION" ]; then tier=(--reservation="$RESERVATION"); else tier=(--reserved); fi ;;
  esac
  request "${size[@]}" --accelerator-type="$TYPE" --runtime-version="$version" "${tier[@]}"
  [ -n "$DRY_RUN" ] || wait_until_active
}

# Requests a queued resource with these flags. A name that is taken is left alone: no failure makes it ours.
request() {
  local out
  if [ -z "$DRY_RUN" ]; then
    look_until_known
    [ "$STATE" = GONE ] || name_is_taken
  fi
  say "requesting $SLICES x $TYPE ($TIER): billed from ACTIVE on, until tpu/delete.sh --name=$NAME"
  # Before the call: when it is interrupted or its answer is lost, the machines may exist.
  IN_CHARGE=1
  note "$REQUESTED"
  if out="$(tpus queued-resources create "$NAME" "$@" 2>&1)"; then
    [ -z "$out" ] || echo "$out" >&2
    return 0
  fi
  echo "$out" >&2
  if [[ "$out" == *ALREADY_EXISTS* || "$out" == *"already exists"* ]]; then
    disown_machines
    name_is_taken
  fi
  look
  # A refusal made nothing: what has the name now is somebody else's.
  if [ "$STATE" = GONE ] || is_refusal "$out"; then
    disown_machines
    die "the request was refused (above: quota, reservation, type or zone); nothing is billed"
  fi
  die "the request failed (above), but $NAME exists ($STATE)"
}

# Succeeds if an answer of gcloud says that a request was refused, and not that its outcome is unknown.
is_refusal() {
  [[ "$1" =~ RESOURCE_EXHAUSTED|PERMISSION_DENIED|INVALID_ARGUMENT|FAILED_PRECONDITION|NOT_FOUND|UNAUTHENTICATED ]]
}

name_is_taken() {
  die "the name $NAME is taken: its queued resource is left alone; choose another --name"
}

# Forgets machines that do not exist, or that somebody else created.
disown_machines() {
  IN_CHARGE=""
  rm -f "$CREATED_FILE"
}

wait_until_active() {
  local last=""
  while true; do
    look
    [ "$STATE" = "$last" ] || say "$NAME: $STATE"
    last="$STATE"
    [ -z "$CREATED" ] || is_ours || name_is_taken
    case "$STATE" in
      ACTIVE) if is_ready; then return 0; fi ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING | GONE) return 1 ;;
    esac
    sleep "$POLL_SECONDS"
  done
}

# Deletes the machines that are ours, and waits until nothing is left that could be billed.
delete() {
  local _
  for _ in $(seq 15); do
    if [ -z "$DRY_RUN" ]; then
      look
      # Whose the name is now, nobody knows: somebody may have taken it since the last answer.
      if [ "$STATE" = UNKNOWN ]; then
        sleep "$POLL_SECONDS"
        continue
      fi
      if [ "$STATE" != GONE ] && ! is_ours; then
        say "$NAME is somebody else's and left alone"
        disown_machines
        return 0
      fi
      if [ "$STATE" = GONE ]; then
        say "$NAME is deleted"
        disown_machines
        return 0
      fi
    fi
    tpus queued-resources delete "$NAME" --force || true
    [ -z "$DRY_RUN" ] || return 0
    sleep "$POLL_SECONDS"
  done
  die "$NAME STILL EXISTS AND MAY BE BILLED: delete it in the console, or with tpu/delete.sh --name=$NAME"
}

# ---- on the workers ----------------------------------------------------------

# Runs a script on every worker of every node. The output goes to LOGS/N-STEP/NODE/WORKER.log, that of worker 0
# also to the terminal. Every worker must end with a line "exit CODE" (see tpu/worker.sh). Returns the verdict.
on_workers() {
  local step="$1" script="$2" folder node pids=() stream="" all="" first=0 count=1
  [ -n "$DRY_RUN" ] || all="$(workers)" || return "$EXIT_PEER_LOST"
  count="$(wc -w <<< "$all")"
  folder="$LOGS/$((++STEPS))-$step"
  for node in $(nodes); do
    act mkdir -p "$folder/$node"
    tpus tpu-vm ssh "$node" --worker=all --output-directory="$folder/$node" \
      --command="export STE_FIRST=$first STE_WORKERS=$count; $script" &
    pids+=($!)
    first=$((first + $(grep -c "^$node/" <<< "$all" || true)))
  done
  if [ -z "$DRY_RUN" ]; then
    tail -s 0.2 -n +1 -F "$folder/$(nodes | head -n 1)/0.log" 2> /dev/null &
    stream=$!
  fi
  wait "${pids[@]}" || true # the exit code of each worker is in its log
  [ -z "$stream" ] || { sleep 0.5 && kill "$stream"; }
  [ -n "$DRY_RUN" ] || verdict "$folder" "$all"
}

# Returns the code for the whole step, the first that applies: EXIT_STOPPED if a worker stopped at a safe point;
# EXIT_PEER_LOST if a log has no exit code; the code of a worker that failed; EXIT_PEER_LOST if a worker was killed or
# ended because another one was lost; 0.
verdict() {
  local folder="$1" worker code worst=0 silent=""
  for worker in $2; do
    code="$(sed -n 's/^exit \([0-9][0-9]*\)$/\1/p' "$folder/$worker.log" 2> /dev/null | tail -n 1)"
    [ -n "$code" ] || silent=1
    code="${code:-$EXIT_PEER_LOST}"
    [ "$code" = 0 ] || say "worker ${worker#*/} of ${worker%/*} ended with $code ($folder/$worker.log)"
    [ "$code" -lt 128 ] || code="$EXIT_PEER_LOST"
    case "$code" in
      0) ;;
      "$EXIT_STOPPED") worst="$code" ;;
      "$EXIT_PEER_LOST") [ "$worst" != 0 ] || worst="$code" ;;
      *) [ "$worst" = "$EXIT_STOPPED" ] || worst="$code" ;;
    esac
  done
  [ -z "$silent" ] || [ "$worst" = "$EXIT_STOPPED" ] || worst="$EXIT_PEER_LOST"
  return "$worst"
}

# Copies a file to the home folder of every worker, under a name that begins with a dot.
send() {
  local node
  for node in $(nodes); do
    tpus tpu-vm scp "$1" "$node:$2" --worker=all || return
  done
}

# Copies an archive of the commit to all workers.
send_code() {
  local archive
  archive="$(mktemp)"
  act git -C "$HERE/.." archive --format=tar.gz --output="$archive" "$1"
  send "$archive" .ste_code.tar.gz
  rm -f "$archive"
}

# Copies HF_TOKEN to all workers as a file that only the user can read. It is on no command line, which other users of a
# machine could see, and not in the metadata of the machines.
send_token() {
  local file
  file="$(umask 077 && mktemp)"
  printf %s "$HF_TOKEN" > "$file"
  send "$file" .ste_hf_token
  rm -f "$file"
}

# Sets ORIGIN to the repository that the workers clone.
find_origin() {
  ORIGIN="$REPO"
  [ -n "$ORIGIN" ] || ORIGIN="$(git -C "$HERE" remote get-url origin 2> /dev/null)" ||
    die "this checkout has no remote origin that workers could clone: name one with --repo=URL, or use --code=tarball"
}

# Installs the commit and its environment on all workers; tries twice, because networks fail.
setup() {
  local commit script
  ORIGIN=""
  commit="${COMMIT:-$(git -C "$HERE" rev-parse HEAD)}"
  [ "$CODE" = tarball ] || find_origin
  [ -z "${HF_TOKEN:-}" ] || send_token || die "HF_TOKEN could not be copied to the workers"
  [ "$CODE" = git ] || send_code "$commit" || die "the code could not be copied to the workers"
  script="$(printf 'REPO=%q COMMIT=%q NFS=%q\n' "$ORIGIN" "$commit" "$NFS" && cat "$HERE/worker_setup.sh")"
  say "setting up all workers at $commit"
  on_workers setup "$script" || on_workers setup "$script"
}

# Runs COMMAND on all workers.
run() {
  need_command
  on_workers run "bash ste_jax/tpu/worker.sh $(printf '%q ' "${COMMAND[@]}")"
}
