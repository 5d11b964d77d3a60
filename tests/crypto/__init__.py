"""Tests of keys and what is done with them."""
