"""What keeps objects, and what whoever uses it may rely on."""

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from replicator.format.merkle import Proof
from replicator.ids import ObjectName

State = Literal["good", "missing", "damaged"]
STORE_MARK: Final = ".replicator-store"
"""What is called so beside tenants' objects has the id of the provider's store that they lie in."""


class Incoming(Protocol):
    """An object on its way in. One thread at a time; nothing of it can be seen in the store before the commit."""

    name: ObjectName
    size: int

    def hash(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes into the name, before they are written; ``piece`` is not kept. Never waits for a disk.

        Raises:
            FormatError: more bytes than were announced.
        """
        ...

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Append what was hashed; ``piece`` is not kept.

        Raises:
            SpaceError: the disk is full.
        """
        ...

    def commit(self) -> None:
        """Make it an object: durable, whole and under its own name when this returns.

        Raises:
            FormatError: fewer bytes than were announced.
            IntegrityError: the bytes are not the object they are called.
            SpaceError: the disk is full.
        """
        ...

    def abort(self) -> None:
        """Leave no trace; idempotent, and nothing after a commit."""
        ...


class ObjectStore(Protocol):
    """Objects by name.

    Guarantees: an object is there whole or not at all, also after a crash at any moment; what is there is never
    overwritten in place; the same object again is no error and leaves it durable; sizes are only the allowed
    ones. What :meth:`list`, :meth:`size`, :meth:`sizes`, :meth:`aside`, :meth:`prove` and :meth:`check` answer is read
    from where the objects lie each time. Anything may raise OSError, which says nothing about an object.
    """

    def prepare(self) -> None:
        """Remove what an interrupted write left. Only while nobody else writes here."""
        ...

    def begin(self, name: ObjectName, size: int) -> Incoming:
        """Begin to store an object.

        Raises:
            FormatError: objects are never this large.
            SpaceError: the disk is full.
        """
        ...

    def read(self, name: ObjectName, offset: int = 0, length: int | None = None) -> bytes:
        """Return stored bytes, unverified, short at the end of the object.

        Raises:
            NotFoundError: no such object.
        """
        ...

    def size(self, name: ObjectName) -> int | None:
        """Return the size on the disk now, None if it is not there."""
        ...

    def sizes(self, names: Sequence[ObjectName]) -> Sequence[int | None]:
        """Return the sizes of several, in their order: what lies far away is asked for them at once."""
        ...

    def prove(self, name: ObjectName, leaves: Sequence[int]) -> list[Proof | None]:
        """Return a proof for each leaf, made from the bytes on the disk and checked against the name.

        None where there is no such object or leaf, or the bytes are wrong (the object is quarantined then).
        """
        ...

    def check(self, name: ObjectName) -> State:
        """Read the whole object and compare it with its name; a damaged one is quarantined."""
        ...

    def aside(self, name: ObjectName) -> bool:
        """Return whether bytes that were found wrong lie in quarantine, and the object was not stored again since."""
        ...

    def remove(self, name: ObjectName) -> None:
        """Remove an object for good; no error if it is not there."""
        ...

    def remove_all(self, names: Sequence[ObjectName]) -> None:
        """Remove objects for good, also from quarantine; durable on return. No error for what is not there."""
        ...

    def list(self) -> list[tuple[ObjectName, int]]:
        """Return names and sizes as they are on the disk now, sorted by name."""
        ...
