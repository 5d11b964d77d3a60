"""Objects, where copies of them are believed to be, and which chunks and shards the packs among them have."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from chunker import Location
from replicator.catalog.schema import Database
from replicator.clock import DAY_S, NS
from replicator.format.sizes import shard_size
from replicator.ids import Identity, ObjectName

ObjectKind = Literal["data", "tree", "shard", "index", "references", "snapshot", "charter", "keybag"]
"""A pack that is cut into shards is a row too, of which no provider has anything: they have its shards."""
HoldingState = Literal["held", "released", "missing", "damaged", "gone"]
"""What a peer's copy is: there, given up as one too many, not there any more, not right, or nothing to wait for.

What is released is still there for a while, is no copy that counts, and in no claim. Gone is what was lost and made up
for elsewhere, and what was released and deleted then.
"""
_COLUMNS = "id, name, writer, kind, size, policy, index_id, spooled, created_ns, lost"
_HOLDING = "object_id, peer, state, incarnation, received_ns, checked_ns, audited_ns"
_BATCH = 500
_DURABLE, _WRITTEN = 1, 2
"""What ``spooled`` holds for bytes that lie in the spool: synced, or not yet."""
_WAITING = "SELECT s.pack_id FROM shards s JOIN objects o ON o.id = s.object_id WHERE o.spooled"
"""Packs of which a shard lies in the spool."""
_ENOUGH = (
    "(SELECT count(DISTINCT s.object_id) FROM shards s JOIN holdings h ON h.object_id = s.object_id "
    "WHERE s.pack_id = objects.id AND h.state = 'held' AND h.checked_ns >= ?) "
    ">= (SELECT max(needed) FROM shards WHERE pack_id = objects.id)"
)
"""Whether a pack's shards that somebody was seen to hold since a time suffice."""
_TOGETHER_NS = DAY_S * NS
"""Shards that are seen within this time are there together: what silent peers are believed to have finds no pack."""
_ID = 32
_PART = 4 << 20
"""Bytes of chunk ids that are read at a time: numpy's fixed costs are small beside it, and so is it beside the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRow:
    """One object this home knows of. ``policy`` is empty for records; ``index_id`` None until it is indexed.

    ``lost``: no copy was left anywhere when it was last needed.
    """

    id: int
    name: ObjectName
    writer: bytes
    kind: ObjectKind
    size: int
    policy: bytes
    index_id: int | None
    spooled: bool
    created_ns: int
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """What a pack is cut into, by number; any ``needed`` of them give it back."""

    needed: int
    rows: tuple[ObjectRow, ...]

    @property
    def coding(self) -> tuple[int, int]:
        """Data and parity shards."""
        return self.needed, len(self.rows) - self.needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A copy as last heard of: a hint until the peer's inventory says so again."""

    object_id: int
    peer: Identity
    state: HoldingState
    incarnation: bytes
    received_ns: int
    checked_ns: int
    audited_ns: int


