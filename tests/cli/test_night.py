"""The night of a node, part by part: what one ends with takes nothing from the others."""

import errno
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from replicator.cli import backup as module
from replicator.cli import exits
from replicator.engine.backup import BackupReport
from replicator.engine.rebalance import RebalanceReport
from replicator.engine.repair import RepairReport
from replicator.errors import HomeError, KeyMissingError, SpaceError


class Night:
    """A session that only notes what it is told."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.said: list[str] = []
        self.out = SimpleNamespace(notice=self.said.append)

    def node(self) -> Any:
        return nullcontext()

    def edge(self) -> Any:
        return nullcontext()

    def worsen(self, code: int) -> None:
        self.codes.append(code)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
    """Let each part do nothing, or raise what is put in here."""
    failing: dict[str, Exception] = {}

    def part(name: str, report: object) -> Any:
        async def work(*_: object, **__: object) -> object:
            if name in failing:
                raise failing[name]
            return report

        return work

    monkeypatch.setattr("replicator.engine.repair.mend_urgent", part("urgent", RepairReport()))
    monkeypatch.setattr("replicator.engine.repair.repair", part("repair", RepairReport()))
    monkeypatch.setattr("replicator.engine.rebalance.rebalance", part("rebalance", RebalanceReport()))
    monkeypatch.setattr("replicator.engine.extrawriting.write_extras", part("extras", []))
    monkeypatch.setattr("replicator.engine.extra.extras", lambda _: [])
    monkeypatch.setattr(module, "_backup", lambda _, **__: BackupReport(sent_objects=7))
    return failing


def night() -> tuple[Night, dict[str, Any]]:
    session, document = Night(), dict[str, Any]()
    module._night_of_node(session, document, [], None)  # type: ignore[arg-type] # as much of a session as it needs
    module._night_of_extras(session, document, [])  # type: ignore[arg-type] # likewise
    return session, document


def test_a_night_without_trouble_has_all_parts(parts: dict[str, Exception]) -> None:
    assert parts == {}
    session, document = night()
    assert set(session.codes) <= {0}
    assert document["sent_objects"] == 7
    assert document["rebalance"] == {"moved": 0}
    assert document["extras"] == []
    assert {"audit", "repair", "datasets"} <= document.keys()


@pytest.mark.parametrize("name", ["urgent", "repair", "rebalance", "extras"])
def test_a_part_that_fails_is_named_and_the_others_are_in_the_document(name: str, parts: dict[str, Exception]) -> None:
    parts[name] = HomeError("the catalog is locked", hint="try again")
    session, document = night()
    assert document["sent_objects"] == 7
    assert document[name] == {"error": "the catalog is locked"}
    assert "repair" in document
    assert session.said[:2] == [f"{name}: the catalog is locked", "  try again"]
    assert max(session.codes) == exits.code_of(parts[name])


@pytest.mark.parametrize("name", ["urgent", "repair", "rebalance", "extras"])
def test_a_disk_that_fails_in_one_part_leaves_the_others_in_the_document(
    name: str, parts: dict[str, Exception]
) -> None:
    parts[name] = OSError(errno.EIO, "Input/output error", "/home/node/catalog.db")
    session, document = night()
    assert document["sent_objects"] == 7
    assert document[name] == {"error": "/home/node/catalog.db: Input/output error"}
    assert exits.FAILED in session.codes


def test_extra_copies_that_fail_take_nothing_from_the_night_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_session: object) -> None:
        raise HomeError("extra.json: damaged", hint="remove it, and add the places again")

    monkeypatch.setattr("replicator.cli.extra.write_all", fail)
    session, document = Night(), dict[str, Any](sent_objects=7)
    module._night_of_extras(session, document, [])  # type: ignore[arg-type] # as much of a session as it needs
    assert document == {"sent_objects": 7, "extras": {"error": "extra.json: damaged"}}
    assert session.said == ["extras: extra.json: damaged", "  remove it, and add the places again"]
    assert session.codes == [exits.FAILED]


def test_a_full_disk_in_repair_is_the_exit_code(parts: dict[str, Exception]) -> None:
    parts["repair"] = SpaceError("no room")
    session, document = night()
    assert exits.code_of(parts["repair"]) in session.codes
    assert document["repair"] == {"error": "no room"}
    assert "rebalance" not in document


def test_a_home_that_cannot_be_opened_is_said_once_and_no_part_is_begun(
    parts: dict[str, Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: Night) -> Any:
        raise KeyMissingError("this home is no node", hint="run this on a node")

    monkeypatch.setattr(Night, "node", closed)
    session = Night()
    with pytest.raises(KeyMissingError):
        module._night_of_node(session, {}, [], None)  # type: ignore[arg-type] # as much of a session as it needs
    assert (session.said, session.codes, parts) == ([], [], {})
