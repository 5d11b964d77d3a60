"""Tests of replicator.store."""
