"""Learn from the federation what a writer has published: heads, snapshots, indexes, into the catalog."""

from collections.abc import Mapping

from replicator.catalog.objects import ObjectKind, ObjectRow
from replicator.catalog.snapshots import SnapshotRow
from replicator.charter.chain import Link, excludes, must_be_own, read_snapshot_link
from replicator.charter.verify import NO_PREVIOUS
from replicator.clock import day_of
from replicator.config import counted
from replicator.crypto.sign import Context, verify
from replicator.engine.federation import Federation
from replicator.engine.forgetting import Forgotten, learn, look_beside_no_more, records_in_force
from replicator.engine.handing import name_of_key
from replicator.engine.heads import KnownHead, fetch_chain, newest_heads, report
from replicator.engine.home import Half
from replicator.engine.marking import gone_writers
from replicator.engine.memory import Memory
from replicator.engine.ownchain import note_continued
from replicator.engine.shards import Cut
from replicator.errors import (
    ForkedError,
    FormatError,
    IntegrityError,
    KeyMissingError,
    NotFoundError,
    ReplicatorError,
)
from replicator.format.codec import decode
from replicator.format.container import Kind
from replicator.format.index import Index
from replicator.format.policy import Policy, at_least_as_strong, policy_id
from replicator.format.sizes import shard_size
from replicator.format.snapshot import Snapshot
from replicator.ids import Identity, ObjectName, identity_of, short
from replicator.pack.keys import DomainKeys
from replicator.pack.sealed import open_locator, open_object

_LISTED = ("data", "tree", "shard")
"""What an index may call an object."""


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
    await _sync_moved(half, federation)
    await _settle_contested(half, federation)
    _say_contested(half, federation)
    return heads


async def _sync_moved(half: Half, federation: Federation) -> None:
    """Read the indexes of what maintainers put together anew; a node looks at those of its own packs by itself."""
    for one in Forgotten.of(half).moved:
        if (half.role == "node" and half.whose(one.writer) == half.identity) or knows_index(half, one.index):
            continue
        try:
            await read_index(half, federation, ObjectName(one.index), one.writer)
        except (IntegrityError, FormatError) as error:
            federation.integrity.append(f"index {short(one.index)} of packs that were put together anew: {error}")
        except KeyMissingError as error:
            federation.notices.append(f"index {short(one.index)} of packs that were put together anew: {error}")
        except NotFoundError as error:
            if one.packs or len(federation.links) < len(half.peers):
                federation.notices.append(f"index {short(one.index)} of packs that were put together anew: {error}")
            else:
                look_beside_no_more(half, one.index)  # nobody has it, and what was said last does not name it


def knows_index(half: Half, name: bytes) -> bool:
    """Return whether this home has an index with the packs that it lists."""
    row = half.catalog.objects.by_name(name)
    return row is not None and bool(half.catalog.objects.of_index_rows([row.id]))


async def _sync_chains(half: Half, federation: Federation, heads: Mapping[bytes, KnownHead]) -> None:
    forgotten = Forgotten.of(half)
    for writer, known in heads.items():
        try:
            if writer == half.identity:
                waiting = half.catalog.snapshots.all("writer = ? AND published_ns = 0", (writer,))
                if any(row.number <= known.head.number for row in waiting):
                    continue  # the next backup finds out what became of them
                note_continued(half, federation, known)
            await sync_chain(half, federation, known, forgotten)
        except IntegrityError as error:
            federation.integrity.append(f"chain of {short(writer)}: {error}")
        except ReplicatorError as error:
            federation.notices.append(f"chain of {short(writer)}: {error}")


