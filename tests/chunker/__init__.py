"""Tests of the chunker package."""
