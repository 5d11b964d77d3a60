"""What was last heard of each provider: addresses, certificate, store incarnation, room, failures."""

import json
from dataclasses import dataclass

from replicator.catalog.schema import Database
from replicator.ids import Identity

_COLUMNS = (
    "identity, endpoints, certificate, incarnation, offer, offer_number, claim_number, quota, used, free, "
    "contacted_ns, failing_since_ns, last_error"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRow:
    """A provider as last heard of. ``failing_since_ns`` 0: the last contact went well; sizes are bytes."""

    identity: Identity
    endpoints: tuple[str, ...] = ()
    certificate: bytes = b""
    incarnation: bytes = b""
    offer: bytes = b""
    offer_number: int = 0
    claim_number: int = 0
    quota: int = 0
    used: int = 0
    free: int = 0
    contacted_ns: int = 0
    failing_since_ns: int = 0
    last_error: str = ""


class Peers:
    """Rows of peers. Who is a peer, and where it stands, is in the charter; this is how contact went."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, identity: Identity) -> PeerRow:
        """Return what is known of a peer; an empty row if nothing is."""
        rows = self._db.rows(f"SELECT {_COLUMNS} FROM peers WHERE identity = ?", (identity,))  # noqa: S608 - own text
        if not rows:
            return PeerRow(identity=identity)
        values = dict(zip(_COLUMNS.split(", "), rows[0], strict=True))
        values["endpoints"] = tuple(json.loads(values["endpoints"]))
        return PeerRow(**values)

    def all(self) -> list[PeerRow]:
        """Return what is known of every provider there ever was, by identity."""
        rows = self._db.rows("SELECT identity FROM peers ORDER BY identity")
        return [self.get(Identity(identity)) for (identity,) in rows]

    def put(self, row: PeerRow) -> None:
        """Remember a peer's row as given."""
        with self._db.transaction("peer row") as connection:
            connection.execute(
                f"INSERT OR REPLACE INTO peers ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608 - own text
                (
                    row.identity,
                    json.dumps(row.endpoints),
                    row.certificate,
                    row.incarnation,
                    row.offer,
                    row.offer_number,
                    row.claim_number,
                    row.quota,
                    row.used,
                    row.free,
                    row.contacted_ns,
                    row.failing_since_ns,
                    row.last_error,
                ),
            )