async def sync_chain(half: Half, federation: Federation, known: KnownHead, forgotten: Forgotten | None = None) -> int:
    """Walk a chain back from its newest head to what the catalog has; return how many snapshots were new.

    A snapshot that nobody has, or that is not what it should be, hides none before it: heads that providers keep name
    those. Holes are tried again each time; what is wrong with a snapshot is reported as integrity.

    Raises:
        ForkedError: a snapshot is another than the one that is known here.
    """
    forgotten = forgotten or Forgotten.of(half)
    walk = _Walk(half, federation, known, forgotten)
    if known.head.number >= max(walk.here, default=0):
        await walk.down(ObjectName(known.head.snapshot), known.head.number)
    for number in sorted(walk.here, reverse=True):
        before = number - 1
        if before and not (before in walk.here or before in walk.failed or forgotten.covers(walk.writer, before)):
            try:
                snapshot, _ = await read_snapshot(half, federation, walk.here[number], known.seen_by)
            except NotFoundError as error:
                federation.notices.append(f"snapshot {number} of this chain: {error}")
                continue
            await walk.down(ObjectName(snapshot.previous_snapshot), before)
    for kept in reversed(forgotten.kept(walk.writer)):  # behind snapshots that are forgotten and gone
        if kept.number not in walk.here:
            await walk.down(ObjectName(kept.name), kept.number)
    return walk.fresh


class _Walk:
    """One look through a chain, from newer to older."""

    def __init__(self, half: Half, federation: Federation, known: KnownHead, forgotten: Forgotten) -> None:
        self.half = half
        self.federation = federation
        self.known = known
        self.writer = Identity(known.head.writer)
        self.here = half.catalog.snapshots.names(self.writer)
        self.forgotten = forgotten
        self.failed: set[int] = set()
        self.fresh = 0
        self._asked = False

    async def down(self, name: ObjectName, number: int) -> None:
        """Read snapshots from this one on downwards; past one that cannot be read, go on with a head below it."""
        while True:
            failed = await self._stretch(name, number)
            if not failed or failed in self.failed:
                return
            self.failed.add(failed)
            below = await self._head_below(failed)
            if below is None or below.number in self.here:
                return
            name, number = ObjectName(below.snapshot), below.number

    async def _stretch(self, name: ObjectName, number: int) -> int:
        """Read down to what is known here, or the beginning; return the number at which it ended early, else 0.

        Raises:
            ForkedError: what is known here is another snapshot.
        """
        found: list[tuple[ObjectName, Snapshot]] = []
        failed, signed = 0, b""
        while name != NO_PREVIOUS and number not in self.here:
            try:
                snapshot, signed = await self._read(name, number)
            except NotFoundError as error:
                if not self.forgotten.covers(self.writer, number):
                    self.federation.notices.append(f"snapshot {number} of this chain is out of sight: {error}")
                failed = number
                break
            except (IntegrityError, FormatError) as error:
                self._blame(number, error)
                failed = number
                break
            except KeyMissingError as error:
                text = f"chain of {short(self.writer)}: {error}"
                if text not in self.federation.notices and not self.forgotten.covers(self.writer, number):
                    self.federation.notices.append(text)
                failed = number
                break
            found.append((name, snapshot))
            name, number = ObjectName(snapshot.previous_snapshot), number - 1
        if not failed and name == NO_PREVIOUS and number:
            self._blame(number + 1, IntegrityError("names none before it"))
            failed = number
        if self.here.get(number, name) != name:
            self._report_fork(number, signed)
            raise ForkedError(
                f"snapshot {number} of this chain is {short(self.here[number])} here and {short(name)} at peers: "
                "a fork",
                hint="two machines write with one key (a cloned disk?): enrol one of them anew with `node request`",
            )
        for object_name, snapshot in reversed(found):
            await self._take(object_name, snapshot)
        return failed

    async def _read(self, name: ObjectName, number: int) -> tuple[Snapshot, bytes]:
        snapshot, signed = await read_snapshot(self.half, self.federation, name, self.known.seen_by)
        if (snapshot.writer, snapshot.number) != (self.writer, number):
            raise IntegrityError(f"snapshot {short(name)}: not the one that the chain names")
        return snapshot, signed

    async def _take(self, name: ObjectName, snapshot: Snapshot) -> None:
        head = self.known.signed if snapshot.number == self.known.head.number else b""
        if not head:
            link = Memory(self.half).below(self.writer, snapshot.number + 1)
            if link is not None and (link.number, link.snapshot) == (snapshot.number, name):
                head = link.statement.signed
        try:
            await remember(self.half, self.federation, name, snapshot, head, self.known.seen_by)
            self.here[snapshot.number] = name
            self.fresh += 1
        except NotFoundError as error:
            self.federation.notices.append(f"snapshot {snapshot.number} of this chain cannot be read: {error}")
        except (IntegrityError, FormatError) as error:
            self._blame(snapshot.number, error)

    def _blame(self, number: int, error: ReplicatorError) -> None:
        text = f"chain of {short(self.writer)}: snapshot {number}: {error}"
        if text not in self.federation.integrity:
            self.federation.integrity.append(text)

    async def _head_below(self, number: int) -> Link | None:
        """Return the newest known head below a number, asking providers for theirs once."""
        memory = Memory(self.half)
        below = memory.below(self.writer, number)
        if not self._asked and (below is None or below.number < number - 1):
            self._asked = True
            for peer in list(self.federation.links.values()):
                await fetch_chain(self.half, self.federation, peer, self.writer, above=0, below=number)
        return memory.below(self.writer, number)

    def _report_fork(self, number: int, signed: bytes) -> None:
        """Keep the evidence, where the two statements are here: our head, and the snapshot that follows another."""
        ours = Memory(self.half).since(self.writer, number)[:1]
        if not signed or not ours or ours[0].number != number:
            return
        theirs = read_snapshot_link(signed, b"", self.half.tenant)
        if excludes(ours[0], theirs):
            report(
                *(self.half, self.federation, "fork"),
                writer=self.writer,
                number=theirs.number,
                statements=[ours[0].statement, theirs.statement],
            )


