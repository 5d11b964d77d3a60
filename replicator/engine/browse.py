"""Reading snapshots on a keeper: which there are, what is in them, what a name means."""

import asyncio
import datetime
import os
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from replicator.catalog.objects import ObjectRow, split_ids
from replicator.catalog.snapshots import SnapshotRow
from replicator.clock import NS
from replicator.engine.dismissed import dismissed
from replicator.engine.federation import Federation, get_whole, patiently
from replicator.engine.forgetting import Forgotten
from replicator.engine.heads import KnownHead
from replicator.engine.keeper import ReaderHome
from replicator.engine.naming import Label, choose
from replicator.engine.nearby import Nearby
from replicator.engine.packcache import PackCache
from replicator.engine.preference import Preference
from replicator.engine.sync import open_snapshot, sync_all
from replicator.engine.threads import on_thread
from replicator.errors import (
    FormatError,
    IntegrityError,
    KeyMissingError,
    KeyWrongError,
    NotFoundError,
    ReplicatorError,
    UnreachableError,
    UsageError,
)
from replicator.format.codec import decode
from replicator.format.merkle import name_of
from replicator.format.pack import CHUNK_LIST
from replicator.format.snapshot import ChunkRef, Snapshot, SnapshotDetails
from replicator.fs import write_cached
from replicator.ids import Identity, ObjectName, short
from replicator.pack.keys import DomainKeys, snapshot_context
from replicator.pack.reader import PackReader, check_length
from replicator.process import Stop
from replicator.snapshot.tree import TreePath, TreeReader
from replicator.transport.base import Connection

if TYPE_CHECKING:
    from replicator.engine.fetchers import Fetchers
    from replicator.engine.keptpacks import KeptPacks
    from replicator.engine.slots import Held, Slots
    from replicator.engine.writeframes import Setup
    from replicator.snapshot.metadata import Rights

T = TypeVar("T")
PACKS_IN_MEMORY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSnapshot:
    """A snapshot whose names this keeper has opened. ``seen_by`` of ``asked`` reachable peers witnessed its chain."""

    row: SnapshotRow
    snapshot: Snapshot
    details: SnapshotDetails
    node: str

    @property
    def id(self) -> str:
        """The id people use: the object's name."""
        return self.row.name.hex()

    @property
    def created(self) -> datetime.datetime:
        """When it was taken, in UTC."""
        return datetime.datetime.fromtimestamp(self.row.created_ns / NS, datetime.UTC)


