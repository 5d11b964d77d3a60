"""Tests of sealed objects."""
