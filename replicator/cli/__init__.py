"""The command line: each command parses, calls one use case and hands the result to the output."""