class Library:
    """All snapshots of a tenant, as the federation holds them and this keeper can open them.

    ``trees`` are the packs of directories that lie on this keeper's disk already; None: everything is fetched.
    """

    def __init__(self, keeper: ReaderHome, federation: Federation) -> None:
        self.keeper = keeper
        self.federation = federation
        self.heads: dict[bytes, KnownHead] = {}
        self.trees: PackCache | None = PackCache(keeper.file(os.path.join("cache", "trees")), keeper.fs)

    def uncached(self) -> "Library":
        """Return the same library without the cache of trees: for checks of what providers hold."""
        library = Library(self.keeper, self.federation)
        library.heads = self.heads
        library.trees = None
        return library

    async def refresh(self) -> None:
        """Bring every writer's chain into the catalog. Trouble with one chain is a notice, not an end."""
        self.heads = await sync_all(self.keeper, self.federation)

    async def snapshots(self, *, forgotten: bool = False) -> list[OpenSnapshot]:
        """Return all snapshots that can be read, oldest first; the others are told, and hide none of these.

        ``forgotten``: those that were forgotten and are still there, in place of those that are wanted.

        Raises:
            KeyWrongError: the passphrase is wrong.
            NotFoundError, IntegrityError, FormatError, KeyMissingError: there are some and none can be read.
        """
        found: list[OpenSnapshot] = []
        problem: ReplicatorError | None = None
        state = Forgotten.of(self.keeper)
        for row in self.keeper.catalog.snapshots.all():
            if state.hides(row) != forgotten:
                continue
            try:
                found.append(await self.open(row))
            except (NotFoundError, IntegrityError, FormatError, KeyMissingError) as error:
                if forgotten:  # it may be gone already, and nobody waits for it
                    continue
                problem = problem or error
                self._tell(f"snapshot {short(row.name)} of {short(row.writer)}: {error}", error)
        if problem is not None and not found:
            raise problem
        return found

    def _tell(self, text: str, error: ReplicatorError) -> None:
        wrong = isinstance(error, IntegrityError | FormatError)
        told = self.federation.integrity if wrong else self.federation.notices
        if text not in told:
            told.append(text)

    async def open(self, row: SnapshotRow) -> OpenSnapshot:
        """Return one snapshot with its details opened.

        Raises:
            KeyWrongError: the passphrase is wrong.
            NotFoundError: no reachable peer has it.
            IntegrityError, FormatError: it is not what it should be, or was sealed to another key.
            KeyMissingError: it is of a domain that this keeper has no keys of.
        """
        keeper = self.keeper
        snapshot = open_snapshot(keeper, await self._object(row.name))
        reader = keeper.reader(snapshot.domain)
        try:
            body = reader.open_box(
                snapshot.sealed, snapshot_context(reader.keys, snapshot.writer, snapshot.number), "its details"
            )
        except KeyWrongError as error:
            raise IntegrityError(error.message) from error  # to which key it sealed them is its writer's word
        names = {node.identity: node.name for node in keeper.private.nodes}
        return OpenSnapshot(
            row=row,
            snapshot=snapshot,
            details=decode(SnapshotDetails, body),
            node=names.get(snapshot.writer, short(snapshot.writer)),
        )

    async def _object(self, name: ObjectName) -> bytes:
        # Sealed objects are kept as they are: what lies on the keeper's disk is no more than what peers hold.
        folder = self.keeper.file("cache")
        path = os.path.join(folder, name.hex())
        if self.keeper.fs.size(path) is not None:
            data = self.keeper.fs.read(path)
            if name_of(data) == name:
                return data
        data = await self.federation.fetch(name, self.holders(name))
        self.keeper.fs.makedirs(folder)
        write_cached(self.keeper.fs, path, data)
        return data

    async def pack(self, row: ObjectRow, holders: Sequence[Identity] | None = None) -> tuple[bytes, bool]:
        """Return a pack and whether it was fetched: one of directories may be in the cache.

        ``holders`` are asked in their order.

        Raises:
            NotFoundError: no reachable peer has it.
        """
        kept = self.trees if row.kind == "tree" else None
        if kept is not None:
            data = await asyncio.to_thread(kept.get, row.name)
            if data is not None:
                return data, False
        data = await self.federation.fetch(row.name, self.holders(row.name) if holders is None else holders)
        if kept is not None:
            await asyncio.to_thread(kept.put, row.name, data)
        return data, True

    def holders(self, name: bytes) -> list[Identity]:
        """Return who is believed to hold an object."""
        row = self.keeper.catalog.objects.by_name(name)
        if row is None:
            return []
        return [holding.peer for holding in self.keeper.catalog.objects.holdings_of(row.id) if holding.state == "held"]

    async def find(self, text: str) -> OpenSnapshot:
        """Return the snapshot that ``text`` means: id prefix, ``latest``, ``latest:DATASET``, ``DATASET@DATE``.

        Raises:
            NotFoundError: none, or a prefix of more than one.
            UsageError: nothing, or a date that is none.
        """
        found = await self.snapshots()
        return found[choose([label_of(one) for one in found], text)]


def label_of(snapshot: OpenSnapshot) -> Label:
    """Return what a snapshot is chosen by."""
    return Label(id=snapshot.id, dataset=snapshot.details.dataset, created_ns=snapshot.row.created_ns)


def newest_of_each(found: Sequence[OpenSnapshot]) -> list[OpenSnapshot]:
    """Return the newest snapshot of every node's every dataset, by name; snapshots come oldest first.

    A node whose key was renewed is one node: only it has its name.
    """
    newest = {(one.details.dataset, one.node): one for one in found}
    return [newest[key] for key in sorted(newest)]


