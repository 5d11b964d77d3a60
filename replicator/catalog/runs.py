"""Every run of a command that changes or checks something: when, how it ended, and what it said, bounded."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from replicator.catalog.schema import Database

KEPT: Final = 500
"""Runs that are kept; a year of nights and what was done by hand."""
LONGEST: Final = 200
"""Entries that are kept of a list; how many there were is kept of all."""
LARGEST: Final = 256 << 10
"""Bytes of one run's document, but for what is no list."""
_TEXT: Final = 1000
_WIDEST: Final = 2
"""Bytes that a character takes as a rule, at most."""
_OVERHEAD: Final = 8
"""Characters of punctuation about a value."""
_MARK: Final = "command "
"""What the kind of a run begins with, so that audits and drills keep rows of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. ``ended_ns`` 0: it has not ended, or was killed; ``code`` is then -1."""

    id: int
    kind: str
    started_ns: int
    ended_ns: int
    code: int
    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """Why it failed, as far as it said."""
        error = self.document.get("error")
        if isinstance(error, dict):
            return str(error.get("message", ""))
        datasets = self.document.get("datasets")
        rows = [one for one in datasets if isinstance(one, dict)] if isinstance(datasets, list) else []
        return "; ".join(f"{one.get('dataset')}: {one['error']}" for one in rows if one.get("error"))[:_TEXT]


class Runs:
    """The runs of one half of a home."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def begin(self, kind: str, now_ns: int) -> int:
        """Note that a run begins; return its number. The oldest ones beyond :data:`KEPT` are dropped."""
        with self._db.transaction("run row") as connection:
            row = connection.execute(
                "INSERT INTO runs (kind, started_ns, ended_ns, exit, summary) VALUES (?, ?, 0, -1, '{}')",
                (_MARK + kind, now_ns),
            )
            connection.execute(
                "DELETE FROM runs WHERE kind LIKE ? AND id NOT IN "
                "(SELECT id FROM runs WHERE kind LIKE ? ORDER BY id DESC LIMIT ?)",
                (f"{_MARK}%", f"{_MARK}%", KEPT),
            )
        assert row.lastrowid is not None, "a row was made"
        return row.lastrowid

    def end(self, number: int, *, now_ns: int, code: int, document: object) -> None:
        """Note how a run ended and what it said."""
        with self._db.transaction("run row") as connection:
            connection.execute(
                "UPDATE runs SET ended_ns = ?, exit = ?, summary = ? WHERE id = ?",
                (now_ns, code, bounded(document), number),
            )

    def drop(self, number: int) -> None:
        """Forget a run that was none."""
        with self._db.transaction("run row") as connection:
            connection.execute("DELETE FROM runs WHERE id = ?", (number,))

    def newest(self, count: int) -> list[Run]:
        """Return the last runs, the newest first, without their documents."""
        rows = self._db.rows(
            "SELECT id, kind, started_ns, ended_ns, exit, '{}' FROM runs WHERE kind LIKE ? ORDER BY id DESC LIMIT ?",
            (f"{_MARK}%", count),
        )
        return [_run(row) for row in rows]

    def get(self, number: int) -> Run | None:
        """Return one run with its document."""
        rows = self._db.rows(
            "SELECT id, kind, started_ns, ended_ns, exit, summary FROM runs WHERE id = ? AND kind LIKE ?",
            (number, f"{_MARK}%"),
        )
        return _run(rows[0]) if rows else None

    def successes(self, codes: Sequence[int]) -> dict[str, int]:
        """Return when the last run of each kind ended that ended with one of these codes, by kind."""
        marks = ", ".join("?" * len(codes))
        rows = self._db.rows(
            f"SELECT kind, max(ended_ns) FROM runs WHERE kind LIKE ? AND ended_ns != 0 AND exit IN ({marks}) "  # noqa: S608 - question marks
            "GROUP BY kind ORDER BY kind",
            (f"{_MARK}%", *codes),
        )
        return {kind.removeprefix(_MARK): ended_ns for kind, ended_ns in rows}

    def last(self) -> list[Run]:
        """Return the last run of each kind that has ended, with its document."""
        rows = self._db.rows(
            "SELECT id, kind, started_ns, ended_ns, exit, summary FROM runs WHERE id IN "
            "(SELECT max(id) FROM runs WHERE kind LIKE ? AND ended_ns != 0 GROUP BY kind) ORDER BY id",
            (f"{_MARK}%",),
        )
        return [_run(row) for row in rows]


def bounded(document: object) -> str:
    """Return a document as JSON of about :data:`LARGEST` bytes at most; what is left out is counted in its place."""
    text = json.dumps(_Shortener().shorten(document), ensure_ascii=False, default=_plain)
    return text.encode("utf-8", "backslashreplace").decode()


class _Shortener:
    """Takes of a document as much as there is room for: all that is not a list first, then lists in their order."""

    def __init__(self) -> None:
        self._left = LARGEST // _WIDEST

    def shorten(self, value: object) -> object:
        self._left -= _OVERHEAD
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, list | tuple):
            return self._list(value)
        if isinstance(value, str):
            short = value if len(value) <= _TEXT else value[:_TEXT] + "..."
            self._left -= len(short)
            return short
        return value

    def _mapping(self, value: Mapping[Any, Any]) -> dict[str, object]:
        keys = list(value)[:LONGEST]
        self._left -= sum(len(str(key)) for key in keys)
        nested = [key for key in keys if isinstance(value[key], Mapping | list | tuple)]
        found = {key: self.shorten(value[key]) for key in keys if key not in nested}
        found |= {key: self.shorten(value[key]) for key in nested}
        short = {str(key): found[key] for key in keys}
        return short if len(value) == len(keys) else short | {"left_out": len(value) - len(keys)}

    def _list(self, value: Sequence[object]) -> list[object]:
        short: list[object] = []
        for one in value[:LONGEST]:
            if self._left <= 0:
                break
            short.append(self.shorten(one))
        left = len(value) - len(short)
        return [*short, {"id": "left out", "left_out": left}] if left else short


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)


def _run(row: tuple[Any, ...]) -> Run:
    number, kind, started_ns, ended_ns, code, summary = row
    document = json.loads(summary)
    return Run(
        id=number,
        kind=kind.removeprefix(_MARK),
        started_ns=started_ns,
        ended_ns=ended_ns,
        code=code,
        document=document if isinstance(document, dict) else {"result": document},
    )