async def read_snapshot(
    half: Half, federation: Federation, name: ObjectName, holders: tuple[Identity, ...] = ()
) -> tuple[Snapshot, bytes]:
    """Fetch a snapshot object, check its name, its seal, its writer's signature; return it, and as it was signed.

    Raises:
        IntegrityError, FormatError: it does not hold.
        NotFoundError: no reachable peer has it.
    """
    data = await federation.fetch(name, holders)
    snapshot, signed = open_signed_snapshot(half, data)
    add_opened(half, name, "snapshot", half.whose(snapshot.writer), len(data), snapshot.created_ns)
    return snapshot, signed


def add_opened(half: Half, name: bytes, kind: ObjectKind, writer: bytes, size: int, created_ns: int) -> int:
    """Remember a record that was opened, and so is what it is, whatever somebody's index called it; return its row."""
    objects = half.catalog.objects
    with half.catalog.database.transaction("object row"):
        known = objects.by_name(name)
        if known is not None and known.kind != kind:
            objects.become(known.id, writer=writer, kind=kind, size=size, index_id=None)
        return objects.add(name=name, writer=writer, kind=kind, size=size, spooled=False, created_ns=created_ns)


def open_snapshot(half: Half, data: bytes) -> Snapshot:
    """Return the snapshot in an object, after checking who signed it."""
    return open_signed_snapshot(half, data)[0]


def open_signed_snapshot(half: Half, data: bytes) -> tuple[Snapshot, bytes]:
    """Return the snapshot in an object and its signed bytes, after checking who signed it."""
    signed = _open_any_domain(half, data, Kind.SNAPSHOT)
    snapshot = decode(Snapshot, verify(signed, Context.SNAPSHOT, half.charter.writer_keys()))
    must_be_own(signed, snapshot.writer, snapshot.tenant, half.tenant, "snapshot")
    return snapshot, signed


def _open_any_domain(half: Half, data: bytes, kind: Kind) -> bytes:
    problem: ReplicatorError | None = None
    for domain in half.domain_ids:
        keys: DomainKeys = half.keys(domain)
        try:
            return open_object(data, kind, keys)
        except ReplicatorError as error:
            problem = error
    lacking = [one.name for one in half.private.domains if one.id not in half.domain_ids]
    lacking += [
        f"{one.name} (erased on {day_of(one.erased_ns)})"
        for one in half.private.erased
        if one.id not in half.domain_ids
    ]
    if lacking:
        # Nothing in an object says of which domain it is.
        raise KeyMissingError(
            f"snapshots that this home cannot open: of domain {' or '.join(lacking)}, whose keys it was not given"
        )
    raise problem or IntegrityError("object: this home has no domain")


