"""Which providers this one passes connections on to, and how much that was, month by month; and which relays it lost.

Counted in memory and written down with every look at the clock, as tenants' traffic is; nothing is decided by it. A
relay that this provider waits at itself has a row while it is lost, which another process of this home can read.
"""

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from replicator.clock import NS, SKEW_S, day_of
from replicator.crypto.sign import Context, signer_of, verify
from replicator.endpoints import parse_identity
from replicator.errors import UsageError
from replicator.format.codec import decode
from replicator.format.relay import Waiting
from replicator.ids import Identity, address_form, identity_of
from replicator.provider.database import Database
from replicator.provider.offers import known_here
from replicator.provider.traffic import MONTH, MONTHS
from replicator.transport.handler import RequestRefusedError
from replicator.transport.patience import MAX_REASON

MEMBERS: Final = "members"
MAX_WAITING: Final = 1024
MOST_A_MONTH: Final = 256
"""Providers of which a month is kept, those with the most bytes: whoever a member tells of may be made up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayedMonth:
    """One relayed provider's month: connections, and bytes both ways."""

    identity: Identity
    month: str
    connections: int
    moved: int


class Relayed:
    """Counts for a running provider; any thread adds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Identity, list[int]] = {}

    def passed(self, identity: Identity, moved: int, connections: int = 1) -> None:
        """Count a connection that ended."""
        with self._lock:
            counts = self._counts.setdefault(identity, [0, 0])
            counts[0] += connections
            counts[1] += moved

    def write_down(self, database: Database, now_ns: int) -> None:
        """Add what was counted to this month; of old months nothing stays."""
        with self._lock:
            counts, self._counts = self._counts, {}
        if not counts:
            return
        month = day_of(now_ns)[:MONTH]
        try:
            database.write("relayed", lambda connection: _write_down(connection, counts, month))
        except BaseException:
            for identity, (connections, moved) in counts.items():
                self.passed(identity, moved, connections)
            raise


def _write_down(connection: sqlite3.Connection, counts: dict[Identity, list[int]], month: str) -> None:
    connection.executemany(
        "INSERT INTO relayed (identity, month, connections, moved) VALUES (?, ?, ?, ?) ON CONFLICT (identity, month) "
        "DO UPDATE SET connections = connections + excluded.connections, moved = moved + excluded.moved",
        [(identity, month, connections, moved) for identity, (connections, moved) in counts.items()],
    )
    connection.execute(
        "DELETE FROM relayed WHERE month NOT IN (SELECT DISTINCT month FROM relayed ORDER BY month DESC LIMIT ?)",
        (MONTHS,),
    )
    connection.execute(
        "DELETE FROM relayed WHERE month = ? AND identity NOT IN "
        "(SELECT identity FROM relayed WHERE month = ? ORDER BY moved DESC, identity LIMIT ?)",
        (month, month, MOST_A_MONTH),
    )


def relayed_months(database: Database) -> list[RelayedMonth]:
    """Return the months of each relayed provider, the newest first."""
    rows = database.rows("SELECT identity, month, connections, moved FROM relayed ORDER BY month DESC, identity")
    return [RelayedMonth(identity=Identity(i), month=m, connections=c, moved=b) for i, m, c, b in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRelay:
    """Since when a relay that this provider waits at does not let it wait, and what became of the last try."""

    lost_ns: int
    reason: str


def lost_relay(connection: sqlite3.Connection, relay: Identity, lost: LostRelay) -> None:
    """Keep that a relay is lost: since when it was lost first, why it was last."""
    reason = " ".join(lost.reason.split())[:MAX_REASON]
    connection.execute(
        "INSERT INTO lost_relays (relay, lost_ns, reason) VALUES (?, ?, ?) "
        "ON CONFLICT (relay) DO UPDATE SET reason = excluded.reason",
        (relay, lost.lost_ns, reason),
    )


def found_relay(connection: sqlite3.Connection, relay: Identity) -> None:
    """Keep that this provider waits at a relay; nothing stays of when it was lost."""
    connection.execute("DELETE FROM lost_relays WHERE relay = ?", (relay,))


def lost_relays(database: Database) -> dict[Identity, LostRelay]:
    """Return the relays that are lost."""
    rows = database.rows("SELECT relay, lost_ns, reason FROM lost_relays")
    return {Identity(relay): LostRelay(lost_ns=lost_ns, reason=reason) for relay, lost_ns, reason in rows}


def relay_words(words: Iterable[str]) -> tuple[str, ...]:
    """Return whom to relay as it is kept: "members", and identities in base32, each once; nothing for "nobody" alone.

    Raises:
        UsageError: a word that is none of these.
    """
    said = tuple(dict.fromkeys(words))
    if said == ("nobody",):
        return ()
    if "nobody" in said:
        raise UsageError("nobody, and others: which is it?", hint="give `nobody` alone")
    return tuple(dict.fromkeys(one if one == MEMBERS else address_form(parse_identity(one)) for one in said))


def who_waits(database: Database, words: Sequence[str], signed: bytes, ours: Identity, now_ns: int) -> Identity:
    """Return who asks to be passed on to, if it may: its own word, of now, for us.

    Raises:
        FormatError: it is no such word.
        IntegrityError: its signature does not hold.
        RequestRefusedError: "forbidden": it is for another, of another time, or not passed on to here.
    """
    key = signer_of(signed)
    word = decode(Waiting, verify(signed, Context.WAITING, [key]), limit=MAX_WAITING)
    if word.relay != ours or abs(now_ns - word.asked_ns) > SKEW_S * NS:
        raise RequestRefusedError("forbidden", "this word is for another relay, or not of now: is the clock right?")
    identity = identity_of(key)
    if address_form(identity) not in words and not (MEMBERS in words and known_here(database, identity)):
        raise RequestRefusedError("forbidden", f"{address_form(identity)} is not passed on to here")
    return identity
