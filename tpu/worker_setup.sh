# shellcheck shell=bash disable=SC2154  # REPO, COMMIT and NFS are set in front of this text by tpu/lib.sh
# Sent to every worker: the repository at COMMIT, and an environment of its own with the TPU extra.
trap 'echo "exit $?"' EXIT
set -euo pipefail
cd "$HOME"
if [ -n "$NFS" ] && ! mountpoint -q /mnt/ste; then
  command -v mount.nfs > /dev/null || { sudo apt-get update -qq && sudo apt-get install -y -qq nfs-common; }
  sudo mkdir -p /mnt/ste
  # What one worker has written all others must see at once.
  sudo mount -t nfs -o actimeo=0,lookupcache=none "$NFS" /mnt/ste
  sudo chmod 777 /mnt/ste
fi
[ -d ste_jax/.git ] || git clone --quiet "$REPO" ste_jax
cd ste_jax
git fetch --quiet origin
git checkout --quiet --detach "$COMMIT"
# The VM's own Python may be too old; uv brings one.
command -v ~/.local/bin/uv > /dev/null || python3 -m pip install --quiet --user uv
[ -x .venv/bin/python ] || ~/.local/bin/uv venv --quiet --python 3.11 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python -e '.[tpu]'
.venv/bin/python -c 'import ste_jax'
echo "ready: $(hostname) at $(git rev-parse HEAD)"