async def remember(
    half: Half,
    federation: Federation,
    name: ObjectName,
    snapshot: Snapshot,
    head: bytes,
    holders: tuple[Identity, ...],
) -> None:
    """Bring a snapshot that was checked into the catalog, after the indexes that it names.

    Raises:
        NotFoundError: an index is nowhere.
        IntegrityError, FormatError: one does not hold.
    """
    objects = half.catalog.objects
    policy = half.catalog.datasets.remember(snapshot.policy)
    for index_name in snapshot.indexes:
        if not knows_index(half, index_name):
            await read_index(
                half, federation, ObjectName(index_name), snapshot.writer, domain=snapshot.domain, holders=holders
            )
    for reference in snapshot.references:
        known = objects.by_name(reference)
        if known is None or known.kind != "references":
            try:
                data = await federation.fetch(ObjectName(reference), holders)
            except NotFoundError as error:  # a restore does without
                federation.notices.append(f"references of snapshot {snapshot.number}: {error}")
                continue
            if known is None or _is_kind(half, data, snapshot.domain, Kind.REFERENCES):
                writer = half.whose(snapshot.writer)
                add_opened(half, reference, "references", writer, len(data), snapshot.created_ns)
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


def _is_kind(half: Half, data: bytes, domain: bytes, kind: Kind) -> bool:
    try:
        return open_locator(data, len(data), half.keys(domain)).kind == kind
    except ReplicatorError:
        return False


async def fetch_index(
    half: Half,
    federation: Federation,
    name: ObjectName,
    holders: tuple[Identity, ...] = (),
    *,
    domain: bytes | None = None,
) -> tuple[Index, int]:
    """Return an index, of any domain if none is said, after checking who signed it, and the size of its object.

    It is a writer's own, or a maintainer's: that one counts only for whom a snapshot or a Forget names it.

    Raises:
        IntegrityError, FormatError: it does not hold.
        NotFoundError: no reachable peer has it.
    """
    data = await federation.fetch(name, holders)
    if domain is None:
        signed = _open_any_domain(half, data, Kind.INDEX)
    else:
        signed = open_object(data, Kind.INDEX, half.keys(domain))
    keys = [*half.charter.writer_keys(), *half.charter.maintainer_keys()]
    index = decode(Index, verify(signed, Context.INDEX, keys))
    must_be_own(signed, index.writer, index.tenant, half.tenant, f"index {short(name)}")
    return index, len(data)


async def read_index(
    half: Half,
    federation: Federation,
    name: ObjectName,
    writer: bytes,
    *,
    domain: bytes | None = None,
    holders: tuple[Identity, ...] = (),
) -> None:
    """Bring an index that a writer's snapshot of a ``domain`` names, or that was made for it, into the catalog.

    Raises:
        IntegrityError, FormatError: it does not hold.
        NotFoundError: no reachable peer has it.
    """
    index, size = await fetch_index(half, federation, name, holders, domain=domain)
    if domain is not None and index.domain != domain:
        raise IntegrityError(f"index {short(name)}: of another domain than the snapshot that names it")
    take_index(half, name, index, size, writer)


