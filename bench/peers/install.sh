#!/usr/bin/env bash
# Install the tools that bench.peers compares with: Debian's restic and borg 1.4 from PyPI. Needs root on Debian.
# Newer ones on PATH are used as they are.
set -euo pipefail
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  restic libacl1-dev libssl-dev liblz4-dev libzstd-dev libxxhash-dev pkg-config gcc python3-dev
target=${1:-/opt/borg}
python3 -m venv "$target"
"$target/bin/pip" install --quiet "borgbackup>=1.4,<1.5"
ln -sf "$target/bin/borg" /usr/local/bin/borg
borg --version
restic version
