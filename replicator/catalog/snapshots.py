"""Snapshots, datasets and policies as this home knows them."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from replicator.catalog.schema import Database
from replicator.errors import FormatError, HomeError, NotFoundError, UnsupportedVersionError, UsageError
from replicator.format.charter import Count
from replicator.format.codec import Part, Record, decode, encode, version_of
from replicator.format.consistency import Consistency
from replicator.format.policy import Policy, policy_id
from replicator.fs import Fs, write_atomic
from replicator.ids import ObjectName

_SNAPSHOT = (
    "name, writer, number, dataset, created_ns, published_ns, policy, files, size, partial, indexes, refs, head, gaps, "
    "tags"
)
_NAME = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRow:
    """One snapshot. ``dataset`` is empty where this home may not read names; ``published_ns`` 0 until it is.

    ``head`` is the signed head statement; ``gaps`` are (path, reason) pairs, with the path as text for people. ``tags``
    are known to the home that wrote it; others find them in the snapshot, if they may open it.
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
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Named paths with one policy, as this node backs them up. Without roots it takes what a command writes.

    ``exclude`` are patterns in the syntax of ``.gitignore``. ``exclude_if_present`` are names: of a folder that holds
    one, nothing else is saved. ``exclude_larger_than`` is in bytes.
    """

    name: str
    roots: tuple[bytes, ...]
    policy: Policy
    exclude: tuple[str, ...]
    one_file_system: bool
    keep_caches: bool = False
    exclude_if_present: tuple[str, ...] = ()
    exclude_larger_than: int | None = None
    created_ns: int
    consistency: Consistency = field(default_factory=Consistency)
    domain: bytes = b""
    """Its id; empty: the tenant's first."""
    also_borg: str = ""
    """A Borg repository that gets an archive of it in each run, as borg takes it; empty: none."""


class Snapshots:
    """Rows of snapshots."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, row: SnapshotRow) -> None:
        """Remember a snapshot; a known one is updated."""
        with self._db.transaction("snapshot row") as connection:
            connection.execute(
                f"INSERT OR REPLACE INTO snapshots ({_SNAPSHOT}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
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
                    json.dumps(row.tags),
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

    def names(self, writer: bytes) -> dict[int, ObjectName]:
        """Return the names of a writer's snapshots by their numbers."""
        rows = self._db.rows("SELECT number, name FROM snapshots WHERE writer = ? ORDER BY number", (writer,))
        return {number: ObjectName(name) for number, name in rows}

    def newest(self, where: str, values: tuple[object, ...]) -> SnapshotRow | None:
        """Return the snapshot with the highest number by a condition on the columns, None if there is none."""
        rows = self._db.rows(
            f"SELECT {_SNAPSHOT} FROM snapshots WHERE {where} ORDER BY number DESC LIMIT 1",  # noqa: S608
            values,
        )
        return _snapshot(rows[0]) if rows else None


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
        tags=tuple(json.loads(row[14] or "[]")),  # a row of an earlier catalog has none
    )


def _names(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[at : at + _NAME] for at in range(0, len(joined), _NAME))


class _Entry1(Part, frozen=True, kw_only=True):
    name: str
    roots: list[bytes]
    policy: Policy
    exclude: list[bytes]
    one_file_system: bool
    created_ns: int


class _File1(Record, frozen=True, kw_only=True):
    """Version 1: patterns of :mod:`fnmatch`, and no other rules."""

    datasets: list[_Entry1]


class _Entry2(Part, frozen=True, kw_only=True):
    name: str
    roots: list[bytes]
    policy: Policy
    exclude: list[bytes]
    one_file_system: bool
    keep_caches: bool
    exclude_if_present: list[bytes]
    exclude_larger_than: Count | None
    created_ns: int
    consistency: Consistency = msgspec.field(default_factory=Consistency)


class _File2(Record, frozen=True, kw_only=True, tag=2):
    """Version 2: all in the tenant's first domain. Written still where that is so."""

    datasets: list[_Entry2]


class _Entry3(_Entry2, frozen=True, kw_only=True):
    domain: bytes = b""


class _File3(Record, frozen=True, kw_only=True, tag=3):
    """Version 3: none with an archive beside. Written still where that is so, and there are domains."""

    datasets: list[_Entry3]


class _Entry(_Entry3, frozen=True, kw_only=True):
    also_borg: str = ""


class _File(Record, frozen=True, kw_only=True, tag=4):
    """What datasets.bin holds, by name."""

    datasets: list[_Entry]


