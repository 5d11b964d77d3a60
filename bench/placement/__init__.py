"""Placement sets beside straw2, rendezvous hashing, greedy and random placement, on seeded federations."""
