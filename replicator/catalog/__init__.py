"""What one half of a home remembers, in SQLite. A cache of the federation; datasets have a file of their own."""
