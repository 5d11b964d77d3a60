"""One catalog file and its tables."""

import json
import os
from collections.abc import Collection, Mapping
from typing import Any

from replicator.catalog.heads import Heads
from replicator.catalog.objects import Objects
from replicator.catalog.peers import Peers
from replicator.catalog.runs import Runs
from replicator.catalog.schema import Database
from replicator.catalog.snapshots import Datasets, Snapshots
from replicator.fs import Fs

SENT_HEAD = "head sent"
"""The number of this node's newest snapshot that a peer may have heard of."""
ADOPTED = "chain adopted"
"""The number up to which a node took its own chain over from peers."""
_RENEWED = "renewed for"


class Catalog:
    """Opens or makes the file; rows are in the parts. ``datasets.bin`` beside it is the one thing not in it.

    ``places``: it can say of each chunk which packs hold it (:meth:`Objects.places`), as a reader of snapshots has to
    know; that takes as many rows as there are chunks. A file is opened with the same word every time.

    Raises:
        HomeError: the file is damaged or of a newer release.
    """

    def __init__(self, path: str, fs: Fs, *, places: bool = False) -> None:
        self.database = Database(path, fs, places=places)
        self.objects = Objects(self.database)
        self.snapshots = Snapshots(self.database)
        self.datasets = Datasets(self.database, os.path.join(os.path.dirname(path), "datasets.bin"), fs)
        self.peers = Peers(self.database)
        self.heads = Heads(self.database)
        self.log = Runs(self.database)

    def record_run(
        self, kind: str, *, started_ns: int, ended_ns: int, exit_code: int, summary: Mapping[str, object]
    ) -> None:
        """Keep one line of what a run did."""
        with self.database.transaction("run row") as connection:
            connection.execute(
                "INSERT INTO runs (kind, started_ns, ended_ns, exit, summary) VALUES (?, ?, ?, ?, ?)",
                (kind, started_ns, ended_ns, exit_code, json.dumps(summary)),
            )

    def forget_runs(self, kind: str, *, before_ns: int) -> None:
        """Keep no more of runs of a kind that ended before a moment."""
        with self.database.transaction("run row") as connection:
            connection.execute("DELETE FROM runs WHERE kind = ? AND ended_ns < ?", (kind, before_ns))

    def runs(self, kind: str) -> list[dict[str, object]]:
        """Return all runs of a kind, oldest first."""
        rows = self.database.rows(
            "SELECT started_ns, ended_ns, exit, summary FROM runs WHERE kind = ? ORDER BY id", (kind,)
        )
        return [_run(row) for row in rows]

    def meta(self, key: str) -> bytes | None:
        """Return a small value kept beside the tables."""
        rows = self.database.rows("SELECT value FROM meta WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def set_meta(self, key: str, value: bytes) -> None:
        """Keep a small value."""
        with self.database.transaction("meta row") as connection:
            connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def renew(self, former: Collection[bytes], identity: bytes) -> None:
        """Let what a writer's earlier keys made be its present one's, which has no claims and no certificates yet.

        Snapshots stay with the key that signed them: its chain ends. Done once for each key.
        """
        if self.meta(_RENEWED) == identity:
            return
        with self.database.transaction("renewal") as connection:
            connection.executemany(
                "UPDATE objects SET writer = ? WHERE writer = ?", [(identity, one) for one in former]
            )
            connection.execute("DELETE FROM claimed")
            connection.execute("UPDATE peers SET certificate = x'', claim_number = 0")
            connection.executemany("DELETE FROM meta WHERE key = ?", [(key,) for key in (SENT_HEAD, ADOPTED)])
            connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_RENEWED, identity))

    def close(self) -> None:
        """Close the file."""
        self.database.close()


def _run(row: tuple[Any, ...]) -> dict[str, object]:
    started, ended, exit_code, summary = row
    return {"started_ns": started, "ended_ns": ended, "exit": exit_code, **json.loads(summary)}
