"""Objects as files of one folder, each called by the 64 hex digits of its name.

The order of a write is fixed, and each step has a crash test that fails without it:

    1 every byte in a file of the incoming folder   4 fsync the objects folder
    2 fsync that file                               5 unlink the incoming name
    3 link it into the objects folder, never over another

A file that is in the way with wrong bytes is moved to the quarantine folder first. Quarantine keeps one file
for each name, until the object has been stored again: its segments may be all that is left of something.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Sequence

from replicator.errors import FormatError, NotFoundError
from replicator.format.merkle import LEAF_SIZE, NameHasher, Proof, hashes_of, leaf_count, name_of, prove, proves
from replicator.format.sizes import is_allowed
from replicator.fs import Fs, WriteHandle
from replicator.ids import NAME_SIZE, ObjectName, short
from replicator.store.base import State
from replicator.store.incoming import IncomingFile, IncomingFolder, space_errors

BAD_MEDIA = (errno.EIO, errno.EBADMSG, errno.EUCLEAN)


class FolderObjectStore:
    """An :class:`~replicator.store.base.ObjectStore` on a POSIX file system. The three folders share one."""

    def __init__(self, fs: Fs, *, folder: str, incoming: str, quarantine: str) -> None:
        self._fs = fs
        self._folder = folder
        self._incoming = IncomingFolder(fs, incoming)
        self._quarantine = quarantine
        self._placing = threading.Lock()

    def prepare(self) -> None:
        """Make the folders and remove what an interrupted write left. Only while nobody else writes here."""
        self._make_folders()
        self._incoming.clear()

    def put_named(self, name: ObjectName, data: bytes, *, durable: bool = True) -> None:
        """Store a whole object whose name was computed from these very bytes: they are not hashed again.

        Without ``durable`` steps 2 and 4 are left to :meth:`sync`, before which a power cut may tear the object.

        Raises:
            SpaceError: the disk is full; nothing of the object is left.
        """
        incoming = self._begin(name, len(data), None)
        try:
            incoming.hash(data)
            incoming.write(data)
            incoming.commit(durable=durable)
        except BaseException:
            incoming.abort()
            raise

    def sync(self, names: Sequence[ObjectName]) -> None:
        """Make objects durable that were put without.

        Raises:
            SpaceError: the disk is full.
            NotFoundError: one is not here.
        """
        with space_errors(self._folder):
            for name in names:
                try:
                    self._fs.fsync_file(self._path(name))
                except FileNotFoundError:
                    raise NotFoundError(f"object {short(name)}: not here") from None
            if names:
                self._fs.fsync_dir(self._folder)

    def begin(self, name: ObjectName, size: int) -> "FolderIncoming":
        """Begin to store an object."""
        return self._begin(name, size, NameHasher())

    def _begin(self, name: ObjectName, size: int, hasher: NameHasher | None) -> "FolderIncoming":
        if not is_allowed(size):
            raise FormatError(f"object: {size} bytes is not an allowed size")
        with space_errors(self._incoming.path):
            self._make_folders()
            return FolderIncoming(self, self._fs, name, size, self._incoming.create(name), hasher)

    def read(self, name: ObjectName, offset: int = 0, length: int | None = None) -> bytes:
        """Return stored bytes, unverified."""
        path = self._path(name)
        try:
            if self._fs.size(path) is not None:  # a link or a folder of that name is no object
                return self._fs.read(path, offset, length)
        except FileNotFoundError:
            pass  # removed in between
        raise NotFoundError(f"object {short(name)}: not here")

    def size(self, name: ObjectName) -> int | None:
        """Return the size on the disk now."""
        return self._fs.size(self._path(name))

    def sizes(self, names: Sequence[ObjectName]) -> Sequence[int | None]:
        """Return the sizes of several."""
        return [self.size(name) for name in names]

    def prove(self, name: ObjectName, leaves: Sequence[int]) -> list[Proof | None]:
        """Return a proof for each leaf; every leaf hash is computed from the disk, none is remembered."""
        try:
            data = self.read(name)
        except NotFoundError:
            return [None] * len(leaves)
        except OSError as error:
            if error.errno not in BAD_MEDIA:
                raise
            self.check(name)
            return [None] * len(leaves)
        found = proofs_of(name, data, leaves)
        if found is None:
            self.check(name)
            return [None] * len(leaves)
        return found

    def check(self, name: ObjectName) -> State:
        """Read the whole object and compare it with its name."""
        path = self._path(name)
        if self._intact(name):
            return "good"
        with self._placing:
            if self._fs.size(path) is None:
                return "missing" if self._fs.size(self._quarantine_path(name)) is None else "damaged"
            if self._intact(name):
                return "good"  # it was stored again in between
            self._set_aside(name)
        return "damaged"

    def aside(self, name: ObjectName) -> bool:
        """Return whether it lies in quarantine and not in the store."""
        return self._fs.size(self._quarantine_path(name)) is not None and self.size(name) is None

    def remove(self, name: ObjectName, *, durable: bool = True) -> None:
        """Remove an object for good; without ``durable`` a power cut may bring it back."""
        with self._placing:
            with contextlib.suppress(FileNotFoundError):
                self._fs.unlink(self._path(name))
            if durable:
                self._fs.fsync_dir(self._folder)

    def remove_all(self, names: Sequence[ObjectName]) -> None:
        """Remove objects for good, also from quarantine; durable when this returns. No error for what is not here."""
        with self._placing:
            for path in [path(name) for name in names for path in (self._path, self._quarantine_path)]:
                if self._fs.size(path) is not None:
                    self._fs.unlink(path)
            for folder in (self._folder, self._quarantine):
                self._fs.fsync_dir(folder)

    def _make_folders(self) -> None:
        for folder in (self._folder, self._incoming.path, self._quarantine):
            self._fs.makedirs(folder)

    def _path(self, name: ObjectName) -> str:
        return os.path.join(self._folder, name.hex())

    def _quarantine_path(self, name: ObjectName) -> str:
        return os.path.join(self._quarantine, name.hex())

    def _intact(self, name: ObjectName) -> bool:
        path = self._path(name)
        size = self._fs.size(path)
        if size is None or not is_allowed(size):
            return False
        try:
            return name_of(self._fs.read(path)) == name
        except FileNotFoundError:
            return False
        except OSError as error:
            # Only what the disk itself calls bad: running out of descriptors says nothing about the bytes.
            if error.errno in BAD_MEDIA:
                return False
            raise

    def _set_aside(self, name: ObjectName) -> None:
        self._fs.replace(self._path(name), self._quarantine_path(name))
        if self._fs.size(self._path(name)) is not None:
            # A power cut left both names on one file; then rename(2) does nothing.
            self._fs.unlink(self._path(name))
        self._fs.fsync_dir(self._quarantine)
        self._fs.fsync_dir(self._folder)

    def place(self, name: ObjectName, temporary: str, *, durable: bool) -> None:
        """Link a verified, synced file into the store (steps 3 and 4). Called by :class:`FolderIncoming`."""
        target = self._path(name)
        with self._placing:
            try:
                self._fs.link(temporary, target)
            except FileExistsError:
                if not self._intact(name):
                    self._set_aside(name)
                    self._fs.link(temporary, target)
            if durable:
                self._fs.fsync_dir(self._folder)
            if self._fs.size(self._quarantine_path(name)) is not None:
                self._fs.unlink(self._quarantine_path(name))

    def list(self) -> list[tuple[ObjectName, int]]:
        """Return names and sizes on the disk now; files that are not called like objects are passed over."""
        return sorted(_objects(self._fs.list_files(self._folder)))


class FolderIncoming(IncomingFile):
    """An object on its way into a :class:`FolderObjectStore`."""

    def __init__(
        self,
        store: FolderObjectStore,
        fs: Fs,
        name: ObjectName,
        size: int,
        handle: WriteHandle,
        hasher: NameHasher | None,
    ) -> None:
        super().__init__(fs, name, size, handle, hasher)
        self._store = store

    def commit(self, *, durable: bool = True) -> None:
        """Make it an object; without ``durable`` see :meth:`FolderObjectStore.put_named`."""
        try:
            self.verify()
            with space_errors(self._handle.path):
                if durable:
                    self._handle.fsync()
                self._handle.close()
                self._store.place(self.name, self._handle.path, durable=durable)
        finally:
            self.abort()


def proofs_of(name: ObjectName, data: bytes, leaves: Sequence[int]) -> list[Proof | None] | None:
    """Return a proof for each leaf of an object, None for those it has not; None for all if it is not that object."""
    view = memoryview(data)
    pieces = [view[at : at + LEAF_SIZE] for at in range(0, len(view), LEAF_SIZE)]
    hashes = hashes_of(pieces)
    found: list[Proof | None] = []
    for index in leaves:
        if not 0 <= index < min(leaf_count(len(view)), len(pieces)):
            found.append(None)
            continue
        proof = prove(hashes, len(view), index, bytes(pieces[index]))
        if not proves(name, index, proof):
            return None
        found.append(proof)
    return found


def _objects(files: Sequence[tuple[str, int]]) -> Iterator[tuple[ObjectName, int]]:
    for text, size in files:
        name = parse_name(text)
        if name is not None:
            yield name, size


def parse_name(text: str) -> ObjectName | None:
    """Return the name that 64 lower-case hex digits stand for, None if they are not that."""
    if len(text) != 2 * NAME_SIZE or set(text) - set("0123456789abcdef"):
        return None
    return ObjectName(bytes.fromhex(text))
