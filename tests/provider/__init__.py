"""Tests of replicator.provider."""
