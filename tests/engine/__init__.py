"""Tests of replicator.engine."""
