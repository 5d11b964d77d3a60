"""What a node has stored already, chunk by chunk: a seen-index on disk for each policy, beside the catalog.

An index is a cache of the table ``pack_ids`` and is made anew from it whenever it cannot be trusted. It may lie on
another disk than the catalog, so either of them may be put back from an older copy without the other, and row numbers
then mean other packs. So the catalog keeps with each policy a random owner, drawn whenever an index is made, and the
highest row number that this index can hold, written before it does. An index of another owner, or one that holds a
higher number, is of another life of this catalog: its places would be wrong, and a wrong place loses data.
"""

import os
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from chunker import ChunkId
from replicator.catalog.catalog import Catalog
from replicator.catalog.objects import split_ids
from replicator.fs import Fs
from replicator.rng import Rng

if TYPE_CHECKING:
    from chunker.seen import DiskSeenIndex  # imported where it is used: numpy takes a tenth of a second

_OWNER_BYTES = 16
_NUMBER_BYTES = 8


class SeenChunks:
    """Which pack of one writer holds a chunk. Threads may share it; whoever opens it holds the node's lock.

    There is an index for each policy, because a chunk may be stored on purpose under several, and an index answers with
    the newest place alone. An index is opened when it is first asked, and takes in then what the catalog has and it has
    not. Nothing has to be said to it when the catalog forgets a pack: a row number is never used again, so its rows
    answer to nobody who asks for packs that are ``good``.
    """

    def __init__(self, catalog: Catalog, folder: str, fs: Fs, *, writer: bytes, rng: Rng) -> None:
        self._catalog = catalog
        self._folder = folder
        self._fs = fs
        self._writer = writer
        self._rng = rng
        self._lock = threading.RLock()
        self._indexes: dict[bytes, DiskSeenIndex | None] = {}

    def lookup(self, ids: Sequence[bytes], policies: Sequence[bytes], good: Collection[int]) -> list[int | None]:
        """Return for each id the row id of a pack in ``good`` (a set) that holds it, None where none is known.

        Policies are asked in the order given. Large batches are fastest, most of all if sorted.
        """
        answers: list[int | None] = [None] * len(ids)
        left: Sequence[int] = range(len(ids))
        with self._lock:
            for policy in policies:
                if not left:
                    break
                asked = ids if len(left) == len(ids) else [ids[at] for at in left]
                found = self._places(policy, asked)
                for at, pack in zip(left, found, strict=False):
                    if pack in good:
                        answers[at] = pack
                if found:
                    left = [at for at in left if answers[at] is None]
        return answers

    def add(self, object_id: int, policy: bytes) -> None:
        """Take in a pack, and what else the catalog has of its policy before it, once its row is durable.

        Durable after :meth:`sync`; what a crash takes is read from the catalog the next time.
        """
        with self._lock:
            if self._indexes.get(policy) is None:
                self._indexes.pop(policy, None)  # it was looked for before there was anything to find
            index = self._opened(policy)
            if index is not None:
                self._take_in(policy, index, object_id)

    def sync(self) -> None:
        """Make all that was added durable."""
        from chunker.seen import SeenIndexError  # noqa: PLC0415 - see above

        with self._lock:
            for policy, index in list(self._indexes.items()):
                try:
                    if index is not None:
                        index.sync()
                except SeenIndexError:
                    self._make(policy)

    def close(self) -> None:
        """Close; what was not synced may have to be read from the catalog again. Idempotent.

        An index in which damage was met is made anew when it is opened next.
        """
        with self._lock:
            for policy, index in self._indexes.items():
                if index is not None:
                    if index.damaged:
                        self._catalog.set_meta(_key(policy), b"")
                    index.close()
            self._indexes = {}

    def _places(self, policy: bytes, ids: Sequence[bytes]) -> list[int | None]:
        """Return the pack that holds each chunk, by one policy's index; nothing if there is no such pack at all."""
        from chunker.seen import SeenIndexError  # noqa: PLC0415 - see above

        index = self._opened(policy)
        if index is None:
            return []
        asked = cast("Sequence[ChunkId]", ids)
        try:
            places = index.lookup(asked)
        except SeenIndexError:
            places = self._make(policy).lookup(asked)
        return [None if place is None else place[0] for place in places]

    def _opened(self, policy: bytes) -> "DiskSeenIndex | None":
        """Return a policy's index with all that the catalog has, None if that is nothing."""
        if policy in self._indexes:
            return self._indexes[policy]
        newest = self._catalog.objects.newest_pack(self._writer, policy)
        if newest is None:
            self._indexes[policy] = None
            return None
        index = self._trusted(policy)
        if index is None:
            return self._make(policy)
        self._indexes[policy] = index
        return self._take_in(policy, index, newest)

    def _take_in(self, policy: bytes, index: "DiskSeenIndex", upto: int) -> "DiskSeenIndex":
        """Add the catalog's packs up to a row number; return the index, or the one that had to be made instead."""
        from chunker.seen import SeenIndexError  # noqa: PLC0415 - see above

        if upto <= index.last_object:
            return index
        owner, _ = self._known(policy)
        self._remember(policy, owner, upto)
        try:
            for object_id, ids in self._packs(policy, after=index.last_object, upto=upto):
                index.add(object_id, ids)
        except SeenIndexError:
            return self._make(policy)
        return index

    def _trusted(self, policy: bytes) -> "DiskSeenIndex | None":
        """Open what lies in a policy's folder, None if it is not of this life of the catalog or is damaged."""
        from chunker.seen import DiskSeenIndex, SeenIndexError  # noqa: PLC0415 - see above

        owner, promised = self._known(policy)
        if not owner:
            return None
        try:
            index = DiskSeenIndex(self._place(policy), self._fs, owner=owner, random_bytes=self._rng.bytes)
        except SeenIndexError:
            return None
        if 0 <= index.last_object <= promised:
            return index
        index.close()
        return None

    def _make(self, policy: bytes) -> "DiskSeenIndex":
        """Make a policy's index from the catalog, under a new owner."""
        from chunker.seen import rebuild  # noqa: PLC0415 - see above

        old = self._indexes.pop(policy, None)
        if old is not None:
            old.close()
        newest = self._catalog.objects.newest_pack(self._writer, policy) or 0
        owner = self._rng.bytes(_OWNER_BYTES)
        self._remember(policy, owner, newest)
        index = self._indexes[policy] = rebuild(
            self._place(policy),
            self._fs,
            owner=owner,
            objects=self._packs(policy, after=-1, upto=newest),
            random_bytes=self._rng.bytes,
        )
        return index

    def _packs(self, policy: bytes, *, after: int, upto: int) -> Iterator[tuple[int, list[ChunkId]]]:
        for object_id, ids in self._catalog.objects.packs(self._writer, policy, after=after, upto=upto):
            yield object_id, cast("list[ChunkId]", split_ids(ids))

    def _known(self, policy: bytes) -> tuple[bytes, int]:
        """Return the owner of a policy's index, empty if there is none to trust, and the highest row number in it."""
        value = self._catalog.meta(_key(policy)) or b""
        return value[:_OWNER_BYTES], int.from_bytes(value[_OWNER_BYTES:], "big")

    def _remember(self, policy: bytes, owner: bytes, highest: int) -> None:
        self._catalog.set_meta(_key(policy), owner + highest.to_bytes(_NUMBER_BYTES, "big"))

    def _place(self, policy: bytes) -> str:
        return os.path.join(self._folder, policy.hex())


def _key(policy: bytes) -> str:
    return f"seen {policy.hex()}"
