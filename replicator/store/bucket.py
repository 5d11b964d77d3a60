"""Objects as keys of a bucket: what a bucket is taken to be, what of it is believed, and the store on top.

    PREFIX<tenant>/objects/<64 hex digits>      PREFIX<tenant>/quarantine/<64 hex digits>

A bucket is a server elsewhere, so three things are believed only after a second look. That a write is there: its size
is asked for before a receipt is signed. That something is not there: only while the anchor, an object that was put when
the store was made, can be read (:class:`Anchored`); another bucket, a proxy or a wrong address has neither. That
something is deleted: it is asked for once more. What a bucket does not answer says nothing about an object.

Bytes come in to a file beside the database and go out in one request when their name has been verified: an object is
at most 16 MiB, every server takes that at once, and a part of an object can never lie there.
"""

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from replicator.errors import FormatError, IntegrityError, NotFoundError
from replicator.format.merkle import NameHasher, Proof, name_of
from replicator.format.sizes import is_allowed
from replicator.fs import Fs, WriteHandle
from replicator.ids import ObjectName, short
from replicator.store.base import State
from replicator.store.folder import parse_name, proofs_of
from replicator.store.incoming import IncomingFile, IncomingFolder, space_errors

ONE_BY_ONE: Final = 4
"""Up to so many names are asked for singly; a listing answers a thousand for the price of one."""


class BucketError(OSError):
    """A bucket did not do what it was asked to, or did not answer: nothing is known about any object by that.

    The text has no names. ``detail`` is what client or server said, which may.
    """

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(number, os.strerror(number))
        self.detail = detail


class Bucket(Protocol):
    """Bytes by key, elsewhere. Every method raises :class:`BucketError`; what it answers may be a lie."""

    def put(self, key: str, data: bytes, *, fresh: bool) -> bool:
        """Store all of it or nothing; with ``fresh`` only if nothing is there, else return False.

        Raises:
            SpaceError: it takes no more.
        """
        ...

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """Return bytes that there are, None if it says that there is no such key."""
        ...

    def size(self, key: str) -> int | None:
        """Return the size of what is there, None if it says that nothing is."""
        ...

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """Return the same of several, each of them asked for."""
        ...

    def pages(self, prefix: str, after: str = "") -> Iterator[list[tuple[str, int]]]:
        """Yield keys below a folder and their sizes, those that sort after a key, page by page as they are wanted."""
        ...

    def copy(self, key: str, target: str) -> None:
        """Put what is there in another place too, over whatever is there."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Delete; no error for what is not there."""
        ...


