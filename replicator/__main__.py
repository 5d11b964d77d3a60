"""``python -m replicator``."""

from replicator.cli.main import run

run()
