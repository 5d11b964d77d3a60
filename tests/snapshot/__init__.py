"""Tests of replicator.snapshot."""
