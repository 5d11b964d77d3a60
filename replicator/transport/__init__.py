"""Carrying requests and objects between peers: the sockets around :mod:`replicator.wire`."""
