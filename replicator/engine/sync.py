"""Learn from the federation what a writer has published: heads, snapshots, indexes, into the catalog."""

from collections.abc import Mapping
from dataclasses import dataclass

from replicator.catalog.snapshots import SnapshotRow
from replicator.charter.verify import NO_PREVIOUS, signed_hash
from replicator.crypto.sign import Context, verify
from replicator.engine.federation import Federation
from replicator.engine.forgetting import Forgotten, learn
from replicator.engine.home import Half
from replicator.errors import IntegrityError, NotFoundError, PeerError, ReplicatorError
from replicator.format.codec import decode
from replicator.format.container import Kind
from replicator.format.index import Index
from replicator.format.policy import policy_id
from replicator.format.snapshot import Head, Snapshot
from replicator.ids import Identity, ObjectName, identity_of, short
from replicator.pack.keys import DomainKeys
from replicator.pack.sealed import open_object
from replicator.wire.messages import Empty, Heads


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHead:
    """A writer's newest head and who has witnessed it."""

    head: Head
    signed: bytes
    seen_by: tuple[Identity, ...]
    asked: int


async def newest_heads(half: Half, federation: Federation) -> dict[bytes, KnownHead]:
    """Ask every reachable peer for heads; return the newest of each writer. Forks are reported as integrity.

    A head whose signature does not hold, or whose writer the charter does not name, counts against its peer.
    """
    writers = {identity_of(key): key for key in half.charter.writer_keys()}
    found: dict[bytes, dict[bytes, list[Identity]]] = {}
    signed_heads: dict[bytes, tuple[Head, bytes]] = {}
    for link in list(federation.links.values()):
        try:
            reply = await link.connection.call("heads", Empty(), Heads)
        except PeerError as error:
            await federation.drop(link, error)
            continue
        for signed in reply.heads:
            try:
                head = decode(Head, verify(signed, Context.HEAD, list(writers.values())))
                if head.tenant != half.tenant or head.writer not in writers or identity_of(signed[:32]) != head.writer:
                    raise IntegrityError("head: of another writer than its signer")
            except ReplicatorError as error:
                federation.integrity.append(f"{link.pin.name}: {error}")
                continue
            signed_heads[signed_hash(signed)] = (head, signed)
            found.setdefault(head.writer, {}).setdefault(signed_hash(signed), []).append(link.identity)
        for one, other in reply.forks:
            _report_fork(federation, link.pin.name, writers, one, other)
    newest = {}
    for writer, by_hash in found.items():
        best = max(by_hash, key=lambda key: (signed_heads[key][0].number, key))
        head, signed = signed_heads[best]
        rivals = [key for key in by_hash if key != best and signed_heads[key][0].number == head.number]
        if rivals:
            federation.integrity.append(
                f"writer {short(writer)}: two different snapshots number {head.number} (a fork): two machines write "
                "with one key, or it was rolled back"
            )
        newest[writer] = KnownHead(head=head, signed=signed, seen_by=tuple(by_hash[best]), asked=len(federation.links))
    return newest


def _report_fork(federation: Federation, name: str, writers: dict[Identity, bytes], one: bytes, other: bytes) -> None:
    try:
        heads = [decode(Head, verify(signed, Context.HEAD, list(writers.values()))) for signed in (one, other)]
    except ReplicatorError:
        federation.integrity.append(f"{name}: shows evidence of a fork that does not hold")
        return
    first, second = heads
    follows = second.number == first.number + 1 and second.previous == signed_hash(one)
    if first.writer == second.writer and second.number - first.number in {0, 1} and not follows and one != other:
        federation.integrity.append(
            f"writer {short(first.writer)}: {name} holds two snapshots, {first.number} and {second.number}, of two "
            "histories (a fork): two machines write with one key, or it was rolled back"
        )


async def sync_all(half: Half, federation: Federation) -> dict[bytes, KnownHead]:
    """Bring every writer's chain, and what is forgotten of them, into the catalog; return the heads.

    Trouble with one chain stops no other.
    """
    heads = await newest_heads(half, federation)
    said = len(federation.notices), len(federation.integrity)
    await _sync_chains(half, federation, heads)
    told = len(federation.notices), len(federation.integrity)
    if await learn(half, federation):
        # What was out of sight may be forgotten, and what is kept behind it can be found now.
        del federation.notices[said[0] : told[0]]
        del federation.integrity[said[1] : told[1]]
        await _sync_chains(half, federation, heads)
    return heads


