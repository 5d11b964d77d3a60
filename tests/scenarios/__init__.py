"""Many peers in one process: fake clock, in-memory network, faults."""
