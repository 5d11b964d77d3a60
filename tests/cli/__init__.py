"""Tests of the command line, from outside: real processes, real providers on loopback."""
