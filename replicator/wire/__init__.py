"""What peers say to each other, as pure values. The sockets are in :mod:`replicator.transport`."""