def take_index(half: Half, name: ObjectName, index: Index, size: int, writer: bytes) -> None:
    """Bring an index that was checked into the catalog; ``writer``: for whom a maintainer made it.

    Raises:
        IntegrityError: it contradicts itself.
    """
    own_word = index.writer in {identity_of(key) for key in half.charter.writer_keys()}
    owner = index.writer
    if not own_word:
        owner = {one.index: one.writer for one in Forgotten.of(half).moved}.get(name, writer)
    owner = half.whose(owner)
    policies: dict[bytes, Policy] = {policy_id(policy): policy for policy in index.policies}
    for policy in index.policies:
        half.catalog.datasets.remember(policy)
    objects, gone = half.catalog.objects, gone_writers(half)
    with half.catalog.database.transaction("index row"):
        row = add_opened(half, name, "index", owner, size, index.created_ns)
        for pack in index.packs:
            if pack.policy not in policies:
                raise IntegrityError(f"index {short(name)}: a pack has a policy that it does not contain")
            cut = Cut.said(pack, policies[pack.policy])
            kind: ObjectKind = "data" if pack.kind == Kind.DATA_PACK else "tree"
            known = objects.by_name(pack.name)
            if known is not None and known.writer != owner:
                # One of the two wrote it, and the other is in wrong hands. A home can tell of its own packs, and people
                # have told where one of the two was revoked.
                theirs = known.writer != half.identity
                rightly = (
                    owner == half.identity or known.kind == "shard" or (known.writer in gone and owner not in gone)
                )
                if theirs and own_word and rightly:
                    objects.become(known.id, writer=owner, kind=kind, size=pack.size, policy=pack.policy, index_id=row)
                else:
                    if theirs:
                        objects.also_lists(known.id, pack.ids)
                    if own_word:
                        better = _stronger(half, known, pack.policy, policies) if theirs else None
                        objects.also_listed([known.id], row, better)
                    if cut is not None:  # its shards are known to be somebody's, whoever is right
                        for shard in cut.names:
                            objects.add(
                                name=shard,
                                writer=owner,
                                kind="shard",
                                size=shard_size(pack.size, cut.needed),
                                policy=pack.policy,
                                spooled=False,
                                created_ns=index.created_ns,
                            )
                    continue
            elif known is not None and not (own_word or known.index_id in {None, row}):
                # A maintainer has no say over a pack that a writer's index lists.
                if known.writer != half.identity:
                    objects.also_lists(known.id, pack.ids)
                continue
            if cut is not None:
                shards = [one for one in objects.by_names(cut.names) if one.writer != half.identity]
                objects.also_listed([one.id for one in shards if (one.writer, one.kind) != (owner, "shard")], row)
            objects.add(
                name=pack.name,
                writer=owner,
                kind=kind,
                size=pack.size,
                policy=pack.policy,
                index_id=row,
                spooled=False,
                created_ns=index.created_ns,
                chunk_ids=pack.ids,
                shards=() if cut is None else cut.names,
                needed=0 if cut is None else cut.needed,
            )


def _stronger(half: Half, known: ObjectRow, policy: bytes, policies: Mapping[bytes, Policy]) -> bytes | None:
    """Return the policy if it promises all that an object's own does, and more."""
    own = half.catalog.datasets.policies().get(known.policy)
    return policy if own is None or at_least_as_strong(policies[policy], own) else None


async def _settle_contested(half: Half, federation: Federation) -> None:
    """Believe the other one of two nodes, now that the one that was believed is revoked."""
    gone = gone_writers(half)
    for name, writer, believed in half.catalog.objects.disputes():
        if believed in gone and writer not in gone:
            try:
                index, size = await fetch_index(half, federation, ObjectName(name))
                take_index(half, ObjectName(name), index, size, writer)
            except ReplicatorError as error:
                federation.notices.append(f"index {short(name)}, which a revoked node's contradicts: {error}")


def _say_contested(half: Half, federation: Federation) -> None:
    """Say of which nodes each calls its own what the other does, until one of them is revoked and its indexes gone."""
    gone = gone_writers(half)
    counts: dict[tuple[bytes, ...], int] = {}
    for (_, writer, believed), count in half.catalog.objects.disputes().items():
        pair = tuple(sorted((believed, writer)))
        counts[pair] = counts.get(pair, 0) + count
    for pair, count in sorted(counts.items()):
        names = sorted(name_of_key(half.private, Identity(one)) for one in pair)
        text = (
            f"{names[0]} and {names[1]} both list {counted(count, 'object')} as their own, and only one of them can "
            "have written that: the other is in wrong hands, or was cloned. Find out which, and `replicator node "
            "revoke` it"
        )
        told = federation.notices if gone.intersection(pair) else federation.integrity
        if text not in told:
            told.append(text)
    records = half.catalog.objects.by_names(records_in_force(half))
    nodes = {bytes(identity_of(key)) for key in half.charter.writer_keys()}
    for writer in sorted({row.writer for row in records if row.kind in _LISTED and row.writer in nodes}):
        text = (
            f"{name_of_key(half.private, Identity(writer))} lists records of the tenant itself (charter, keybag, what "
            "is forgotten) as packs of its own: it is in wrong hands. `replicator node revoke` it"
        )
        told = federation.notices if writer in gone else federation.integrity
        if text not in told:
            told.append(text)