class Objects:
    """Rows of objects, holdings and chunks."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(
        self,
        *,
        name: bytes,
        writer: bytes,
        kind: ObjectKind,
        size: int,
        policy: bytes = b"",
        index_id: int | None = None,
        spooled: bool,
        created_ns: int,
        chunk_ids: bytes = b"",
        shards: Sequence[bytes] = (),
        needed: int = 0,
        synced: bool = True,
    ) -> int:
        """Remember an object and the chunks it holds in one commit; return its row id, which no other ever gets.

        ``chunk_ids`` are a pack's, joined in the order of its directory. A known object keeps its row id, and its
        chunks if none are given. A chunk that another pack holds already is in both: it was stored again on purpose.
        ``shards`` are the names of what the pack is cut into, of which ``needed`` suffice; they are spooled then.
        What is not ``synced`` is nothing to rely on beyond a power cut: see :meth:`unsynced`.
        """
        state = (_DURABLE if synced else _WRITTEN) if spooled else 0
        assert len(chunk_ids) % _ID == 0, "whole ids"
        assert not shards or 0 < needed < len(shards), "some of them suffice"
        with self._db.transaction("object row") as connection:
            connection.execute(
                "INSERT INTO objects (name, writer, kind, size, policy, index_id, spooled, created_ns, lost) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT(name) DO UPDATE SET "
                "index_id = coalesce(excluded.index_id, index_id), spooled = max(spooled, excluded.spooled)",
                (name, writer, kind, size, policy, index_id, 0 if shards else state, created_ns),
            )
            [object_id] = connection.execute("SELECT id FROM objects WHERE name = ?", (name,)).fetchone()
            if chunk_ids:
                connection.execute(
                    "INSERT OR REPLACE INTO pack_ids (object_id, ids) VALUES (?, ?)", (object_id, chunk_ids)
                )
            if chunk_ids and self._db.places:
                connection.execute("DELETE FROM chunks WHERE object_id = ?", (object_id,))
                connection.executemany(
                    "INSERT OR REPLACE INTO chunks (id, object_id, entry) VALUES (?, ?, ?)",
                    sorted((chunk, object_id, entry) for entry, chunk in enumerate(split_ids(chunk_ids))),
                )
            for number, shard in enumerate(shards):
                part = self.add(
                    name=shard,
                    writer=writer,
                    kind="shard",
                    size=shard_size(size, needed),
                    policy=policy,
                    spooled=spooled,
                    created_ns=created_ns,
                    synced=synced,
                )
                connection.execute(
                    "INSERT OR IGNORE INTO shards (pack_id, number, object_id, needed) VALUES (?, ?, ?, ?)",
                    (object_id, number, part, needed),
                )
        return int(object_id)

    def shards(self, where: str = "1", values: tuple[object, ...] = ()) -> dict[int, Shards]:
        """Return what packs are cut into, by the packs' row ids; all, or by a condition on ``s.pack_id``."""
        columns = ", ".join(f"o.{column}" for column in _COLUMNS.split(", "))
        rows = self._db.rows(
            f"SELECT {columns}, s.pack_id, s.needed FROM shards s JOIN objects o ON o.id = s.object_id "  # noqa: S608 - own text
            f"WHERE {where} ORDER BY s.pack_id, s.number",
            values,
        )
        found: dict[int, Shards] = {}
        for pack, group in groupby(rows, key=itemgetter(-2)):
            parts = list(group)
            found[pack] = Shards(needed=parts[0][-1], rows=tuple(_object(row) for row in parts))
        return found

    def shards_of(self, pack: ObjectRow | bytes) -> Shards | None:
        """Return what a pack, given as its row or name, is cut into; None if it is whole, or is no pack."""
        if isinstance(pack, ObjectRow):
            found = self.shards("s.pack_id = ?", (pack.id,))
        else:
            found = self.shards("s.pack_id = (SELECT id FROM objects WHERE name = ?)", (pack,))
        return next(iter(found.values()), None)

    def shards_in(self, packs: Collection[int]) -> dict[int, Shards]:
        """Return what these packs are cut into, by row id; whole ones are left out."""
        found: dict[int, Shards] = {}
        for marks, part in _marked(sorted(packs)):
            found |= self.shards(f"s.pack_id IN ({marks})", part)
        return found

    def stored(self, rows: Iterable[ObjectRow]) -> list[ObjectRow]:
        """Return what providers have of these: shards in the place of packs that are cut into some."""
        rows = list(rows)
        shards = self.shards_in({row.id for row in rows if row.kind == "data"})
        return [one for row in rows for one in (shards[row.id].rows if row.id in shards else (row,))]

    def packs_of(self, shard_ids: Collection[int]) -> dict[int, set[int]]:
        """Return the row ids of the packs that these shards are of, each with those of its shards that were asked."""
        found: dict[int, set[int]] = {}
        for marks, part in _marked(sorted(shard_ids)):
            for pack, shard in self._db.rows(
                f"SELECT pack_id, object_id FROM shards WHERE object_id IN ({marks})",  # noqa: S608 - marks only
                part,
            ):
                found.setdefault(pack, set()).add(shard)
        return found

    def shards_only_of(self, packs: Collection[int]) -> set[int]:
        """Return the row ids of the shards of these packs that are of no other, and nothing but shards.

        Who wrote a pack may have named somebody's whole pack or record as a shard of it.
        """
        found: set[int] = set()
        for marks, part in _marked(sorted(packs)):
            found.update(
                row[0]
                for row in self._db.rows(
                    "SELECT s.object_id FROM shards s JOIN objects o ON o.id = s.object_id "  # noqa: S608 - marks only
                    f"WHERE o.kind = 'shard' AND s.pack_id IN ({marks})",
                    part,
                )
            )
        others = {shard for pack, shards in self.packs_of(found).items() if pack not in packs for shard in shards}
        return found - others

    def settle_spooled(self, needed: Collection[int] = ()) -> list[ObjectRow]:
        """Call nothing spooled any more, and forget what no peer has, but for ``needed``; return what was spooled.

        A pack that is cut into shards stays or goes whole.
        """
        spooled = self.all("spooled")
        kept = {row.id for row in spooled if row.id in needed or self.holdings_of(row.id)}
        gone: set[int] = set()
        for pack, shards in self.packs_of({row.id for row in spooled}).items():
            all_of_it = self.shards("s.pack_id = ?", (pack,))[pack].rows
            if pack in needed or any(self.holdings_of(row.id) for row in all_of_it):
                kept |= shards
            else:
                gone.add(pack)
        with self._db.transaction("spool row") as connection:
            connection.execute("UPDATE objects SET spooled = 0 WHERE spooled")
            self.forget(gone | {row.id for row in spooled if row.id not in kept})
        return spooled

    def also_lists(self, object_id: int, chunk_ids: bytes) -> None:
        """Remember chunks that a pack is said to hold by another writer than the one who was believed first.

        Neither can be told to be right from here, so both are kept: who looks for a chunk where it is not looks
        further, and nobody can make one that is there be forgotten.
        """
        with self._db.transaction("object row") as connection:
            joined = self.chunk_ids(object_id)
            known = split_ids(joined)
            fresh = sorted(set(split_ids(chunk_ids)) - set(known))
            if fresh:
                connection.execute(
                    "INSERT OR REPLACE INTO pack_ids (object_id, ids) VALUES (?, ?)",
                    (object_id, b"".join((joined, *fresh))),
                )
            if fresh and self._db.places:
                connection.executemany(
                    "INSERT OR IGNORE INTO chunks (id, object_id, entry) VALUES (?, ?, ?)",
                    [(chunk, object_id, entry) for entry, chunk in enumerate(fresh, len(known))],
                )

    def become(
        self, object_id: int, *, writer: bytes, kind: ObjectKind, size: int, policy: bytes = b"", index_id: int | None
    ) -> None:
        """Record what an object is that others' indexes called something else; that they did is remembered.

        It stays among the shards of packs that it was said to be one of; what it was said to be cut into is forgotten.
        A size that a peer listed it with is no word of an index, and stays.
        """
        with self._db.transaction("object row") as connection:
            connection.execute(
                "INSERT OR IGNORE INTO listed (index_id, object_id) "
                "SELECT index_id, id FROM objects WHERE id = ?1 AND index_id IS NOT NULL UNION "
                "SELECT p.index_id, s.object_id FROM shards s JOIN objects p ON p.id = s.pack_id "
                "WHERE s.object_id = ?1 AND p.index_id IS NOT NULL",
                (object_id,),
            )
            connection.execute("DELETE FROM shards WHERE pack_id = ?", (object_id,))
            connection.execute(
                "UPDATE objects SET writer = ?, kind = ?, policy = ?, index_id = ?, size = CASE WHEN EXISTS "
                "(SELECT 1 FROM holdings WHERE object_id = id AND state = 'held') THEN size ELSE ? END WHERE id = ?",
                (writer, kind, policy, index_id, size, object_id),
            )

    def also_listed(self, object_ids: Iterable[int], index_id: int, policy: bytes | None = None) -> None:
        """Remember an index that names objects of another writer, which may be that other's or not.

        ``policy``: what they are kept by from now on, if it is another.
        """
        with self._db.transaction("index row") as connection:
            for object_id in object_ids:
                connection.execute("INSERT OR IGNORE INTO listed VALUES (?, ?)", (index_id, object_id))
                if policy is not None:
                    connection.execute("UPDATE objects SET policy = ? WHERE id = ?", (policy, object_id))

    def listings(self) -> dict[int, list[int]]:
        """Return the row ids of the indexes that name what another index is believed about, by object."""
        found: dict[int, list[int]] = {}
        for object_id, index_id in self._db.rows("SELECT object_id, index_id FROM listed ORDER BY object_id, index_id"):
            found.setdefault(object_id, []).append(index_id)
        return found

    def disputes(self) -> dict[tuple[bytes, bytes, bytes], int]:
        """Return how many objects an index names that are believed to be another writer's.

        By name and writer of the index, and the one who is believed.
        """
        rows = self._db.rows(
            "SELECT i.name, i.writer, o.writer, count(*) FROM listed l JOIN objects o ON o.id = l.object_id "
            "JOIN objects i ON i.id = l.index_id WHERE o.writer <> i.writer GROUP BY 1, 2, 3 ORDER BY 1, 3"
        )
        return {(row[0], row[1], row[2]): int(row[3]) for row in rows}

    def set_index(self, object_ids: Iterable[int], index_id: int) -> None:
        """Record that an index object names these packs."""
        with self._db.transaction("index row") as connection:
            connection.executemany("UPDATE objects SET index_id = ? WHERE id = ?", [(index_id, i) for i in object_ids])

    def unsynced(self) -> list[ObjectRow]:
        """Return what lies in the spool, or should, without having been synced there."""
        return self.all("spooled = ?", (_WRITTEN,))

    def set_synced(self, object_ids: Iterable[int]) -> None:
        """Record that the spool's bytes of these are durable."""
        with self._db.transaction("spool row") as connection:
            connection.executemany("UPDATE objects SET spooled = ? WHERE id = ?", [(_DURABLE, i) for i in object_ids])

    def unspool(self, object_id: int) -> None:
        """Record that the spool no longer holds the object's bytes."""
        with self._db.transaction("spool row") as connection:
            connection.execute("UPDATE objects SET spooled = 0 WHERE id = ?", (object_id,))

    def all(self, where: str = "1", values: tuple[object, ...] = ()) -> list[ObjectRow]:
        """Return objects by a condition on the columns, in the order they were made."""
        rows = self._db.rows(f"SELECT {_COLUMNS} FROM objects WHERE {where} ORDER BY id", values)  # noqa: S608 - own text
        return [_object(row) for row in rows]

    def usable_packs(self, writer: bytes, *policies: bytes, sent: bool = False) -> set[int]:
        """Return the row ids of a writer's packs under some policies that are not lost; ``sent``: nor in the spool."""
        marks = ",".join("?" * len(policies))
        waiting = f" AND NOT spooled AND id NOT IN ({_WAITING})" if sent else ""
        rows = self._db.rows(
            f"SELECT id FROM objects WHERE kind IN ('data', 'tree') AND writer = ? AND NOT lost "  # noqa: S608 - own words
            f"AND policy IN ({marks}){waiting}",
            (writer, *policies),
        )
        return {int(row[0]) for row in rows}

    def waiting_packs(self) -> list[ObjectRow]:
        """Return the packs that lie in the spool, whole or as shards, or of which a shard does."""
        return self.all(f"kind IN ('data', 'tree') AND (spooled OR id IN ({_WAITING}))")

    def by_name(self, name: bytes) -> ObjectRow | None:
        """Return one object, None if this home does not know it."""
        rows = self.all("name = ?", (name,))
        return rows[0] if rows else None

    def by_names(self, names: Collection[bytes]) -> list[ObjectRow]:
        """Return those of some objects that this home knows."""
        found: list[ObjectRow] = []
        for marks, part in _marked(sorted(names)):
            found += self.all(f"name IN ({marks})", part)
        return found

    def rows_of(self, object_ids: Collection[int]) -> list[ObjectRow]:
        """Return the objects of these row ids."""
        return [row for marks, part in _marked(sorted(object_ids)) for row in self.all(f"id IN ({marks})", part)]

    def of_index_rows(self, index_ids: Collection[int]) -> set[int]:
        """Return the row ids of the packs that index objects list, given their row ids."""
        found: set[int] = set()
        for marks, part in _marked(sorted(index_ids)):
            found.update(
                row[0]
                for row in self._db.rows(
                    f"SELECT id FROM objects WHERE index_id IN ({marks}) "  # noqa: S608 - marks only
                    f"UNION SELECT object_id FROM listed WHERE index_id IN ({marks})",
                    (*part, *part),
                )
            )
        return found

    def unknown(self, names: Collection[bytes]) -> set[bytes]:
        """Return those of some names that this home knows no object of."""
        found = set(names)
        for marks, part in _marked(sorted(found)):
            found.difference_update(
                row[0]
                for row in self._db.rows(f"SELECT name FROM objects WHERE name IN ({marks})", part)  # noqa: S608
            )
        return found

    def of_indexes(self, names: Collection[bytes]) -> list[ObjectRow]:
        """Return the packs that the named index objects list."""
        found: list[ObjectRow] = []
        for marks, part in _marked(sorted(names)):
            indexes = f"(SELECT id FROM objects WHERE name IN ({marks}))"  # noqa: S608 - marks only
            listed = f"SELECT object_id FROM listed WHERE index_id IN {indexes}"  # noqa: S608 - marks only
            found += self.all(f"index_id IN {indexes} OR id IN ({listed})", (*part, *part))
        return found

    def chunk_ids(self, object_id: int) -> bytes:
        """Return the joined ids of a pack's chunks, in the order of its directory."""
        rows = self._db.rows("SELECT ids FROM pack_ids WHERE object_id = ?", (object_id,))
        return rows[0][0] if rows else b""

    def newest_pack(self, writer: bytes, policy: bytes) -> int | None:
        """Return the highest row id of a pack of this writer under this policy, None if there is none."""
        [[newest]] = self._db.rows(
            "SELECT max(o.id) FROM objects o JOIN pack_ids p ON p.object_id = o.id WHERE o.writer = ? AND o.policy = ?",
            (writer, policy),
        )
        return None if newest is None else int(newest)

    def packs(self, writer: bytes, policy: bytes, *, after: int, upto: int) -> Iterator[tuple[int, bytes]]:
        """Yield row id and joined chunk ids of a writer's packs under a policy whose row id is in a range, in order."""
        where = "o.writer = ? AND o.policy = ? AND o.id <= ?"
        for part in self._packs(where, (writer, policy, upto), after=after):
            yield from ((object_id, ids) for object_id, _, ids in part)

    def all_packs(self) -> Iterator[tuple[int, bytes]]:
        """Yield row id and joined chunk ids of every pack, by row id."""
        for part in self._packs("1"):
            yield from ((object_id, ids) for object_id, _, ids in part)

    def _packs(
        self, where: str, values: tuple[object, ...] = (), *, after: int = -1
    ) -> Iterator[list[tuple[int, bytes, bytes]]]:
        """Yield row id, writer and joined chunk ids of packs in parts of about _PART bytes, by row id."""
        while part := self._db.some_rows(
            "SELECT o.id, o.writer, p.ids FROM objects o JOIN pack_ids p ON p.object_id = o.id "  # noqa: S608 - own text
            f"WHERE o.id > ? AND {where} ORDER BY o.id",
            (after, *values),
            _PART,
        ):
            yield part
            after = part[-1][0]

    def unlisted(self, ids: bytes) -> int:
        """Return how many of these chunks no known pack lists. ``ids`` are joined, sorted and distinct."""
        from replicator.catalog.idset import IdSet  # noqa: PLC0415 - numpy takes a tenth of a second to import

        wanted = IdSet(ids)
        for part in self._packs("1"):
            wanted.meet([object_id for object_id, _, _ in part], [joined for _, _, joined in part])
        return wanted.never_met()

    def index_names(self, object_ids: Collection[int]) -> tuple[bytes, ...]:
        """Return the sorted names of the index objects that list these packs."""
        found: set[bytes] = set()
        for marks, part in _marked(sorted(object_ids)):
            found.update(
                row[0]
                for row in self._db.rows(
                    f"SELECT DISTINCT i.name FROM objects i JOIN objects p ON p.index_id = i.id "  # noqa: S608
                    f"WHERE p.id IN ({marks})",
                    part,
                )
            )
        return tuple(sorted(found))

    def set_lost(self, object_ids: Iterable[int]) -> None:
        """Record that no copy of these is left: nothing new relies on them. A copy that is found ends that."""
        with self._db.transaction("lost row") as connection:
            connection.executemany("UPDATE objects SET lost = 1 WHERE id = ?", [(i,) for i in object_ids])

    def replaced(self, object_ids: Collection[int]) -> set[int]:
        """Return which of these packs have every chunk in another pack of their writer that is not lost.

        Reads the ids of all packs once, whatever is asked, and nothing if nothing is asked.
        """
        if not object_ids:
            return set()
        from replicator.catalog.idset import IdSet  # noqa: PLC0415 - numpy takes a tenth of a second to import

        asked: dict[bytes, dict[int, bytes]] = {}
        for marks, part in _marked(sorted(object_ids)):
            for object_id, writer, joined in self._db.rows(
                "SELECT o.id, o.writer, p.ids FROM objects o JOIN pack_ids p ON p.object_id = o.id "  # noqa: S608 - marks
                f"WHERE o.id IN ({marks})",
                part,
            ):
                asked.setdefault(writer, {})[object_id] = joined
        wanted = {writer: IdSet.of(packs.values()) for writer, packs in asked.items()}
        for listed in self._packs("NOT o.lost"):
            for writer, ids in wanted.items():
                own = [(object_id, joined) for object_id, by, joined in listed if by == writer]
                ids.meet([object_id for object_id, _ in own], [joined for _, joined in own])
        needed = {
            object_id
            for writer, packs in asked.items()
            for object_id, joined in packs.items()
            if not wanted[writer].all_met_beside(object_id, joined)
        }
        return set(object_ids) - needed

    def forget(self, object_ids: Iterable[int]) -> None:
        """Forget objects that nothing refers to, with all that is known of them and of what they are cut into."""
        gone = [(object_id,) for object_id in object_ids]
        with self._db.transaction("forgotten row") as connection:
            shards = [
                row
                for pack in gone
                for row in connection.execute("SELECT object_id FROM shards WHERE pack_id = ?", pack).fetchall()
            ]
            connection.executemany("DELETE FROM shards WHERE pack_id = ?", gone)
            gone += [  # who wrote another pack may have named the same shard, or something else as one
                shard
                for shard in shards
                if connection.execute(
                    "SELECT 1 FROM objects o WHERE o.id = ? AND o.kind = 'shard' "
                    "AND o.id NOT IN (SELECT object_id FROM shards)",
                    shard,
                ).fetchone()
            ]
            connection.executemany("DELETE FROM listed WHERE index_id = ?1 OR object_id = ?1", gone)
            # What another index names, too, is that one's writer's from now on.
            connection.executemany(
                "UPDATE objects SET (index_id, writer) = (SELECT i.id, i.writer FROM listed l "
                "JOIN objects i ON i.id = l.index_id WHERE l.object_id = objects.id ORDER BY i.id LIMIT 1) "
                "WHERE index_id = ?1 AND id IN (SELECT object_id FROM listed)",
                gone,
            )
            connection.executemany("UPDATE objects SET index_id = NULL WHERE index_id = ?", gone)
            for table in ("chunks", "pack_ids", "holdings", "claimed"):
                connection.executemany(f"DELETE FROM {table} WHERE object_id = ?", gone)  # noqa: S608 - own words
            connection.executemany("DELETE FROM objects WHERE id = ?", gone)

    def places(self, ids: Sequence[bytes]) -> list[list[Location]]:
        """Return all packs that hold each chunk, the one known last first, in the order asked."""
        assert self._db.places, "this catalog was opened without places: a node asks its seen-index"
        found: dict[bytes, list[Location]] = {}
        for marks, part in _marked(list(dict.fromkeys(ids))):
            for chunk, object_id, entry in self._db.rows(
                f"SELECT id, object_id, entry FROM chunks WHERE id IN ({marks}) ORDER BY object_id DESC",  # noqa: S608 - marks only
                part,
            ):
                found.setdefault(chunk, []).append(Location(object_id, entry))
        return [found.get(chunk, []) for chunk in ids]

    def held(
        self,
        object_id: int,
        peer: Identity,
        *,
        incarnation: bytes,
        receipt: bytes,
        received_ns: int,
    ) -> None:
        """Record a receipt: the peer signed that it has the object durably."""
        with self._db.transaction("holding row") as connection:
            connection.execute(
                "INSERT INTO holdings (object_id, peer, state, incarnation, receipt, received_ns, checked_ns, "
                "audited_ns) VALUES (?, ?, 'held', ?, ?, ?, ?, 0) "
                "ON CONFLICT(object_id, peer) DO UPDATE SET state = 'held', "
                "incarnation = excluded.incarnation, receipt = excluded.receipt, "
                "received_ns = excluded.received_ns, checked_ns = excluded.checked_ns, "
                "audited_ns = CASE WHEN state = 'held' AND incarnation = excluded.incarnation THEN audited_ns ELSE 0 "
                "END",
                (object_id, peer, incarnation, receipt, received_ns, received_ns),
            )
            connection.execute("UPDATE objects SET lost = 0 WHERE id = ? AND lost", (object_id,))
            connection.execute(
                "UPDATE objects SET lost = 0 WHERE lost "  # noqa: S608 - own text
                f"AND id IN (SELECT pack_id FROM shards WHERE object_id = ?) AND {_ENOUGH}",
                (object_id, received_ns - _TOGETHER_NS),
            )

    def set_states(
        self, peer: Identity, states: Mapping[int, HoldingState], *, incarnation: bytes, now_ns: int
    ) -> None:
        """Record what a peer's inventory or audit said of these objects.

        A proof that it once gave for one that is not there, or for another life of its store, is none any more.
        """
        with self._db.transaction("inventory row") as connection:
            connection.executemany(
                "INSERT INTO holdings (object_id, peer, state, incarnation, receipt, received_ns, checked_ns, "
                "audited_ns) VALUES (?, ?, ?, ?, x'', 0, ?, 0) "
                "ON CONFLICT(object_id, peer) DO UPDATE SET state = excluded.state, "
                "audited_ns = CASE WHEN excluded.state IN ('held', 'released') AND incarnation = excluded.incarnation "
                "THEN audited_ns ELSE 0 END, incarnation = excluded.incarnation, checked_ns = excluded.checked_ns",
                [(object_id, peer, state, incarnation, now_ns) for object_id, state in states.items()],
            )
            connection.executemany(
                "UPDATE objects SET lost = 0 WHERE id = ? AND lost",
                [(object_id,) for object_id, state in states.items() if state == "held"],
            )
            connection.execute(
                f"UPDATE objects SET lost = 0 WHERE lost AND id IN (SELECT pack_id FROM shards) AND {_ENOUGH}",  # noqa: S608
                (now_ns - _TOGETHER_NS,),
            )

    def set_audited(self, peer: Identity, object_ids: Iterable[int], now_ns: int) -> None:
        """Record that a peer proved that it holds these objects."""
        with self._db.transaction("audit row") as connection:
            connection.executemany(
                "UPDATE holdings SET audited_ns = ? WHERE peer = ? AND object_id = ?",
                [(now_ns, peer, object_id) for object_id in object_ids],
            )

    def holdings(self, *, peer: Identity | None = None) -> list[Holding]:
        """Return all holdings, or one peer's."""
        return self._holdings("1", ()) if peer is None else self._holdings("peer = ?", (peer,))

    def held_bytes(self, peer: Identity) -> int:
        """Return how much one peer is believed to hold, what is given up but still there included."""
        [(total,)] = self._db.rows(
            "SELECT COALESCE(SUM(o.size), 0) FROM holdings h JOIN objects o ON o.id = h.object_id"
            " WHERE h.peer = ? AND h.state IN ('held', 'released')",
            (peer,),
        )
        return int(total)

    def holdings_of(self, object_id: int) -> list[Holding]:
        """Return who is believed to hold an object."""
        return self._holdings("object_id = ?", (object_id,))

    def _holdings(self, where: str, values: tuple[object, ...]) -> list[Holding]:
        rows = self._db.rows(
            f"SELECT {_HOLDING} FROM holdings WHERE {where}",  # noqa: S608 - own text
            values,
        )
        return [
            Holding(
                object_id=row[0],
                peer=row[1],
                state=row[2],
                incarnation=row[3],
                received_ns=row[4],
                checked_ns=row[5],
                audited_ns=row[6],
            )
            for row in rows
        ]

    def receipts(self, peer: Identity, object_ids: Collection[int]) -> dict[int, bytes]:
        """Return the signed receipts that a peer gave for some objects, as far as this home has them."""
        found: dict[int, bytes] = {}
        for marks, part in _marked(sorted(object_ids)):
            rows = self._db.rows(
                f"SELECT object_id, receipt FROM holdings WHERE peer = ? AND object_id IN ({marks})",  # noqa: S608
                (peer, *part),
            )
            found.update((object_id, receipt) for object_id, receipt in rows if receipt)
        return found

    def claimed(self, peer: Identity) -> set[int]:
        """Return the objects in our last accepted claim at a peer."""
        return {int(row[0]) for row in self._db.rows("SELECT object_id FROM claimed WHERE peer = ?", (peer,))}

    def set_claimed(self, peer: Identity, number: int, object_ids: Collection[int]) -> None:
        """Record the claim that a peer accepted."""
        before = self.claimed(peer)
        after = set(object_ids)
        with self._db.transaction("claim row") as connection:
            connection.executemany(
                "DELETE FROM claimed WHERE peer = ? AND object_id = ?", [(peer, i) for i in sorted(before - after)]
            )
            connection.executemany(
                "INSERT INTO claimed (peer, object_id) VALUES (?, ?)", [(peer, i) for i in sorted(after - before)]
            )
            connection.execute("UPDATE peers SET claim_number = ? WHERE identity = ?", (number, peer))


def _marked(values: Sequence[bytes] | Sequence[int]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield values in parts that one statement takes, each with the marks that stand for them in it."""
    for start in range(0, len(values), _BATCH):
        part = tuple(values[start : start + _BATCH])
        yield ",".join("?" * len(part)), part


def split_ids(joined: bytes) -> list[bytes]:
    """Return the ids in a run of whole ones."""
    return [joined[at : at + _ID] for at in range(0, len(joined), _ID)]


def _object(row: tuple[Any, ...]) -> ObjectRow:
    return ObjectRow(
        id=row[0],
        name=row[1],
        writer=row[2],
        kind=row[3],
        size=row[4],
        policy=row[5],
        index_id=row[6],
        spooled=bool(row[7]),
        created_ns=row[8],
        lost=bool(row[9]),
    )