class Anchored:
    """A bucket that is believed that something is not there only while an object of ours is."""

    def __init__(self, bucket: Bucket, anchor: str, content: bytes) -> None:
        self._bucket = bucket
        self._anchor = anchor
        self._content = content

    def put(self, key: str, data: bytes, *, fresh: bool) -> bool:
        """Store."""
        return self._bucket.put(key, data, fresh=fresh)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | None:
        """Return bytes, None only if nothing is there."""
        found = self._bucket.get(key, offset, length)
        if found is None:
            self._insist()
        return found

    def size(self, key: str) -> int | None:
        """Return a size, None only if nothing is there."""
        found = self._bucket.size(key)
        if found is None:
            self._insist()
        return found

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """Return sizes, None only if nothing is there: the anchor is looked for once, when all were asked for."""
        found = self._bucket.sizes(keys)
        if None in found:
            self._insist()
        return found

    def pages(self, prefix: str, after: str = "") -> Iterator[list[tuple[str, int]]]:
        """Yield keys and sizes. What a listing lacks may be there all the same, but it ends only in our bucket."""
        yield from self._bucket.pages(prefix, after)
        self._insist()

    def copy(self, key: str, target: str) -> None:
        """Copy."""
        self._bucket.copy(key, target)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete."""
        self._bucket.delete(keys)

    def _insist(self) -> None:
        if self._bucket.get(self._anchor) != self._content:
            raise BucketError(errno.ENODEV, "the bucket is not the one that objects were put into")


def delete_surely(bucket: Bucket, keys: Sequence[str]) -> None:
    """Delete keys and look whether they are gone.

    Raises:
        BucketError: one is still there.
    """
    if not keys:
        return
    bucket.delete(keys)
    if any(size is not None for size in bucket.sizes(keys)):
        raise BucketError(errno.EREMOTEIO, "what was deleted is still there")


class BucketObjectStore:
    """An :class:`~replicator.store.base.ObjectStore` below a prefix of a bucket. One process at a time writes there."""

    def __init__(self, bucket: Bucket, prefix: str, fs: Fs, incoming: str) -> None:
        self._bucket = bucket
        self._objects = f"{prefix}objects/"
        self._quarantine = f"{prefix}quarantine/"
        self._fs = fs
        self._incoming = IncomingFolder(fs, incoming)
        self._placing = threading.Lock()
        self._listing = threading.Lock()
        self._known_aside: set[ObjectName] | None = None

    def prepare(self) -> None:
        """Remove what an interrupted upload left. Only while nobody else writes here."""
        self._fs.makedirs(self._incoming.path)
        self._incoming.clear()

    def begin(self, name: ObjectName, size: int) -> "BucketIncoming":
        """Begin to store an object."""
        if not is_allowed(size):
            raise FormatError(f"object: {size} bytes is not an allowed size")
        with space_errors(self._incoming.path):
            self._fs.makedirs(self._incoming.path)
            return BucketIncoming(self, self._fs, name, size, self._incoming.create(name))

    def read(self, name: ObjectName, offset: int = 0, length: int | None = None) -> bytes:
        """Return stored bytes, unverified."""
        if offset or length is not None:
            size = self.size(name)
            if size is None:
                raise NotFoundError(f"object {short(name)}: not here")
            end = size if length is None else min(size, offset + length)
            if offset >= end:
                return b""
            length = end - offset  # servers differ in what they say to a range that ends behind the end
        found = self._bucket.get(self._key(name), offset, length)
        if found is None:
            raise NotFoundError(f"object {short(name)}: not here")
        return found

    def size(self, name: ObjectName) -> int | None:
        """Return the size in the bucket now."""
        return self._bucket.size(self._key(name))

    def sizes(self, names: Sequence[ObjectName]) -> list[int | None]:
        """Return the same for several. A listing shows what is there; what it lacks is asked for."""
        if len(names) <= ONE_BY_ONE:
            return [self.size(name) for name in names]
        listed: dict[ObjectName, int] = {}
        wanted = sorted(set(names))
        at = 0
        while at < len(wanted):
            # From just before the next wanted name: a page that has passed it by answers all names up to its end.
            first = self._key(wanted[at])
            page = next(self._bucket.pages(self._objects, _before(first)), [])
            found = {name: size for name, size in self._named(page) if name >= wanted[at]}
            if not found:
                break
            listed |= found
            last = max(found)
            while at < len(wanted) and wanted[at] <= last:
                at += 1
        lacking = [name for name in wanted if name not in listed]
        asked = dict(zip(lacking, self._bucket.sizes([self._key(name) for name in lacking]), strict=True))
        return [listed[name] if name in listed else asked[name] for name in names]

    def prove(self, name: ObjectName, leaves: Sequence[int]) -> list[Proof | None]:
        """Return a proof for each leaf; the whole object is fetched for it, no hash is remembered."""
        try:
            data = self.read(name)
        except NotFoundError:
            return [None] * len(leaves)
        found = proofs_of(name, data, leaves)
        if found is None:
            self.check(name)
            return [None] * len(leaves)
        return found

    def check(self, name: ObjectName) -> State:
        """Fetch the whole object and compare it with its name."""
        if self._intact(name):
            return "good"
        with self._placing:
            if self.size(name) is None:
                return "missing" if self._bucket.size(self._quarantine_key(name)) is None else "damaged"
            if self._intact(name):
                return "good"  # it was stored again in between
            self._set_aside(name)
        return "damaged"

    def aside(self, name: ObjectName) -> bool:
        """Return whether it lies in quarantine and not in the store."""
        return self._bucket.size(self._quarantine_key(name)) is not None and self.size(name) is None

    def remove(self, name: ObjectName) -> None:
        """Remove an object for good."""
        with self._placing:
            delete_surely(self._bucket, [self._key(name)])

    def remove_all(self, names: Sequence[ObjectName]) -> None:
        """Remove objects for good, also from quarantine."""
        with self._placing:
            delete_surely(self._bucket, [self._key(name) for name in names])
            self._forget_aside(names)

    def list(self) -> list[tuple[ObjectName, int]]:
        """Return names and sizes in the bucket now; keys that are not called like objects are passed over."""
        return sorted(one for page in self._bucket.pages(self._objects) for one in self._named(page))

    def place(self, name: ObjectName, data: bytes) -> None:
        """Put a verified object into the bucket and look whether it is there. Called by :class:`BucketIncoming`."""
        key = self._key(name)
        if not self._bucket.put(key, data, fresh=True):
            with self._placing:
                if not self._intact(name):
                    self._set_aside(name)
                    self._bucket.put(key, data, fresh=True)
        if self.size(name) != len(data):
            raise BucketError(errno.EREMOTEIO, "what was written is not there")
        if name in self._asides():
            self._forget_aside([name])

    def _asides(self) -> set[ObjectName]:
        """Return what lies in quarantine. Listed once: nobody else writes there, and each put would ask twice more."""
        with self._listing:
            if self._known_aside is None:
                pages = self._bucket.pages(self._quarantine)
                self._known_aside = {name for page in pages for name, _ in self._named(page)}
            return self._known_aside

    def _forget_aside(self, names: Sequence[ObjectName]) -> None:
        aside = self._asides()
        there = [name for name in names if name in aside]
        delete_surely(self._bucket, [self._quarantine_key(name) for name in there])
        aside.difference_update(there)

    def _set_aside(self, name: ObjectName) -> None:
        if self.size(name) is None:
            return
        aside = self._quarantine_key(name)
        self._bucket.copy(self._key(name), aside)
        if self._bucket.size(aside) is None:
            raise BucketError(errno.EREMOTEIO, "what was copied is not there")
        self._asides().add(name)
        delete_surely(self._bucket, [self._key(name)])

    def _intact(self, name: ObjectName) -> bool:
        data = self._bucket.get(self._key(name))
        return data is not None and is_allowed(len(data)) and name_of(data) == name

    def _key(self, name: ObjectName) -> str:
        return self._objects + name.hex()

    def _quarantine_key(self, name: ObjectName) -> str:
        return self._quarantine + name.hex()

    def _named(self, page: Sequence[tuple[str, int]]) -> Iterator[tuple[ObjectName, int]]:
        for key, size in page:
            folder, _, last = key.rpartition("/")
            name = parse_name(last)
            if name is not None and f"{folder}/" in (self._objects, self._quarantine):
                yield name, size


def _before(key: str) -> str:
    """Return a key that sorts before a key of hex digits, with none of that kind between them."""
    return key[:-1] + chr(ord(key[-1]) - 1) + "~"


class BucketIncoming(IncomingFile):
    """An object on its way into a :class:`BucketObjectStore`."""

    def __init__(self, store: BucketObjectStore, fs: Fs, name: ObjectName, size: int, handle: WriteHandle) -> None:
        super().__init__(fs, name, size, handle, NameHasher())
        self._store = store

    def commit(self) -> None:
        """Make it an object: it is in the bucket, and was seen there, when this returns."""
        try:
            self.verify()
            self._handle.close()
            data = self._fs.read(self._handle.path)
            if name_of(data) != self.name:
                raise IntegrityError("object: this machine's disk gave back other bytes than were written")
            self._store.place(self.name, data)
        finally:
            self.abort()