async def _sync_chains(half: Half, federation: Federation, heads: Mapping[bytes, KnownHead]) -> None:
    for writer, known in heads.items():
        try:
            await sync_chain(half, federation, known)
        except IntegrityError as error:
            federation.integrity.append(f"chain of {short(writer)}: {error}")
        except ReplicatorError as error:
            federation.notices.append(f"chain of {short(writer)}: {error}")


async def sync_chain(half: Half, federation: Federation, known: KnownHead) -> int:
    """Walk a chain back from its newest head to what the catalog has; return how many snapshots were new.

    A snapshot that nobody has hides the ones before it, not those after it; holes are tried again each time.

    Raises:
        IntegrityError: a snapshot is not what the chain says.
    """
    writer = known.head.writer
    forgotten = Forgotten.of(half)
    here = _numbers(half, writer)
    fresh = 0
    if known.head.number >= max(here, default=0):
        fresh += await _walk(half, federation, known, ObjectName(known.head.snapshot), known.head.number, here)
    for number in sorted(here, reverse=True):
        if number > 1 and number - 1 not in here and not forgotten.covers(writer, number - 1):
            try:
                snapshot = await read_snapshot(half, federation, here[number], known.seen_by)
            except NotFoundError as error:
                federation.notices.append(f"snapshot {number} of this chain: {error}")
                continue
            previous = ObjectName(snapshot.previous_snapshot)
            fresh += await _walk(half, federation, known, previous, number - 1, here)
    for kept in reversed(forgotten.kept(writer)):  # behind snapshots that are forgotten and gone
        here = _numbers(half, writer)
        if kept.number not in here:
            fresh += await _walk(half, federation, known, ObjectName(kept.name), kept.number, here)
    return fresh


def _numbers(half: Half, writer: bytes) -> dict[int, ObjectName]:
    return {row.number: row.name for row in half.catalog.snapshots.all("writer = ?", (writer,))}


async def _walk(
    half: Half, federation: Federation, known: KnownHead, name: ObjectName, number: int, here: Mapping[int, ObjectName]
) -> int:
    found: list[tuple[ObjectName, Snapshot]] = []
    while name != NO_PREVIOUS and number not in here:
        try:
            snapshot = await read_snapshot(half, federation, name, known.seen_by)
        except NotFoundError as error:
            if not Forgotten.of(half).covers(known.head.writer, number):
                federation.notices.append(
                    f"snapshot {number} of this chain and what came before it is out of sight: {error}"
                )
            break
        if (snapshot.writer, snapshot.number) != (known.head.writer, number):
            raise IntegrityError(f"snapshot {short(name)}: not the one that the chain names")
        found.append((name, snapshot))
        name, number = ObjectName(snapshot.previous_snapshot), number - 1
    if here.get(number, name) != name:
        raise IntegrityError(
            f"snapshot {number} of this chain is {short(here[number])} here and {short(name)} at peers: a fork",
            hint="two machines write with one key (a cloned disk?): enrol one of them anew with `node request`",
        )
    fresh = 0
    for object_name, snapshot in reversed(found):
        head = known.signed if snapshot.number == known.head.number else b""
        try:
            await _remember(half, federation, object_name, snapshot, head, known.seen_by)
            fresh += 1
        except NotFoundError as error:
            federation.notices.append(f"snapshot {snapshot.number} of this chain cannot be read: {error}")
    return fresh


async def read_snapshot(
    half: Half, federation: Federation, name: ObjectName, holders: tuple[Identity, ...] = ()
) -> Snapshot:
    """Fetch and check a snapshot object: its name, its seal, its writer's signature.

    Raises:
        IntegrityError, FormatError: it does not hold.
        NotFoundError: no reachable peer has it.
    """
    data = await federation.fetch(name, holders)
    snapshot = open_snapshot(half, data)
    half.catalog.objects.add(
        name=name,
        writer=snapshot.writer,
        kind="snapshot",
        size=len(data),
        spooled=False,
        created_ns=snapshot.created_ns,
    )
    return snapshot


