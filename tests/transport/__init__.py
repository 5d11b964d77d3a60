"""Tests of replicator.transport."""
