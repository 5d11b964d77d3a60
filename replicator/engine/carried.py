"""Reading from a disk in place of providers: a folder that was carried, or copied off one, and no network at all."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Self, TypeVar

from replicator.crypto.sign import SigningKey
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link
from replicator.engine.home import Half
from replicator.engine.sync import add_opened, open_snapshot, remember
from replicator.errors import (
    FormatError,
    IntegrityError,
    KeyMissingError,
    NotFoundError,
    RefusedError,
    ReplicatorError,
    UnreachableError,
)
from replicator.format.charter import PeerPin
from replicator.format.codec import Record
from replicator.format.merkle import name_of
from replicator.format.offer import Offer
from replicator.ids import Identity, ObjectName, short
from replicator.store.carried import CarriedDisk, CarriedObjects
from replicator.transport.base import Target
from replicator.wire.messages import Info

A = TypeVar("A", bound=Record)
LARGEST_RECORD = 1 << 20
"""Bytes of an object that is looked into, whether it is a snapshot that this home does not know yet."""


class CarriedConnection:
    """A :class:`~replicator.transport.base.Connection` to a disk: it gives objects, and answers nothing."""

    def __init__(self, objects: CarriedObjects, target: Target) -> None:
        self.target = target
        self.endpoint = target.name
        self._objects = objects

    async def call(self, op: str, request: Record, answer: type[A]) -> A:  # noqa: ARG002 - the protocol's
        """Raise: a disk answers no questions."""
        raise UnreachableError(self.target.name, "is a disk, and cannot be asked")

    async def put(self, name: ObjectName, data: bytes) -> bytes:  # noqa: ARG002 - likewise
        """Raise: nothing is stored there."""
        raise UnreachableError(self.target.name, "is a disk, and takes nothing")

    async def get(self, name: ObjectName, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of an object."""
        size = self._objects.size(name)
        if size is None:
            raise RefusedError(self.target.name, "no such object", code="not-found")
        try:
            data = self._objects.read(name, size)
        except OSError as error:
            raise UnreachableError(self.target.name, f"does not give an object ({error.strerror})") from error
        return data[offset : None if length is None else offset + length]

    def reach(self) -> None:
        """Return that no other process gets there."""

    async def close(self) -> None:
        """Let go of descriptors."""
        self._objects.close()


class SilentFederation(Federation):
    """No provider at all."""

    ELSEWHERE = "one provider seldom holds all: give the folder of another one too, with a further --from"

    async def dial(self, pins: Iterable[PeerPin]) -> None:
        """Ask nobody."""


class CarriedFederation(SilentFederation):
    """In the place of all providers: disks with this tenant's objects. Of what one has not, the others are asked."""

    def __init__(self, half: Half, edge: Edge, disks: Sequence[CarriedDisk]) -> None:
        super().__init__(half, edge)
        self._disks = DisksBeside(self, disks)

    async def __aenter__(self) -> Self:
        """Open the disks.

        Raises:
            NotFoundError: there is nothing of this tenant on one of them.
        """
        for problem in self._disks.join():
            raise problem
        return self

    async def learn(self) -> None:
        """Bring what lies there into the catalog: :meth:`DisksBeside.learn`."""
        await self._disks.learn()


class DisksBeside:
    """Disks with a tenant's objects, joined to a federation as providers that give objects and answer nothing."""

    def __init__(self, federation: Federation, disks: Sequence[CarriedDisk]) -> None:
        self._federation = federation
        self._half = federation.half
        self._disks = [(disk, disk.tenant(federation.half.tenant)) for disk in disks]

    def join(self) -> list[NotFoundError]:
        """Open the disks, which the federation closes; return which of them have nothing of this tenant."""
        half, problems = self._half, []
        for number, (disk, objects) in enumerate(self._disks):
            if next(objects.names(), None) is None:
                problems.append(
                    NotFoundError(
                        f"{disk.path}: nothing of this tenant lies there",
                        hint=f"give a folder that has {half.tenant.hex()} in it: a seeded disk, or a provider's data",
                    )
                )
                continue
            identity = Identity(number.to_bytes(32, "big"))
            target = Target(identity=identity, name=disk.path, endpoints=(), key=half.signing, certificate=None)
            self._federation.links[identity] = _link(CarriedConnection(objects, target), half.signing)
        return problems

    async def learn(self) -> None:
        """Bring snapshots that lie there and are not known yet into the catalog; signed by members, as ever."""
        half, federation = self._half, self._federation
        snapshots = half.catalog.snapshots.all()
        numbers = {(row.writer, row.number): row.name for row in snapshots}
        # One that an earlier look had to leave, for want of an index that was on another disk, is none of these.
        whole = {row.name for row in snapshots}
        known = {row.name for row in half.catalog.objects.all() if row.kind != "snapshot" or row.name in whole}
        for name, data in self._small(known):
            try:
                snapshot = open_snapshot(half, data)
            except (IntegrityError, FormatError, KeyMissingError):
                continue  # something else, as nearly all is
            if numbers.setdefault((snapshot.writer, snapshot.number), name) != name:
                federation.integrity.append(
                    f"snapshot {snapshot.number} of {short(snapshot.writer)} is another one here"
                )
                continue
            try:
                add_opened(half, name, "snapshot", half.whose(snapshot.writer), len(data), snapshot.created_ns)
                await remember(half, federation, name, snapshot, b"", ())
            except ReplicatorError as error:
                told = federation.integrity if isinstance(error, IntegrityError | FormatError) else federation.notices
                told.append(f"snapshot {snapshot.number} of {short(snapshot.writer)}: {error}")

    def _small(self, known: set[ObjectName]) -> Iterator[tuple[ObjectName, bytes]]:
        """Give what may be a record that is not known, each once."""
        integrity = self._federation.integrity
        for disk, objects in self._disks:
            for name, size in objects.names():
                if size > LARGEST_RECORD or name in known:
                    continue
                try:
                    data = objects.read(name, size)
                except OSError as error:
                    integrity.append(f"{disk.path}: object {short(name)} cannot be read ({error.strerror})")
                    continue
                if name_of(data) != name:
                    integrity.append(f"{disk.path}: object {short(name)} is damaged")
                    continue
                known.add(name)
                yield name, data


def _link(connection: CarriedConnection, key: SigningKey) -> Link:
    name = connection.target.name
    return Link(
        pin=PeerPin(
            identity=connection.target.identity,
            name=name[-64:],
            owner="-",
            site="-",
            region="-",
            country="SE",
            endpoints=[],
            own=False,
            added_ns=0,
        ),
        connection=connection,
        info=Info(
            incarnation=bytes(16),
            offer=b"",
            charter_number=0,
            charter=b"",
            claim=0,
            quota=0,
            used=0,
            free=0,
            now_ns=0,
            wire=[],
        ),
        offer=Offer(
            provider_key=key.public,
            number=1,
            endpoints=[],
            capacity=0,
            owner="-",
            site="-",
            region="-",
            country="SE",
            lock_s=0,
            grace_s=0,
            wire=[],
            created_ns=0,
        ),
        free=0,
        problems=[],
    )
