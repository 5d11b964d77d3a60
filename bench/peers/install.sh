#!/usr/bin/env bash
# Install the tools that bench.peers compares with: restic and borg. Needs root on Debian, or both on PATH already.
# An isolated borg 1.4 from PyPI is built where its headers are; else Debian's 1.2 serves.
set -euo pipefail
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  restic libacl1-dev libssl-dev liblz4-dev libzstd-dev libxxhash-dev pkg-config gcc python3-dev
target=${1:-/opt/borg}
python3 -m venv "$target"
"$target/bin/pip" install --quiet "borgbackup>=1.4,<1.5"
ln -sf "$target/bin/borg" /usr/local/bin/borg
if command -v go >/dev/null; then GOBIN=/usr/local/bin go install github.com/restic/restic/cmd/restic@latest; fi
borg --version
restic version
