"""Sealed objects: packs of chunks, and the records that lie beside them in the same kind of envelope."""
