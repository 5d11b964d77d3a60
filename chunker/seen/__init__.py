"""The seen-index on disk: which chunks are stored already, and where.

    with DiskSeenIndex(folder, files, owner=catalog) as index:
        index.lookup([first, second])      # [Location(object_number=7, entry=0), None]
        index.add(8, [second])             # after the owner's books have object 8 durably
        index.sync()
        index.forget([7])                  # before the owner's books drop object 7

Apart from the rest of the package because it needs numpy, which takes a tenth of a second to import.
"""

from chunker.seen.errors import SeenIndexError
from chunker.seen.files import Files, WriteHandle
from chunker.seen.index import DiskSeenIndex, rebuild

__all__ = ["DiskSeenIndex", "Files", "SeenIndexError", "WriteHandle", "rebuild"]
