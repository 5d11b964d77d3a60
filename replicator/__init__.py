"""Sealed, deduplicated, geo-replicated backup: everything that touches disk, network, keys or people.

Stands on ``chunker`` (bytes to chunks) and ``scheduler`` (which peer holds what). Layers, from the top:
cli, engine and provider, transport, snapshot / pack / catalog / wire / charter, store, crypto and format,
config / clock / rng / fs, ids and errors. ``lint-imports`` holds them.
"""

__version__ = "0.1.0"
