"""Looking at stored objects themselves: sealed checks that any member can make."""

import asyncio
from dataclasses import dataclass, field

from replicator.catalog.objects import ObjectRow
from replicator.catalog.snapshots import SnapshotRow
from replicator.config import counted
from replicator.crypto.sign import Context, verify
from replicator.engine.audit import missing_in_words, survey
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.forgetting import without_forgotten
from replicator.engine.home import Half
from replicator.engine.placing import PACK_KINDS, Ground, objects_of, pack_id, peer_id
from replicator.engine.references import fold, split_ids
from replicator.engine.shards import Cut
from replicator.engine.sync import sync_all
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from replicator.format.codec import decode
from replicator.format.container import Kind
from replicator.format.index import References
from replicator.format.merkle import name_of
from replicator.ids import Identity, ObjectName, short
from replicator.pack.directory import read_directory
from replicator.pack.keys import DomainKeys
from replicator.pack.sealed import open_object
from replicator.pack.shards import split
from replicator.rng import shuffle

_RECORD_KINDS = {"index": Kind.INDEX, "references": Kind.REFERENCES, "snapshot": Kind.SNAPSHOT}


@dataclass(slots=True)
class VerifyReport:
    """What was looked at and what is wrong. ``level`` is "sealed" or, with a restore key, "content".

    ``absent`` is what one peer lacks, or all of them.
    """

    level: str = "sealed"
    snapshots: int = 0
    objects: int = 0
    proofs: int = 0
    fetched: int = 0
    fetched_bytes: int = 0
    chunks: int = 0
    problems: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def sample_of(rows: list[ObjectRow], share: float, edge: Edge) -> list[ObjectRow]:
    """Return a random share of the objects, at least one if there are any."""
    chosen = list(rows)
    shuffle(edge.rng, chosen)
    return chosen[: max(min(len(rows), 1), round(len(rows) * share))]


async def verify_sealed(half: Half, federation: Federation, edge: Edge, *, share: float) -> VerifyReport:
    """Take inventories and proofs everywhere, then fetch a share of all objects and check what the index key shows.

    Names, seals, directories and signatures are checked for the sample, and for every dataset's newest snapshot
    that each chunk it references is in a pack that an index names.
    """
    report = VerifyReport()
    await sync_all(half, federation)
    views = await survey(half, federation, edge)
    report.proofs = sum(view.probes for view in views.values())
    for identity, view in views.items():
        if view.missing and identity in federation.links:
            name = federation.links[Identity(identity)].pin.name
            report.absent.append(f"{name}: {missing_in_words(len(view.missing))}")
    snapshots = without_forgotten(half, half.catalog.snapshots.all("published_ns != 0"))
    report.snapshots = len(snapshots)
    rows = objects_of(half, snapshots)
    report.objects = len(rows)
    ground = Ground(half, federation)
    ground.refresh()
    edge.progress.stage("verifying", sum(row.size for row in rows))
    for row in sample_of(rows, share, edge):
        await _check_object(half, federation, ground, row, report, edge)
    for snapshot in _newest_of_each(snapshots):
        await _check_references(half, federation, snapshot, report)
    report.problems += [problem for problem in federation.integrity if problem not in report.problems]
    report.notices = list(federation.notices)
    return report


async def _check_object(
    half: Half, federation: Federation, ground: Ground, row: ObjectRow, report: VerifyReport, edge: Edge
) -> None:
    what = f"{row.kind} {short(row.name)}"
    shards = ground.shards(row)
    holders = [
        identity for identity in federation.links if peer_id(identity) in ground.held.get(pack_id(row.name), set())
    ]
    shuffle(edge.rng, holders)
    try:
        data = await federation.fetch(row.name, holders)
    except NotFoundError as error:
        report.absent.append(str(error))
        return
    report.fetched += 1
    report.fetched_bytes += len(data)
    edge.progress.advance(len(data))
    try:
        _open_any(half, row, data)
        if shards is not None:
            await asyncio.to_thread(_check_shards, data, Cut.of(shards))
    except (IntegrityError, FormatError) as error:
        report.problems.append(f"{what}: {error}")


def _open_any(half: Half, row: ObjectRow, data: bytes) -> None:
    problem: ReplicatorError | None = None
    for domain in half.domain_ids:
        keys = half.keys(domain)
        try:
            if row.kind in PACK_KINDS:
                _check_directory(data, keys, split_ids(half.catalog.objects.chunk_ids(row.id)))
            else:
                open_object(data, _RECORD_KINDS[row.kind], keys)
        except (IntegrityError, FormatError) as error:
            problem = error
        else:
            return
    raise problem or IntegrityError("no domain of this home opens it")


def _check_shards(data: bytes, cut: Cut) -> None:
    """Make all shards anew: what is made again one day is what peers have now, parity too, or all is found out late.

    Raises:
        IntegrityError: the index names another.
    """
    for number, shard in enumerate(split(data, cut.coding)):
        if name_of(shard) != cut.names[number]:
            raise IntegrityError(f"an index names another shard {number} of it than it has")


def _check_directory(data: bytes, keys: DomainKeys, listed: list[bytes]) -> None:
    _, directory, _ = read_directory(data, len(data), keys)
    if not set(listed) <= {segment.chunk_id for segment in directory.segments}:
        raise IntegrityError("an index names chunks in it that its directory does not hold")


def _newest_of_each(snapshots: list[SnapshotRow]) -> list[SnapshotRow]:
    newest: dict[tuple[bytes, str, tuple[bytes, ...]], SnapshotRow] = {}
    for row in snapshots:
        # Where names cannot be read, a chain of references tells datasets apart: it has one beginning.
        newest[row.writer, row.dataset, row.references[:1]] = row
    return list(newest.values())


async def _check_references(half: Half, federation: Federation, snapshot: SnapshotRow, report: VerifyReport) -> None:
    what = f"snapshot {short(snapshot.name)}"
    chain = []
    base = b""
    for name in snapshot.references:
        try:
            data = await federation.fetch(ObjectName(name), ())
            chain.append(_read_references(half, data, base))
        except NotFoundError as error:
            report.absent.append(f"{what}: {error}")
            return
        except (IntegrityError, FormatError) as error:
            report.problems.append(f"{what}: references {short(name)}: {error}")
            return
        base = name
    ids = sorted(fold(chain))
    report.chunks += len(ids)
    unknown = half.catalog.objects.unlisted(b"".join(ids))
    if unknown:
        report.problems.append(
            f"{what}: {unknown} of its {counted(len(ids), 'chunk')} {'is' if unknown == 1 else 'are'} in no pack that "
            "an index names"
        )


def _read_references(half: Half, data: bytes, base: bytes) -> References:
    problem: ReplicatorError | None = None
    for domain in half.domain_ids:
        try:
            signed = open_object(data, Kind.REFERENCES, half.keys(domain))
            found = decode(References, verify(signed, Context.REFERENCES, half.charter.writer_keys()))
            split_ids(found.added)
        except (IntegrityError, FormatError) as error:
            problem = error
            continue
        if found.base != base:
            raise IntegrityError("it changes another base than the one before it in the chain")
        return found
    raise problem or IntegrityError("no domain of this home opens it")
