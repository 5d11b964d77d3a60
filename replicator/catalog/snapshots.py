"""Snapshots, datasets and policies as this home knows them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from replicator.catalog.schema import Database
from replicator.errors import NotFoundError, UsageError
from replicator.format.codec import decode, encode
from replicator.format.policy import Policy, policy_id
from replicator.ids import ObjectName

_SNAPSHOT = (
    "name, writer, number, dataset, created_ns, published_ns, policy, files, size, partial, indexes, refs, head, gaps"
)
_NAME = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRow:
    """One snapshot. ``dataset`` is empty where this home may not read names; ``published_ns`` 0 until it is.

    ``head`` is the signed head statement; ``gaps`` are (path, reason) pairs, with the path as text for people.
    """

    name: ObjectName
    writer: bytes
    number: int
    dataset: str
    created_ns: int
    published_ns: int
    policy: bytes
    files: int
    size: int
    partial: bool
    indexes: tuple[bytes, ...]
    references: tuple[bytes, ...]
    head: bytes
    gaps: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Named paths with one policy, as this node backs them up."""

    name: str
    roots: tuple[bytes, ...]
    policy: Policy
    exclude: tuple[str, ...]
    one_file_system: bool
    created_ns: int


class Snapshots:
    """Rows of snapshots."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, row: SnapshotRow) -> None:
        """Remember a snapshot; a known one is updated."""
        with self._db.transaction("snapshot row") as connection:
            connection.execute(
                f"INSERT OR REPLACE INTO snapshots ({_SNAPSHOT}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
                (
                    row.name,
                    row.writer,
                    row.number,
                    row.dataset,
                    row.created_ns,
                    row.published_ns,
                    row.policy,
                    row.files,
                    row.size,
                    int(row.partial),
                    b"".join(row.indexes),
                    b"".join(row.references),
                    row.head,
                    json.dumps(row.gaps),
                ),
            )

    def published(self, name: bytes, now_ns: int) -> None:
        """Record that a snapshot's head is witnessed: it is published."""
        with self._db.transaction("published row") as connection:
            connection.execute("UPDATE snapshots SET published_ns = ? WHERE name = ?", (now_ns, name))

    def forget(self, names: Iterable[bytes]) -> None:
        """Forget snapshots."""
        with self._db.transaction("snapshot row") as connection:
            connection.executemany("DELETE FROM snapshots WHERE name = ?", [(name,) for name in names])

    def all(self, where: str = "1", values: tuple[object, ...] = ()) -> list[SnapshotRow]:
        """Return snapshots by a condition on the columns, oldest first."""
        rows = self._db.rows(
            f"SELECT {_SNAPSHOT} FROM snapshots WHERE {where} ORDER BY created_ns, number",  # noqa: S608
            values,
        )
        return [_snapshot(row) for row in rows]

    def newest_of(self, writer: bytes) -> SnapshotRow | None:
        """Return the snapshot with the highest number in a writer's chain."""
        rows = self.all(
            "writer = ? AND number = (SELECT max(number) FROM snapshots WHERE writer = ?)", (writer, writer)
        )
        return rows[0] if rows else None


def _snapshot(row: tuple[Any, ...]) -> SnapshotRow:
    return SnapshotRow(
        name=row[0],
        writer=row[1],
        number=row[2],
        dataset=row[3],
        created_ns=row[4],
        published_ns=row[5],
        policy=row[6],
        files=row[7],
        size=row[8],
        partial=bool(row[9]),
        indexes=_names(row[10]),
        references=_names(row[11]),
        head=row[12],
        gaps=tuple((path, reason) for path, reason in json.loads(row[13])),
    )


def _names(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[at : at + _NAME] for at in range(0, len(joined), _NAME))


class Datasets:
    """Rows of datasets and policies. This table is the node's own word, not a cache: it is what to back up."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, dataset: Dataset) -> None:
        """Add a dataset.

        Raises:
            UsageError: the name is taken.
        """
        if self._db.rows("SELECT 1 FROM datasets WHERE name = ?", (dataset.name,)):
            raise UsageError(f"dataset '{dataset.name}' exists already", hint="choose another name, or remove it first")
        self._write(dataset)

    def update(self, dataset: Dataset) -> None:
        """Change a dataset that exists."""
        self.get(dataset.name)
        self._write(dataset)

    def _write(self, dataset: Dataset) -> None:
        with self._db.transaction("dataset row") as connection:
            connection.execute(
                "INSERT OR REPLACE INTO datasets (name, roots, policy, exclude, one_file_system, created_ns) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    dataset.name,
                    b"\x00".join(dataset.roots),
                    encode(dataset.policy),
                    json.dumps(dataset.exclude),
                    int(dataset.one_file_system),
                    dataset.created_ns,
                ),
            )
            self.remember(dataset.policy)

    def remove(self, name: str) -> None:
        """Stop backing a dataset up; its snapshots stay."""
        self.get(name)
        with self._db.transaction("dataset row") as connection:
            connection.execute("DELETE FROM datasets WHERE name = ?", (name,))

    def all(self) -> list[Dataset]:
        """Return all datasets by name."""
        rows = self._db.rows(
            "SELECT name, roots, policy, exclude, one_file_system, created_ns FROM datasets ORDER BY name"
        )
        return [
            Dataset(
                name=row[0],
                roots=tuple(row[1].split(b"\x00")),
                policy=decode(Policy, row[2]),
                exclude=tuple(json.loads(row[3])),
                one_file_system=bool(row[4]),
                created_ns=row[5],
            )
            for row in rows
        ]

    def get(self, name: str) -> Dataset:
        """Return one dataset.

        Raises:
            NotFoundError: there is none of that name; those that exist are named.
        """
        known = self.all()
        for dataset in known:
            if dataset.name == name:
                return dataset
        names = ", ".join(dataset.name for dataset in known) or "none yet"
        raise NotFoundError(f"no dataset '{name}' in this home (there are: {names})")

    def remember(self, policy: Policy) -> bytes:
        """Keep a policy under its id and return the id."""
        name = policy_id(policy)
        with self._db.transaction("policy row") as connection:
            connection.execute("INSERT OR IGNORE INTO policies (id, record) VALUES (?, ?)", (name, encode(policy)))
        return name

    def policies(self) -> dict[bytes, Policy]:
        """Return all known policies by id."""
        return {row[0]: decode(Policy, row[1]) for row in self._db.rows("SELECT id, record FROM policies")}
