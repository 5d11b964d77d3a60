"""Golden vectors: what bytes must be, for ever."""
