"""Tests of the whole project; each package has a folder of its own."""
