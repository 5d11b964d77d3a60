"""The role that stores objects it cannot read: a synchronous core without sockets, its home, its daemon."""
