"""Tests of the rules of charters."""
