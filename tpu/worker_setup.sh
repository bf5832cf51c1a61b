# shellcheck shell=bash disable=SC2154  # REPO, COMMIT and NFS are set in front of this text by tpu/lib.sh
# Sent to every worker: mounts the share, checks out REPO at COMMIT (or unpacks the archive that was copied here, if REPO is
# empty), and makes its environment with the TPU extra.
trap 'echo "exit $?"' EXIT
set -euo pipefail
cd "$HOME"
MOUNT="${MOUNT:-/mnt/ste}"
if [ -n "$NFS" ] && ! mountpoint -q "$MOUNT"; then
  command -v mount.nfs > /dev/null || { sudo apt-get update -qq && sudo apt-get install -y -qq nfs-common; }
  sudo mkdir -p "$MOUNT"
  # Each worker must see at once what another one has written.
  sudo mount -t nfs -o actimeo=0,lookupcache=none "$NFS" "$MOUNT"
  # A new share belongs to root.
  [ "$(stat -c %u "$MOUNT")" != 0 ] || sudo chown "$(id -u):$(id -g)" "$MOUNT"
fi
if [ -n "$NFS" ] && [ ! -w "$MOUNT" ]; then
  echo "$(hostname): user $(id -u) cannot write $MOUNT, which belongs to user $(stat -c %u "$MOUNT")." \
    "The user needs the same id on all workers: enable OS Login, or chown the share"
  exit 1
fi
if [ -f .ste_hf_token ]; then
  # Where huggingface_hub looks for it.
  mkdir -p .cache/huggingface
  chmod 600 .ste_hf_token
  mv .ste_hf_token .cache/huggingface/token
fi
if [ -n "$REPO" ]; then
  [ -d ste_jax/.git ] || git clone --quiet "$REPO" ste_jax
  cd ste_jax
  git fetch --quiet origin
  git checkout --quiet --detach "$COMMIT"
else
  mkdir -p ste_jax
  # Files of an earlier commit would stay otherwise. The environment and the process id of a run are no part of it.
  find ste_jax -mindepth 1 -maxdepth 1 ! -name .venv ! -name .running -exec rm -rf {} +
  tar -xzf .ste_code.tar.gz -C ste_jax
  cd ste_jax
fi
# The VM's own Python may be too old; uv installs another one.
command -v ~/.local/bin/uv > /dev/null || python3 -m pip install --quiet --user uv
[ -x .venv/bin/python ] || ~/.local/bin/uv venv --quiet --python 3.11 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python -e '.[tpu,select,report]'
.venv/bin/python -c 'import ste_jax'
echo "ready: $(hostname) at $COMMIT"
