#!/usr/bin/env bash
# Install the tools that bench.peers compares with: Debian's restic, borg 1.4 from PyPI, rustic from crates.io and kopia
# from the Go module proxy, the last two where there is a cargo, or a go, new enough. Needs root on Debian and some
# twenty minutes: all but restic are compiled, one job at a time. What is on PATH already is used as it is.
set -euo pipefail
prefix=${1:-/opt}
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin
left=()

have() { command -v "$1" > /dev/null; }

if ! have restic || ! have borg; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    restic libacl1-dev libssl-dev liblz4-dev libzstd-dev libxxhash-dev pkg-config gcc python3-dev
fi
if ! have borg; then
  python3 -m venv "$prefix/borg"
  nice "$prefix/borg/bin/pip" install --quiet "borgbackup>=1.4,<1.5"
  ln -sf "$prefix/borg/bin/borg" /usr/local/bin/borg
fi
if ! have rustic; then
  # Without its interfaces for WebDAV, terminals and metrics, which no backup uses; thin linking takes half the time.
  if have cargo && CARGO_PROFILE_RELEASE_LTO=thin CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    nice cargo install --quiet --locked --jobs 1 --no-default-features --root "$prefix/rustic" rustic-rs@0.11.4; then
    ln -sf "$prefix/rustic/bin/rustic" /usr/local/bin/rustic
  else
    left+=("rustic (a cargo of Rust 1.91 or newer: rustup.rs)")
  fi
fi
if ! have kopia; then
  # As what a module of ours stands on: `go install` asks the proxy for a list of versions that it does not have. Go
  # gives what it builds no version of its own, and kopia's pages for browsers are left out.
  building=$(mktemp -d)
  printf 'module building\n\ngo 1.25\n\nrequire github.com/kopia/kopia v0.22.3\n' > "$building/go.mod"
  printf '//go:build tools\n\npackage building\n\nimport _ "github.com/kopia/kopia"\n' > "$building/tools.go"
  if have go && (cd "$building" && GOFLAGS="-mod=mod -p=1" nice go build -tags nohtmlui -o "$prefix/kopia/bin/kopia" \
    -ldflags "-s -w -X github.com/kopia/kopia/repo.BuildVersion=0.22.3" github.com/kopia/kopia); then
    ln -sf "$prefix/kopia/bin/kopia" /usr/local/bin/kopia
  else
    left+=("kopia (a go of 1.25 or newer: go.dev)")
  fi
  rm -rf "$building"
fi
for tool in borg restic rustic kopia; do
  if have "$tool"; then "$tool" --version 2> /dev/null || "$tool" version; fi
done
for one in "${left[@]}"; do echo "left out: $one"; done
