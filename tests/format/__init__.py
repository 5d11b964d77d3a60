"""Tests of record formats."""
