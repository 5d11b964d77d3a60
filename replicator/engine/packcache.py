"""Packs that were fetched, kept on the keeper's disk as they are: sealed, under their names, up to a size in all.

FOLDER/<name>    a pack, as providers hold it
FOLDER/order     names of 32 bytes, the one used longest ago first; may be lost
"""

import os
from collections import OrderedDict
from contextlib import suppress
from threading import Lock
from typing import Final

from replicator.format.merkle import NameHasher, name_of
from replicator.fs import Fs, ReadHandle, write_cached
from replicator.ids import NAME_SIZE, ObjectName

LIMIT: Final = 256 << 20
_ORDER: Final = "order"
_AT_ONCE: Final = 1 << 20


class CachedPack:
    """A pack in the cache, read from there piece by piece. Its file is closed when nobody has it any more.

    It was whole when it was opened; later the disk may give something else.
    """

    def __init__(self, file: ReadHandle) -> None:
        self._file = file

    def __len__(self) -> int:
        """Return how many bytes it has."""
        return self._file.size

    def __getitem__(self, part: slice, /) -> bytes:
        """Return some of its bytes, with a step of one; from any thread. Raises OSError."""
        start, stop, _ = part.indices(self._file.size)
        return self._file.read(start, max(0, stop - start))

    def __del__(self) -> None:
        self._file.close()


class PackCache:
    """A cache: what it cannot read or write it does not have, and nobody's work ends because of it.

    It may be used from any thread. Processes that use one folder at the same time see what the others keep, and may
    together keep more than the limit until the next one puts something in.
    """

    def __init__(self, folder: str, fs: Fs, limit: int = LIMIT) -> None:
        self._folder = folder
        self._fs = fs
        self._limit = limit
        self._lock = Lock()
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self._moved = False
        self._loaded = False

    def get(self, name: ObjectName) -> bytes | None:
        """Return a pack whose bytes are those of its name; others are removed."""
        with self._lock:
            try:
                self._load()
                data = self._fs.read(self._path(name))
            except OSError:
                return None
            return data if self._is_given(name, name_of(data), len(data)) else None

    def open(self, name: ObjectName) -> CachedPack | None:
        """Return a pack as :meth:`get` does, but to be read from the disk: it takes no memory."""
        with self._lock:
            try:
                self._load()
                pack = CachedPack(self._fs.open(self._path(name)))
                hasher = NameHasher()
                for at in range(0, len(pack), _AT_ONCE):
                    hasher.update(pack[at : at + _AT_ONCE])
            except OSError:
                return None
            return pack if self._is_given(name, hasher.name(), len(pack)) else None

    def _is_given(self, name: ObjectName, found: ObjectName, size: int) -> bool:
        if found != name:
            self._drop(name)
            return False
        self._sizes[name] = size
        self._sizes.move_to_end(name)
        self._moved = True
        return True

    def drop(self, name: ObjectName) -> None:
        """Have a pack no more."""
        with self._lock, suppress(OSError):
            self._load()
            self._drop(name)

    def put(self, name: ObjectName, data: bytes) -> None:
        """Keep a pack; those that were used longest ago go, if there is no room."""
        with self._lock, suppress(OSError):
            self._load()
            self._sizes.pop(name, None)
            self._make_room(len(data))
            if len(data) > self._limit:
                return
            self._fs.makedirs(self._folder)
            write_cached(self._fs, self._path(name), data)
            self._sizes[name] = len(data)
            self._moved = True

    def clear(self) -> None:
        """Remove all packs."""
        with self._lock, suppress(OSError):
            self._load()
            for name in list(self._sizes):
                self._drop(name)

    def settle(self) -> None:
        """Write down in which order packs were used, for the next process."""
        with self._lock, suppress(OSError):
            if self._moved:
                write_cached(self._fs, os.path.join(self._folder, _ORDER), b"".join(self._sizes))
                self._moved = False

    def _load(self) -> None:
        if self._loaded:
            return
        sizes: dict[bytes, int] = {}
        for name, size in self._fs.list_files(self._folder):
            if _is_name(name):
                sizes[bytes.fromhex(name)] = size
            elif name != _ORDER:
                self._fs.unlink(os.path.join(self._folder, name))  # what a crash left
        order = b""
        with suppress(OSError):
            order = self._fs.read(os.path.join(self._folder, _ORDER))
        used = [order[at : at + NAME_SIZE] for at in range(0, len(order), NAME_SIZE)]
        rank = {name: place for place, name in enumerate(used)}
        # What is in no order was put in by a process that did not settle it: nobody can say when it was used.
        self._sizes = OrderedDict(sorted(sizes.items(), key=lambda item: rank.get(item[0], -1)))
        self._loaded = True

    def _make_room(self, size: int) -> None:
        total = sum(self._sizes.values())
        while self._sizes and total + size > self._limit:
            name = next(iter(self._sizes))
            total -= self._sizes[name]
            self._drop(name)

    def _drop(self, name: bytes) -> None:
        self._sizes.pop(name, None)
        with suppress(OSError):
            self._fs.unlink(self._path(name))

    def _path(self, name: bytes) -> str:
        return os.path.join(self._folder, name.hex())


def _is_name(text: str) -> bool:
    return len(text) == 2 * NAME_SIZE and not text.strip("0123456789abcdef")
