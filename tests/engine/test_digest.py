"""The digest: what is marked at each provider, for whoever asks status."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from replicator.cli.care import _deletions_text, _status_document
from replicator.cli.output import Alarm
from replicator.engine.digest import Deletions, digest
from replicator.engine.federation import Federation, Link
from replicator.engine.status import Status
from replicator.errors import PeerError, RefusedError, UnreachableError
from replicator.format.charter import Floors
from replicator.format.codec import Record
from replicator.ids import Identity
from replicator.transport.base import Target
from replicator.transport.memory import MemoryConnection, MemoryNetwork
from replicator.wire.messages import Info
from tests.provider.stand import Stand
from tests.provider.tenant import SMALL, data_object, hire, put
from tests.provider.test_marks import NA, NB, mark, marks

FLOORS = Floors(lock_s=30 * 86400, grace_s=14 * 86400, delete_budget_percent=10, residency=[], minimum_copies=1)


class _Failing:
    """A connection on which nothing works."""

    def __init__(self, target: Target, error: PeerError) -> None:
        self.target = target
        self._error = error

    async def call(self, op: str, request: Record, answer: type[Record]) -> Record:
        raise self._error


class _Pin:
    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.name = "bo"


def _federation(*links: Link) -> Federation:
    return cast("Federation", SimpleNamespace(links={one.identity: one for one in links}, notices=[]))


@pytest.fixture
def link(tmp_path: str) -> tuple[Stand, Link]:
    stand = Stand(str(tmp_path))
    hire(stand.service, stand.tenant)
    put(stand.node, data_object(1))
    put(stand.node, data_object(2))
    from replicator.crypto.certificates import client_certificate

    key = stand.tenant.node
    target = Target(
        identity=stand.service.identity,
        name="bo",
        endpoints=(),
        key=key,
        certificate=client_certificate(stand.provider.key, key.public, stand.house.rng),
    )
    connection = MemoryConnection(MemoryNetwork(stand.service), target)
    pin = _Pin(stand.service.identity)
    made = Link(pin, connection, cast("Info", None), stand.provider.offer(), 0, [])  # type: ignore[arg-type]
    return stand, made


def test_a_provider_with_nothing_marked_says_nothing(link: tuple[Stand, Link]) -> None:
    assert asyncio.run(digest(_federation(link[1]), FLOORS)) == []


def test_marks_are_told_with_count_bytes_and_first_day(link: tuple[Stand, Link]) -> None:
    stand, one = link
    mark(stand, NA, NB)
    [found] = asyncio.run(digest(_federation(one), FLOORS))
    assert (found.name, found.objects, found.bytes) == ("bo", 2, 2 * SMALL)
    assert found.first_ns == marks(stand).first_ns
    status = Status(
        tenant="t",
        as_of_ns=0,
        asked=True,
        datasets=[],
        peers=[],
        problems=[],
        notices=[],
        advice=[],
        spooled_bytes=0,
        exit_code=0,
        deletions=[found],
    )
    assert "bo: 2 objects" in _deletions_text(status)[0]
    assert "2026-01-31" in _deletions_text(status)[0]
    [row] = _status_document(status)["deletions"]
    assert (row["id"], row["first"][:10]) == (stand.service.identity.hex(), "2026-01-31")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnreachableError("bo", "gone away"), ["what is marked for deletion there is not known: bo: gone away"]),
        (
            RefusedError("bo", "no such operation", code="bad-request"),
            ["what is marked for deletion there is not known: bo: no such operation"],
        ),
        (RefusedError("bo", "there is no charter here", code="forbidden"), []),
    ],
)
def test_a_provider_that_does_not_say_hides_no_other_and_is_named(
    link: tuple[Stand, Link], error: PeerError, said: list[str]
) -> None:
    stand, one = link
    mark(stand, NA)
    failing = _Failing(one.connection.target, error)
    other = replace(one, pin=_Pin(Identity(bytes(32))), connection=failing)  # type: ignore[arg-type]
    federation = _federation(other, one)
    [found] = asyncio.run(digest(federation, FLOORS))
    assert isinstance(found, Deletions)
    assert federation.notices == said


def test_brakes_that_are_off_are_told_as_an_alarm_even_if_nothing_is_marked(link: tuple[Stand, Link]) -> None:
    _, one = link
    offer = msgspec.structs.replace(one.offer, lock_s=0, grace_s=0)
    loose = Link(one.pin, one.connection, one.info, offer, 0, [])
    floors = msgspec.structs.replace(FLOORS, grace_s=0, delete_budget_percent=100)
    [found] = asyncio.run(digest(_federation(loose), floors))
    assert found.unbraked == ["grace", "budget"]
    [line] = _deletions_text(cast("Status", SimpleNamespace(deletions=[found])))
    assert isinstance(line, Alarm)
    assert "bo: NO GRACE AND NO BUDGET" in line