def find_path(reader: TreeReader, snapshot: OpenSnapshot, text: str) -> TreePath:
    """Return where ``text`` is in a snapshot: below its roots' names, below its only root, or an original path.

    Raises:
        NotFoundError: nowhere.
        UsageError: it has ".." in it.
    """
    if not tree_path(text):
        return ()
    problem: NotFoundError | None = None
    for candidate in candidates(snapshot.details, text):
        try:
            reader.lookup(snapshot.details.tree, candidate)
        except NotFoundError as error:
            problem = problem or error
        else:
            return candidate
    assert problem is not None, "there is at least one candidate"
    raise problem


def candidates(details: SnapshotDetails, text: str) -> list[TreePath]:
    """Return the paths in a snapshot that ``text`` may mean, the likelier first; only the top itself has none.

    Raises:
        UsageError: it has ".." in it.
    """
    path = tree_path(text)
    if not path:
        return []
    found = [path]
    if len(details.roots) == 1:
        found.append((details.roots[0].name, *path))
    if text.startswith("/"):
        for root in details.roots:
            original = tuple(part for part in root.path.split(b"/") if part not in (b"", b"."))
            if path[: len(original)] == original:
                found.insert(0, (root.name, *path[len(original) :]))
    return found


class ChunkFetcher:
    """Gives chunks by kind and id, fetching and opening whole packs, a few of which stay in memory.

    It is a :class:`~replicator.snapshot.sink.ChunkSource` for plain code in a worker thread, which waits there
    while the loop fetches; :meth:`in_thread` runs such code.
    """

    def __init__(self, library: Library, domain: bytes, *, trees_on_disk: bool = False) -> None:
        """With ``trees_on_disk`` packs of directories are read from this machine's cache, as far as they are asked for.

        They take no memory then, and a file is open for each until :meth:`close`.
        """
        self._library = library
        self._reader = library.keeper.reader(domain)
        self._packs: OrderedDict[int, PackReader] = OrderedDict()
        self._trees_on_disk = trees_on_disk
        self._anew: set[int] = set()
        """Packs that are not read from the cache any more: something there was not what it should be."""
        self._nearby = Nearby(self.places, self._chunks_of)
        self._given_up: set[tuple[int, bytes]] = set()
        self._leaving = dismissed(library.keeper)
        self._whom = Preference(library.federation.edge.clock)
        self.fetched: Counter[int] = Counter()
        """Bytes of each pack that was fetched, as often as it was."""
        self.loop = asyncio.get_running_loop()
        """Where fetching is done."""
        self._process: Fetchers | None = None
        self._kept: KeptPacks | None = None
        self._from_kept: set[int] = set()

    @property
    def keys(self) -> DomainKeys:
        """The working keys of the domain whose chunks these are."""
        return self._reader.keys

    def place(self, ids: Sequence[bytes]) -> list[int]:
        """Return a pack for each chunk, as catalog rows; one that :meth:`give_up` named only if there is no other.

        Raises:
            IntegrityError: no index names one of them.
        """
        found = self._nearby.packs(ids)
        if self._given_up:
            for number, (chunk, pack) in enumerate(zip(ids, found, strict=True)):
                if self._is_given_up(pack, chunk):
                    [packs] = self.places([chunk])
                    found[number] = next((one for one in packs if not self._is_given_up(one, chunk)), packs[0])
        return found

    def places(self, ids: Sequence[bytes]) -> list[list[int]]:
        """Return all packs that hold each chunk, as catalog rows; those that are to go, or are gone, last.

        Raises:
            IntegrityError: no index names one of them.
        """
        found = self._library.keeper.catalog.objects.places(ids)
        for chunk, places in zip(ids, found, strict=True):
            if not places:
                raise IntegrityError(f"chunk {chunk.hex()[:12]}: no index names a pack for it")
        return [
            sorted((place.object_number for place in places), key=self._leaving.__contains__)
            if self._leaving and len(places) > 1
            else [place.object_number for place in places]
            for places in found
        ]

    def _chunks_of(self, pack: int) -> list[bytes]:
        return split_ids(self._library.keeper.catalog.objects.chunk_ids(pack))

    def give_up(self, pack: int, chunk: bytes, why: ReplicatorError) -> bool:
        """Look for a chunk in another pack from now on; return whether there is one."""
        self._given_up.add((pack, chunk))
        [other] = self.place([chunk])
        if self._is_given_up(other, chunk):
            return False
        notices = self._library.federation.notices
        if str(why) not in notices:
            notices.append(str(why))
        return True

    def _is_given_up(self, pack: int, chunk: bytes) -> bool:
        return (pack, chunk) in self._given_up

    def get(self, kind: int, ref: ChunkRef) -> bytes:
        """Return a chunk's plaintext; called from a worker thread only.

        Raises:
            NotFoundError: no reachable peer has a pack of it.
            IntegrityError, FormatError: no pack holds it as it should.
        """
        while True:
            [pack] = self.place([ref.id])
            try:
                reader = self._packs.get(pack)
                if reader is None:
                    reader = asyncio.run_coroutine_threadsafe(self.load(pack), self.loop).result()
                data = reader.chunk(kind, ref.id)
                if kind != CHUNK_LIST:  # whose length is that of what it lists
                    check_length(ref.id, data, ref.length)
            except OSError as error:
                if not self._bring_anew(pack, error):
                    raise
            except (NotFoundError, IntegrityError, FormatError) as error:
                if not self._bring_anew(pack, error) and not self.give_up(pack, ref.id, error):
                    raise
            else:
                return data

    def _bring_anew(self, pack: int, why: Exception) -> bool:
        """Return whether a pack was read from the cache and is fetched into memory now: the disk may be wrong."""
        reader = self._packs.get(pack)
        if reader is None or reader.is_in_memory:
            return False
        del self._packs[pack]
        self._anew.add(pack)
        name = self.row(pack).name
        if self._library.trees is not None:
            self._library.trees.drop(name)
        self._library.federation.notices.append(
            f"pack {short(name)}: what this machine's cache gave is not right any more ({why}); it is fetched anew. If "
            "this is said again, look at the disk"
        )
        return True

    async def in_thread(self, work: Callable[[TreeReader], T]) -> T:
        """Run tree-reading code in a worker thread and return what it returns."""
        try:
            return await asyncio.to_thread(work, TreeReader(self))
        finally:
            if self._library.trees is not None:
                await asyncio.to_thread(self._library.trees.settle)

    async def until_done(self, work: Callable[[Stop], T]) -> T:
        """Run something in a worker thread to its end; when this task is cancelled, it is asked to stop."""
        try:
            result, cancelled = await on_thread(work)
        finally:
            if self._library.trees is not None:
                await asyncio.to_thread(self._library.trees.settle)
        if cancelled is not None:
            raise cancelled
        return result

    def begin(self, pack: int) -> "Future[bytes]":
        """Fetch a pack as it is, sealed; called from a worker thread. The future's errors are those of :meth:`load`."""
        return asyncio.run_coroutine_threadsafe(self._fetch(pack), self.loop)

    def peers(self) -> list[Identity]:
        """Return the providers that answer."""
        return list(self._library.federation.links)

    def holders(self, pack: int) -> list[Identity]:
        """Return who can be asked for a whole pack; nobody where that is not how it comes.

        That is where it is cut into shards, of directories, or on this machine already. Where nobody is known to have
        it, as to a keeper that never looked, everybody may: who has it not says so at once.
        """
        row, federation = self.row(pack), self._library.federation
        if row.kind == "tree" or self._library.keeper.catalog.objects.shards_of(row) is not None:
            return []
        if self.is_kept(pack):
            return []
        links = [one for one in list(federation.links) if (one, row.name) not in federation.denied]
        known = set(self._library.holders(row.name))
        return [one for one in links if one in known] or links

    def is_kept(self, pack: int) -> bool:
        """Return whether a pack that was filled in comes from this machine the next time."""
        return self._kept is not None and pack in self._kept

    def size(self, pack: int) -> int:
        """Return the bytes of a pack."""
        return self.row(pack).size

    async def bring(self, pack: int, peer: Identity | None) -> bytes:
        """Return a pack as it is, sealed, from one provider; or with None from whoever has it, or its shards.

        Raises:
            NotFoundError: nobody within reach has it.
            IntegrityError: this one answered with other bytes.
            PeerError: it did not answer, or refused.
        """
        if peer is None:
            return await self._fetch(pack)
        row = self.row(pack)
        data = await self._ask(row, peer, get_whole)
        self.fetched[pack] += row.size
        return data

    async def fill(self, pack: int, peer: Identity | None, slot: int, memory: "Held", slots: "Slots") -> int:
        """Fetch a pack as :meth:`bring` does, into a slot; return its size. When it ends, nobody writes there any more.

        The process that this takes is started with the first one, where providers can be reached from another process;
        all calls are for the same slots. Call :meth:`close` when they are used no more.
        """
        from replicator.engine.slots import write  # noqa: PLC0415 - who only browses does without what restores

        if peer is None:
            return await self._fill(pack, slot, memory, slots)
        row = self.row(pack)
        if any(link.connection.reach() is None for link in self._library.federation.links.values()):
            size = write(memory.fd, await self._ask(row, peer, get_whole))
        else:
            size = await self._ask(row, peer, self._into(slot, slots))
        self.fetched[pack] += size
        await self._keep(pack, memory, size)
        return size

    async def _ask(self, row: ObjectRow, peer: Identity, get: Callable[[Connection, ObjectName], Awaitable[T]]) -> T:
        federation = self._library.federation
        link = federation.links.get(peer)
        if link is None:
            raise UnreachableError(short(peer), "answers no more")
        return await patiently(federation.edge, lambda: federation.ask(get, row.name, link))

    def _into(self, slot: int, slots: "Slots") -> "Callable[[Connection, ObjectName], Awaitable[int]]":
        from replicator.engine.fetchers import Fetchers  # noqa: PLC0415 - who only browses does without

        process = self._process = self._process or Fetchers(slots.descriptors)

        async def get(connection: Connection, name: ObjectName) -> int:
            return await process.get_into(connection, name, slot)

        return get

    async def _keep(self, pack: int, memory: "Held", size: int) -> None:
        kept = self._kept
        if kept is not None:
            # To its end, also for who is given up: the memory is another pack's then.
            _, cancelled = await on_thread(lambda _: kept.put(pack, memory.fd, size))
            if cancelled is not None:
                raise cancelled

    def keep(self, needed: int) -> None:
        """Keep what :meth:`fill` fetches on the keeper's disk until :meth:`close`, as far as there is room.

        That is beside ``needed`` bytes, which something else takes there.
        """
        from replicator.engine.keptpacks import KeptPacks  # noqa: PLC0415 - who only browses does without

        self._kept = KeptPacks(self._library.keeper.file("cache"), needed=needed)

    def fetch_anew(self, pack: int) -> bool:
        """Return whether a pack was filled in from what was kept, which is not done again: it may have been damaged."""
        if pack not in self._from_kept:
            return False
        self._from_kept.remove(pack)
        if self._kept is not None:
            self._kept.drop(pack)
        return True

    def close(self) -> None:
        """End the process that fills memory, and keep nothing any more; called on the loop."""
        self._packs.clear()
        if self._process is not None:
            self._process.close()
            self._process = None
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def setup(self, rights: "Rights") -> "Setup":
        """Return what a process needs to open packs and write what is in them."""
        from replicator.engine.writeframes import Setup  # noqa: PLC0415 - who only browses does without

        return Setup(
            keys=self._reader.keys,
            restore_private=self._reader.restore_private,
            formers=self._reader.formers,
            privileged=rights.privileged,
            numeric_ids=rights.numeric_ids,
        )

    async def load(self, pack: int) -> PackReader:
        """Fetch and open a pack unless it is in memory.

        Raises:
            NotFoundError: no reachable peer has it.
        """
        reader = self._packs.get(pack)
        if reader is None:
            while len(self._packs) >= PACKS_IN_MEMORY:
                self._packs.popitem(last=False)
            reader = self._packs[pack] = await self._open_cached(pack) or await self.open(pack)
        return reader

    async def _open_cached(self, pack: int) -> PackReader | None:
        """Open a pack of directories where it lies on this machine, after it was fetched if need be."""
        row, trees = self.row(pack), self._library.trees
        if not self._trees_on_disk or row.kind != "tree" or trees is None or pack in self._anew:
            return None
        cached = await asyncio.to_thread(trees.open, row.name)
        if cached is None:
            data = await self._fetch(pack)
            cached = await asyncio.to_thread(trees.open, row.name)
            if cached is None:
                return PackReader(data, self._reader)
        try:
            return PackReader(cached, self._reader)
        except OSError:
            return None

    async def open(self, pack: int) -> PackReader:
        """Fetch and open a pack, which is not kept: from the holder that is asked for the fewest others now.

        Raises:
            NotFoundError: no reachable peer has it.
            IntegrityError, FormatError: it is not a pack of this domain.
        """
        return PackReader(await self._fetch(pack), self._reader)

    async def _fetch(self, pack: int) -> bytes:
        row = self.row(pack)
        with self._asking(row, pack) as (order, came):
            data, fetched = await self._library.pack(row, order)
            if fetched:
                came()
                self.fetched[pack] += row.size
        return data

    async def _fill(self, pack: int, slot: int, memory: "Held", slots: "Slots") -> int:
        from replicator.engine.slots import write  # noqa: PLC0415 - who only browses does without

        row = self.row(pack)
        federation = self._library.federation
        cut = self._library.keeper.catalog.objects.shards_of(row) is not None  # and joined in this process
        here = row.kind == "tree" or any(link.connection.reach() is None for link in federation.links.values())
        if here and not cut:
            return write(memory.fd, await self._fetch(pack))
        kept = self._kept
        if kept is not None:
            known = await asyncio.to_thread(lambda: kept.get(pack, memory.fd))
            if known is not None:
                self._from_kept.add(pack)
                return known
        if cut:
            size = write(memory.fd, await self._fetch(pack))
        else:
            size = await self._fill_elsewhere(row, pack, slot, slots)
        await self._keep(pack, memory, size)
        return size

    async def _fill_elsewhere(self, row: ObjectRow, pack: int, slot: int, slots: "Slots") -> int:
        """Let the process fetch a pack into memory; return its size."""
        with self._asking(row, pack) as (order, came):
            size = await self._library.federation.fetch_by(self._into(slot, slots), row.name, order)
            came()
        self.fetched[pack] += size
        return size

    @contextmanager
    def _asking(self, row: ObjectRow, pack: int) -> Iterator[tuple[list[Identity], Callable[[], None]]]:
        """Give the order in which to ask for a pack, and what to call when it has come; others ask elsewhere."""
        federation = self._library.federation
        holders = self._library.holders(row.name)
        others = [identity for identity in federation.links if identity not in holders]
        # A keeper may know of no holder at all: to ask one that has it not costs a word, to ask all of one costs the
        # others' lines.
        denied = {identity for identity in federation.links if (identity, row.name) in federation.denied}
        order = self._whom.order(pack, row.size, holders, others, denied)
        with self._whom.of(next((one for one in order if one in federation.links), None), row.size) as came:
            yield order, came

    def row(self, pack: int) -> ObjectRow:
        """Return the catalog's row of a pack."""
        [row] = self._library.keeper.catalog.objects.all("id = ?", (pack,))
        return row


def tree_path(text: str) -> TreePath:
    """Return a path below a snapshot as components; empty parts and a leading slash are dropped.

    Raises:
        UsageError: it has ".." in it.
    """
    parts = tuple(part for part in os.fsencode(text).split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise UsageError(f"'{text}': a path inside a snapshot has no '..'")
    return parts