def _read(data: bytes) -> list[_Entry]:
    """Return what a file of any version holds, in the newest one's terms."""
    if version_of(data) == 2:
        return [_Entry(**msgspec.structs.asdict(entry)) for entry in decode(_File2, data).datasets]
    if version_of(data) == 3:
        return [_Entry(**msgspec.structs.asdict(entry)) for entry in decode(_File3, data).datasets]
    if version_of(data) != 1:
        return decode(_File, data).datasets
    from replicator.catalog.shellpatterns import to_gitignore  # noqa: PLC0415 - an old file's business

    return [
        _Entry(
            name=entry.name,
            roots=entry.roots,
            policy=entry.policy,
            exclude=[said for pattern in entry.exclude for said in to_gitignore(pattern, entry.roots)],
            one_file_system=entry.one_file_system,
            keep_caches=True,  # as the build that wrote it did
            exclude_if_present=[],
            exclude_larger_than=None,
            created_ns=entry.created_ns,
        )
        for entry in decode(_File1, data).datasets
    ]


def _encoded(entries: list[_Entry]) -> bytes:
    if any(one.also_borg for one in entries):
        return encode(_File(datasets=entries))
    if any(one.domain for one in entries):
        return encode(_File3(datasets=[_Entry3(**_fields(one, _Entry3)) for one in entries]))
    return encode(_File2(datasets=[_Entry2(**_fields(one, _Entry2)) for one in entries]))


def _fields(entry: _Entry, earlier: type[_Entry2]) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in earlier.__struct_fields__}


class Datasets:
    """Datasets and policies.

    What to back up is the node's own word and cannot be rebuilt from anywhere: it has a file of its own, so that a
    catalog may be lost. Policies are rows.

    Raises:
        HomeError: the file is damaged.
    """

    def __init__(self, database: Database, path: str, fs: Fs) -> None:
        self._db = database
        self._path = path
        self._fs = fs

    def add(self, dataset: Dataset) -> None:
        """Add a dataset.

        Raises:
            UsageError: the name is taken.
        """
        with self._db.transaction("dataset row"):  # keeps other processes out
            known = self.all()
            if any(one.name == dataset.name for one in known):
                raise UsageError(
                    f"dataset '{dataset.name}' exists already", hint="choose another name, or remove it first"
                )
            self._write([*known, dataset])

    def update(self, dataset: Dataset) -> None:
        """Change a dataset that exists."""
        with self._db.transaction("dataset row"):
            self.get(dataset.name)
            self._write([dataset if one.name == dataset.name else one for one in self.all()])

    def remove(self, name: str) -> None:
        """Stop backing a dataset up; its snapshots stay."""
        with self._db.transaction("dataset row"):
            self.get(name)
            self._write([one for one in self.all() if one.name != name])

    def all(self) -> list[Dataset]:
        """Return all datasets by name."""
        if self._fs.size(self._path) is None:
            return []
        try:
            found = _read(self._fs.read(self._path))
        except UnsupportedVersionError as error:
            raise HomeError(f"{self._path}: {error.message}", hint=error.hint) from error
        except FormatError as error:
            raise HomeError(
                f"{self._path}: damaged ({error})",
                hint=error.hint or "put back a copy of it, or remove it and add the datasets again",
            ) from error
        return [
            Dataset(
                name=entry.name,
                roots=tuple(entry.roots),
                policy=entry.policy,
                exclude=tuple(os.fsdecode(pattern) for pattern in entry.exclude),
                one_file_system=entry.one_file_system,
                keep_caches=entry.keep_caches,
                exclude_if_present=tuple(os.fsdecode(name) for name in entry.exclude_if_present),
                exclude_larger_than=entry.exclude_larger_than,
                created_ns=entry.created_ns,
                consistency=entry.consistency,
                domain=entry.domain,
                also_borg=entry.also_borg,
            )
            for entry in found
        ]

    def _write(self, datasets: list[Dataset]) -> None:
        entries = [
            _Entry(
                name=one.name,
                roots=list(one.roots),
                policy=one.policy,
                exclude=[os.fsencode(pattern) for pattern in one.exclude],
                one_file_system=one.one_file_system,
                keep_caches=one.keep_caches,
                exclude_if_present=[os.fsencode(name) for name in one.exclude_if_present],
                exclude_larger_than=one.exclude_larger_than,
                created_ns=one.created_ns,
                consistency=one.consistency,
                domain=one.domain,
                also_borg=one.also_borg,
            )
            for one in sorted(datasets, key=lambda one: one.name)
        ]
        data = _encoded(entries)
        for one in datasets:
            self.remember(one.policy)
        write_atomic(self._fs, self._path, data)

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