def open_snapshot(half: Half, data: bytes) -> Snapshot:
    """Return the snapshot in an object, after checking who signed it."""
    signed = _open_any_domain(half, data, Kind.SNAPSHOT)
    snapshot = decode(Snapshot, verify(signed, Context.SNAPSHOT, half.charter.writer_keys()))
    if identity_of(signed[:32]) != snapshot.writer or snapshot.tenant != half.tenant:
        raise IntegrityError("snapshot: of another writer or tenant than its signer")
    return snapshot


def _open_any_domain(half: Half, data: bytes, kind: Kind) -> bytes:
    problem: ReplicatorError | None = None
    for domain in half.member.domains:
        keys: DomainKeys = half.keys(domain.id)
        try:
            return open_object(data, kind, keys)
        except ReplicatorError as error:
            problem = error
    raise problem or IntegrityError("object: this home has no domain")


async def _remember(
    half: Half,
    federation: Federation,
    name: ObjectName,
    snapshot: Snapshot,
    head: bytes,
    holders: tuple[Identity, ...],
) -> None:
    objects = half.catalog.objects
    policy = half.catalog.datasets.remember(snapshot.policy)
    for index_name in snapshot.indexes:
        known = objects.by_name(index_name)
        if known is None or not objects.all("index_id = ?", (known.id,)):
            await _read_index(half, federation, ObjectName(index_name), snapshot, holders)
    for reference in snapshot.references:
        if objects.by_name(reference) is None:
            try:
                data = await federation.fetch(ObjectName(reference), holders)
            except NotFoundError as error:  # a restore does without
                federation.notices.append(f"references of snapshot {snapshot.number}: {error}")
                continue
            objects.add(
                name=reference,
                writer=snapshot.writer,
                kind="references",
                size=len(data),
                spooled=False,
                created_ns=snapshot.created_ns,
            )
    half.catalog.snapshots.put(
        SnapshotRow(
            name=name,
            writer=snapshot.writer,
            number=snapshot.number,
            dataset="",
            created_ns=snapshot.created_ns,
            published_ns=snapshot.created_ns,
            policy=policy,
            files=snapshot.files,
            size=snapshot.size,
            partial=snapshot.partial,
            indexes=tuple(snapshot.indexes),
            references=tuple(snapshot.references),
            head=head,
            gaps=(),
        )
    )


async def _read_index(
    half: Half, federation: Federation, name: ObjectName, snapshot: Snapshot, holders: tuple[Identity, ...]
) -> None:
    data = await federation.fetch(name, holders)
    signed = open_object(data, Kind.INDEX, half.keys(snapshot.domain))
    index = decode(Index, verify(signed, Context.INDEX, half.charter.writer_keys()))
    if identity_of(signed[:32]) != index.writer or (index.tenant, index.domain) != (half.tenant, snapshot.domain):
        raise IntegrityError(f"index {short(name)}: of another writer, tenant or domain than its signer")
    known_policies = {policy_id(policy) for policy in index.policies}
    for policy in index.policies:
        half.catalog.datasets.remember(policy)
    objects = half.catalog.objects
    with half.catalog.database.transaction("index row"):
        row = objects.add(
            name=name,
            writer=index.writer,
            kind="index",
            size=len(data),
            spooled=False,
            created_ns=index.created_ns,
        )
        for pack in index.packs:
            if pack.policy not in known_policies:
                raise IntegrityError(f"index {short(name)}: a pack has a policy that it does not contain")
            known = objects.by_name(pack.name)
            if known is not None and known.writer != index.writer:
                # A writer has the say over its own packs alone, and over this home's nobody but this home.
                if known.writer != half.identity:
                    objects.also_lists(known.id, pack.ids)
                continue
            objects.add(
                name=pack.name,
                writer=index.writer,
                kind="data" if pack.kind == Kind.DATA_PACK else "tree",
                size=pack.size,
                policy=pack.policy,
                index_id=row,
                spooled=False,
                created_ns=index.created_ns,
                chunk_ids=pack.ids,
            )
