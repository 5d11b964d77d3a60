"""Tests of the scheduler: pure placement, its check and its explanations."""
