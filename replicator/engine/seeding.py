"""Writing what a provider is to hold onto a disk, for somebody to carry there instead of the line.

What goes onto it is what a plan places there, as if that provider answered and were empty but for what it has; and the
records that every provider gets. All of it is sealed as ever. What is on it already is compared with its name and kept,
so that a stopped run goes on. A signed statement, written again as the disk fills, names what may be taken in.

The charter and its keybag come first and are in no statement: a provider has its own. With them the recovery sheet and
the disk are enough to recover from.
"""

from dataclasses import dataclass, field
from typing import Final

from replicator.catalog.objects import ObjectRow
from replicator.crypto.sign import Context
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.node import NodeHome
from replicator.engine.placing import PACK_KINDS, Ground, objects_of, peer_id
from replicator.engine.publish import pending
from replicator.engine.receipts import note_carried
from replicator.engine.repair import published
from replicator.engine.send import Sender
from replicator.errors import NotFoundError, SpaceError
from replicator.format.carried import MOST_CARRIED, Carried
from replicator.format.charter import PeerPin
from replicator.format.codec import encode
from replicator.format.merkle import name_of
from replicator.ids import Identity, ObjectName, short
from replicator.store.carried import CarriedWriter

SPARE: Final = 64 << 20
"""Bytes that stay free on the disk."""
_STATED: Final = 512
"""After so many objects a statement is written: what is on the disk counts only with one."""


@dataclass(slots=True)
class SeedReport:
    """What was written, was there already, had no room, and could not be had from anybody who answers."""

    objects: int = 0
    size: int = 0
    here: int = 0
    left_objects: int = 0
    left: int = 0
    nowhere: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


async def seed(node: NodeHome, edge: Edge, pin: PeerPin, disk: str, *, dry_run: bool = False) -> SeedReport:
    """Write what a provider is to hold onto a disk, as far as there is room.

    Raises:
        LockedError: another run works in this home.
    """
    report = SeedReport()
    identity = Identity(pin.identity)
    with node.lock():
        async with Federation(node, edge) as federation:
            ground = Ground(node, federation, carried=identity)
            ground.refresh()
            wanted = _wanted(node, ground, identity)
            sender = Sender(ground, edge, node.spool())
            writer = CarriedWriter(edge.fs, disk, node.tenant)
            edge.progress.stage("writing onto the disk", sum(row.size for row in wanted))
            if not dry_run:
                _write_recovery(node, edge, writer, disk, report)
            named: list[bytes] = []
            for row in wanted:
                if not dry_run and _lies_there(writer, row.name, row.size):
                    report.here += 1
                elif report.left or (not dry_run and edge.fs.free_bytes(disk) - row.size < SPARE):
                    report.left_objects, report.left = report.left_objects + 1, report.left + row.size
                    continue
                elif not dry_run and not await _write(sender, writer, row, report):
                    continue
                else:
                    report.objects, report.size = report.objects + 1, report.size + row.size
                named.append(row.name)
                edge.progress.advance(row.size)
                if not dry_run and len(named) % _STATED == 0:
                    _state(node, edge, writer, identity, named)
            if named and not dry_run:
                _state(node, edge, writer, identity, named)
                note_carried(node, identity, coming=True)
            report.notices += [*federation.notices, *federation.integrity]
    return report


def _wanted(node: NodeHome, ground: Ground, identity: Identity) -> list[ObjectRow]:
    """Return what the provider is to get: records first, without which nothing on the disk can be read."""
    rows = objects_of(node, [*published(node), *pending(node)])
    packs = [row for row in rows if row.kind in PACK_KINDS]
    has = {one.object_id for one in node.catalog.objects.holdings(peer=identity) if one.state in {"held", "released"}}
    records = [row for row in rows if row.kind not in PACK_KINDS and row.id not in has]
    tasks = [one.row for one in ground.tasks(ground.plan(packs), packs) if one.peer == peer_id(identity)]
    return [*records, *tasks]


async def _write(sender: Sender, writer: CarriedWriter, row: ObjectRow, report: SeedReport) -> bool:
    try:
        writer.put(row.name, await sender.bytes_of(row))
    except NotFoundError:
        report.nowhere.append(f"{row.kind} {short(row.name)}")
        return False
    except SpaceError:
        report.left_objects, report.left = report.left_objects + 1, report.left + row.size
        return False
    return True


def _write_recovery(node: NodeHome, edge: Edge, writer: CarriedWriter, disk: str, report: SeedReport) -> None:
    """Write what recovery begins with, and say where that cannot be."""
    records = node.recovery_objects()
    why = "" if records else "this home has not got the keybag of its charter yet"
    try:
        for name, data in records:
            if not _lies_there(writer, name, len(data)):
                if edge.fs.free_bytes(disk) - len(data) < SPARE:
                    why = "there is no room"
                    break
                writer.put(name, data)
    except SpaceError:
        why = "there is no room"
    if why:
        report.notices.append(f"`recover --from` cannot begin with this disk, which has no charter and keybag: {why}")


def _lies_there(writer: CarriedWriter, name: ObjectName, size: int) -> bool:
    return writer.size(name) == size and name_of(writer.read(name)) == name


def _state(node: NodeHome, edge: Edge, writer: CarriedWriter, identity: Identity, names: list[bytes]) -> None:
    for number, at in enumerate(range(0, len(names), MOST_CARRIED)):
        carried = Carried(
            tenant=node.tenant,
            provider=identity,
            names=b"".join(sorted(names[at : at + MOST_CARRIED])),
            made_ns=edge.clock.now_ns(),
        )
        signed = node.signing.sign(Context.CARRIED, encode(carried))
        writer.state(f"{identity.hex()[:16]}-{short(node.identity)}-{number}", signed)
