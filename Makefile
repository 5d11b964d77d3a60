# One-line targets. `make demo` and `make test` need Python 3.11 (headers and venv), gcc and make; the rest follows.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: sync borg swift test test-slow demo style format types layers nix nix-stories check bench bench-peers bench-restores lock clean

sync: $(STAMP)

$(STAMP): pyproject.toml requirements/dev.txt chunker/csrc/module.c chunker/csrc/scan.c chunker/csrc/scan.h
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "replicator needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

# For the tests that need one, where the machine has no borg: pip compiles it, which takes a minute and the headers of
# OpenSSL, ACL, lz4, zstd and xxhash. Without those the tests are skipped, and say so.
borg: sync
	@command -v borg > /dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/borg.txt \
	  || echo "borg cannot be built here (libssl-dev, libacl1-dev, liblz4-dev, libzstd-dev, libxxhash-dev): its tests are skipped"

# A server of S3 for the slow tests of buckets, in an environment of its own; without it they are skipped, and say so.
swift:
	test -x build/swift/bin/swift-proxy-server || { $(PYTHON) -m venv build/swift && build/swift/bin/python -m pip install --quiet --disable-pip-version-check swift==2.38.3; }

# Two processes, one for each of CI's cores. What tests Ctrl-C stays in front: the shell lets what is behind ignore it.
BEHIND := tests/scenarios
test test-slow: export PATH := $(PATH):$(abspath $(BIN))
test: sync
	@mkdir -p build; \
	$(BIN)/python -m pytest -m "not slow" $(BEHIND) > build/tests-behind.log 2>&1 & behind=$$!; \
	trap 'kill $$behind; exit 130' INT TERM; \
	$(BIN)/python -m pytest -m "not slow" $(addprefix --ignore=,$(BEHIND)); front=$$?; \
	wait $$behind; behind=$$?; cat build/tests-behind.log; \
	test $$front -eq 0 && test $$behind -eq 0

test-slow: sync
	$(BIN)/python -m pytest -m slow

demo: sync
	$(BIN)/python -m tests.demo

style: sync
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: sync
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .
	command -v nixfmt > /dev/null && find nix -name '*.nix' -exec nixfmt {} + || echo "nix/ is left as it is: no nixfmt on PATH"

types: sync
	$(BIN)/mypy

layers: sync
	$(BIN)/lint-imports

nix: sync
	PATH="$(abspath $(BIN)):$$PATH" nix/tests/quick

# The modules' stories in containers; root, Debian, some four minutes and the Debians before the first.
nix-stories: sync
	nix/tests/stories $(VENV)

check: style types layers test

bench: sync
	$(BIN)/python -m pytest bench --benchmark-only

# The other tools are measured where they are on PATH (bench/peers/install.sh); needs 80 GB at WORK and two hours.
WORK ?= build/peers
ROUNDS ?= 3
bench-peers: sync
	@for tool in borg restic rustic kopia; do command -v $$tool > /dev/null || echo "$$tool is not on PATH, so it is left out; bench/peers/install.sh installs it"; done
	$(BIN)/python -m bench.peers --work $(WORK) --rounds $(ROUNDS)

bench-restores: sync
	$(BIN)/python -m bench.peers.restores --work $(WORK) --rounds $(ROUNDS)

lock: sync
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements/run.txt pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra borg --output-file requirements/borg.txt pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra dev --output-file requirements/dev.txt pyproject.toml

clean:
	rm -rf $(VENV) build *.egg-info chunker/_kernel*.so
