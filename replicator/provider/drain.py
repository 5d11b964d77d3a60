"""A provider that leaves, shrinks, or gives one tenant up: what it said to whom, how far they are, what would be lost.

Nothing is deleted for it, not on the day and not after: locks, marks and claims go on as they are. What is said is a
signed notice for each tenant (:class:`~replicator.format.notice.Notice`), and that nothing large is taken any more
beyond what it leaves them. How far a tenant is, its writers sign; of those that say nothing counts what they claim.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from replicator.charter.verify import signed_hash
from replicator.clock import DAY_S, NS
from replicator.crypto.sign import Context, SigningKey
from replicator.format.codec import encode
from replicator.format.notice import Clearing, Notice
from replicator.provider.database import Database
from replicator.transport.handler import RequestRefusedError

WHOLE: Final = b""
"""In the place of a tenant: all of them, also who comes later."""
_CENTURY_NS: Final = 36_525 * DAY_S * NS
_STAYS: Final = (1 << 63) - 1
"""What one tenant may keep of whom it was taken back alone while the whole drains; nothing is signed for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """What was said. ``began`` is how much was left then; ``signed`` is empty for the whole, and for who stays."""

    tenant: bytes
    keeps: int
    by_ns: int
    began_ns: int
    began: int
    signed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Emptying:
    """How far one tenant is: ``used`` bytes lie here, ``left`` would be missed, ``stuck`` of these have no other place.

    ``told_ns`` is when the last of its writers said so, 0 if one of them has not: then ``left`` is what they claim.
    ``locked_until_ns``: until then, by receipts, nothing goes.
    """

    tenant: bytes
    label: str
    keeps: int
    by_ns: int
    began_ns: int
    began: int
    used: int
    left: int
    stuck: int
    told_ns: int
    locked_until_ns: int

    def done_ns(self, now_ns: int) -> int:
        """Return when nothing will be left if it goes on as since the beginning; 0 if it does not, or cannot.

        What would be later is said to be in a century: whoever has moved a byte of a terabyte needs no date.
        """
        if not self.left:
            return now_ns
        if self.stuck == self.left:
            return 0
        went, took_ns = self.began - self.left, now_ns - self.began_ns
        return now_ns + min(took_ns * self.left // went, _CENTURY_NS) if went > 0 and took_ns > 0 else 0


def shares(size: int, tenants: Mapping[bytes, tuple[int, int]]) -> dict[bytes, int]:
    """Share ``size`` bytes among tenants, each given as what it uses and its quota, so that least has to move.

    Who uses less than its part by quota keeps it all, and the others share the rest by quota. What nobody uses is room
    to grow, by quota too.
    """
    keeps = _filled(size, tenants)
    if any(keeps[name] < used for name, (used, _) in tenants.items()):
        return keeps
    rest = size - sum(keeps.values())
    more = _filled(rest, {name: (max(0, quota - keeps[name]), quota) for name, (_, quota) in tenants.items()})
    return {name: keeps[name] + more[name] for name in tenants}


def _filled(size: int, wanted: Mapping[bytes, tuple[int, int]]) -> dict[bytes, int]:
    """Give each what it wants, as far as ``size`` goes: nobody more than its part by weight while another lacks."""
    given: dict[bytes, int] = {}
    rest = dict(wanted)
    while rest:
        weights = sum(max(1, weight) for _, weight in rest.values())
        content = [name for name, (amount, weight) in rest.items() if amount * weights <= size * max(1, weight)]
        if not content:
            return given | {name: size * max(1, weight) // weights for name, (_, weight) in rest.items()}
        for name in content:
            given[name], _ = rest.pop(name)
        size -= sum(given[name] for name in content)
    return given


def whole_of(database: Database) -> Drain | None:
    """Return what was said of the provider as a whole."""
    return next((one for one in _drains(database) if one.tenant == WHOLE), None)


def notice_for(database: Database, tenant: bytes) -> bytes:
    """Return the signed notice for a tenant, empty if there is none."""
    row = database.row("SELECT signed FROM drains WHERE tenant = ?", (tenant,))
    return b"" if row is None else bytes(row[0])


def limit_of(database: Database, tenant: bytes) -> int | None:
    """Return how many bytes a tenant may keep here, None if nothing was said; who came after it was: none."""
    row = database.row(
        "SELECT keeps FROM drains WHERE tenant = ?1 UNION ALL SELECT 0 FROM drains WHERE tenant = x'' LIMIT 1",
        (tenant,),
    )
    return None if row is None else int(row[0])


def begin(
    database: Database,
    key: SigningKey,
    keeps: Mapping[bytes, int],
    *,
    whole: int | None,
    by_ns: int,
    now_ns: int,
    promised_s: int,
) -> None:
    """Say to these tenants how much they may keep from ``by_ns`` on; durable when this returns.

    ``whole``: how much all of them together, None if only these are meant. What was said to somebody before is
    replaced, and goes on counting from when it began.
    """
    before = {one.tenant: one for one in _drains(database) if one.signed or one.tenant == WHOLE}
    left = {one.tenant: one.left for one in emptying(database, dict.fromkeys(keeps, (0, by_ns)))}
    rows = []
    for tenant, most in keeps.items():
        if tenant not in left:
            continue  # erased meanwhile
        notice = Notice(tenant=tenant, keeps=most, by_ns=by_ns, said_ns=now_ns, promised_s=promised_s)
        known = before.get(tenant)
        began = (known.began_ns, known.began) if known is not None else (now_ns, max(0, left[tenant] - most))
        rows.append((tenant, most, by_ns, *began, key.sign(Context.NOTICE, encode(notice))))
    if whole is not None:
        known = before.get(WHOLE)
        rows.append((WHOLE, whole, by_ns, now_ns if known is None else known.began_ns, 0, b""))

    def work(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO drains (tenant, keeps, by_ns, began_ns, began, signed) VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )

    database.write("drain", work)


def cancel(database: Database, tenant: bytes | None) -> int | None:
    """Take back what was said to a tenant, or (None) to all; return to how many, None if nothing was said.

    One of whom it is taken back stays also where the whole goes on draining, unlike who comes later.
    """

    def work(connection: sqlite3.Connection) -> int | None:
        if tenant is None:
            connection.execute("DELETE FROM clearings")
            [count] = connection.execute("SELECT count(*) FROM drains WHERE signed != x''").fetchone()
            return int(count) if connection.execute("DELETE FROM drains").rowcount else None
        connection.execute("DELETE FROM clearings WHERE tenant = ?", (tenant,))
        count = connection.execute(
            "UPDATE drains SET keeps = ?, signed = x'' WHERE tenant = ? AND signed != x''", (_STAYS, tenant)
        ).rowcount
        connection.execute(
            "DELETE FROM drains WHERE tenant = ? AND NOT EXISTS (SELECT 1 FROM drains WHERE tenant = x'')", (tenant,)
        )
        return count or None

    return database.write("drain", work)


def keep_clearing(database: Database, clearing: Clearing, writer: bytes, signed: bytes) -> None:
    """Keep what a writer signed of how far it is; its later word replaces the one before.

    Raises:
        RequestRefusedError: "conflict": it speaks of another notice than the one that was given.
    """
    notice = notice_for(database, clearing.tenant)
    if not notice or signed_hash(notice) != clearing.notice:
        raise RequestRefusedError("conflict", "this is about another notice than the one in force here")

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO clearings (tenant, writer, bytes, stuck, said_ns, notice, signed) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (tenant, writer) DO UPDATE SET bytes = excluded.bytes, stuck = excluded.stuck, "
            "said_ns = excluded.said_ns, notice = excluded.notice, signed = excluded.signed "
            "WHERE excluded.said_ns >= clearings.said_ns OR clearings.notice != excluded.notice",
            (clearing.tenant, writer, clearing.left, clearing.stuck, clearing.said_ns, clearing.notice, signed),
        )

    database.write("clearing", work)


def progress(database: Database) -> list[Emptying]:
    """Return how far each tenant is that something was said to, by tenant."""
    drains = {one.tenant: one for one in _drains(database) if one.signed}
    return emptying(database, {name: (one.keeps, one.by_ns) for name, one in drains.items()}, drains)


def emptying(
    database: Database, keeps: Mapping[bytes, tuple[int, int]], said: Mapping[bytes, Drain] | None = None
) -> list[Emptying]:
    """Return how far tenants are, or would be if they were told to keep so much by then.

    Those that were erased since they were looked up are left out.
    """

    def work(connection: sqlite3.Connection) -> list[Emptying]:
        there = {tenant for (tenant,) in connection.execute("SELECT id FROM tenants")}
        return [_emptying(connection, name, keeps[name], said) for name in sorted(keeps) if name in there]

    return database.read(work)


def _emptying(
    connection: sqlite3.Connection, tenant: bytes, said: tuple[int, int], drains: Mapping[bytes, Drain] | None
) -> Emptying:
    keeps, by_ns = said
    drain = (drains or {}).get(tenant)
    [label] = connection.execute("SELECT label FROM tenants WHERE id = ?", (tenant,)).fetchone()
    [used] = connection.execute("SELECT coalesce(sum(bytes), 0) FROM usage WHERE tenant = ?", (tenant,)).fetchone()
    [locked] = connection.execute(
        "SELECT coalesce(max(lock_until_ns), 0) FROM objects WHERE tenant = ?", (tenant,)
    ).fetchone()
    claimed = dict(
        connection.execute(
            "SELECT claimed.writer, sum(objects.size) FROM claimed "
            "JOIN claims ON claims.tenant = claimed.tenant AND claims.writer = claimed.writer "
            "JOIN objects ON objects.tenant = claimed.tenant AND objects.name = claimed.name "
            "WHERE claimed.tenant = ? AND NOT claims.retired GROUP BY claimed.writer",
            (tenant,),
        )
    )
    words: dict[bytes, tuple[int, int, int]] = {}
    if drain is not None:
        words = {
            writer: (left, stuck, said_ns)
            for writer, left, stuck, said_ns in connection.execute(
                "SELECT writer, bytes, stuck, said_ns FROM clearings WHERE tenant = ? AND notice = ?",
                (tenant, signed_hash(drain.signed)),
            )
        }
    told = all(writer in words for writer in claimed) and bool(claimed)
    # Whoever said nothing may need all that it claims.
    left = sum(words[writer][0] for writer in claimed) if told else sum(claimed.values()) - keeps
    left = max(0, min(left, int(used)))
    return Emptying(
        tenant=tenant,
        label=label,
        keeps=keeps,
        by_ns=by_ns,
        began_ns=0 if drain is None else drain.began_ns,
        began=left if drain is None else drain.began,
        used=int(used),
        left=left,
        stuck=min(left, sum(words[writer][1] for writer in claimed if writer in words)),
        told_ns=max((words[writer][2] for writer in claimed), default=0) if told else 0,
        locked_until_ns=int(locked),
    )


def _drains(database: Database) -> Iterable[Drain]:
    return [
        Drain(tenant=tenant, keeps=keeps, by_ns=by_ns, began_ns=began_ns, began=began, signed=signed)
        for tenant, keeps, by_ns, began_ns, began, signed in database.rows(
            "SELECT tenant, keeps, by_ns, began_ns, began, signed FROM drains ORDER BY tenant"
        )
    ]
