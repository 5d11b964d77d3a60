"""Telling people: alarms, who has been told of them, and the ways to somebody; and the same state for Prometheus."""
