"""What one half of a home remembers, in SQLite. A cache of the federation, except where a table says otherwise."""
