"""Whole-process comparison with the tools that people would otherwise pick: borg, restic, rustic, kopia and replicator."""
