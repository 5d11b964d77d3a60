"""How a provider stands: room, growth, traffic by month, a capacity that shrinks, and what rings for it."""

import dataclasses
import os
import sqlite3
from collections.abc import Callable

import pytest

from replicator.clock import DAY_S, NS
from replicator.errors import SpaceError
from replicator.format.merkle import name_of
from replicator.notify.memory import Memory
from replicator.notify.telling import after_telling, look, news
from replicator.provider.alarms import alarms_of, standing
from replicator.provider.state import ErasedState, ProviderState, RelayState, TenantState
from replicator.provider.traffic import MONTHS, by_holder, months
from tests.fakes import START_NS
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import MIB, SMALL, data_object, hire, put
from tests.provider.test_marks import NA, NB, mark


@pytest.fixture
def stand(tmp_path: os.PathLike[str]) -> Stand:
    """A provider with a tenant that may store."""
    found = Stand(str(tmp_path))
    hire(found.service, found.tenant)
    return found


def erased(ago_s: int, *, done: bool = True) -> ErasedState:
    """A tenant that was ordered away so long ago."""
    return ErasedState(id="cd" * 16, began_ns=START_NS - ago_s * NS, done=done)


TENANT = TenantState(
    id="ab" * 16, label="ole", used=5 << 20, quota=1 << 30, since_ns=START_NS, heard_ns=START_NS, budget=100
)
STATE = ProviderState(
    now_ns=START_NS,
    mounted=True,
    capacity=1000,
    used=500,
    disk_free=9000,
    room=500,
    growth=0,
    clock_leap_s=0,
    frozen=False,
    damaged=0,
    scrub_ended_ns=0,
    tenants=(TENANT,),
)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, None),
        ({"mounted": False}, "provider.unmounted"),
        ({"frozen": True, "clock_leap_s": 9000}, "provider.clock"),
        ({"damaged": 2}, "provider.damaged"),
        ({"room": 10}, "provider.full"),
        ({"room": 11}, None),
        ({"growth": 16}, None),
        ({"growth": 17}, "provider.filling"),
        ({"growth": -17}, None),
        ({"erased": (erased(DAY_S),)}, "tenant.erased"),
        ({"erased": (erased(31 * DAY_S),)}, None),
        ({"erased": (erased(59 * 60, done=False),)}, "tenant.erased"),
        ({"erased": (erased(31 * DAY_S, done=False),)}, "erasure.stuck"),
    ],
)
def test_what_rings_for_the_disk(change: dict[str, object], code: str | None) -> None:
    state = dataclasses.replace(STATE, **change)  # type: ignore[arg-type]  # a test names the field it changes
    assert [one.code for one in alarms_of(state)] == ([code] if code else [])
    assert standing(state)


def test_a_tenant_that_is_not_gone_after_an_hour_is_not_said_to_be() -> None:
    begun, stuck = alarms_of(dataclasses.replace(STATE, erased=(erased(3600, done=False),)))
    assert (begun.code, stuck.code) == ("tenant.erased", "erasure.stuck")
    assert "was erased" not in begun.what
    assert "not erased yet" in stuck.what
    assert "--forget-old" in stuck.todo
    [done] = alarms_of(dataclasses.replace(STATE, erased=(erased(3600),)))
    assert "was erased" in done.what


class Ways:
    """Two relays of one provider, and what its operator is told of them."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.now_ns = START_NS
        self.lost_ns = {"a": 0, "b": 0}
        self.words: list[str] = []

    def after(self, minutes: int, *, lost: str = "", found: str = "", dialled: bool = False) -> tuple[list[str], bool]:
        """Return the codes that are told after so many minutes, and whether something is told to be over."""
        self.now_ns += minutes * 60 * NS
        self.lost_ns |= dict.fromkeys(lost, self.now_ns) | dict.fromkeys(found, 0)
        relays = tuple(RelayState(address=one, lost_ns=at, reason="no answer") for one, at in self.lost_ns.items())
        present = alarms_of(
            dataclasses.replace(STATE, now_ns=self.now_ns, relays=relays, dialled=dialled, tenants=()),
        )
        self.memory = look(self.memory, present, self.now_ns)
        said = news(self.memory, "mail", present, self.now_ns)
        self.memory = after_telling(self.memory, "mail", said, present)
        self.words += [one.what for one in said.raised]
        return [one.code for one in said.raised], bool(said.over)


QUIET: tuple[list[str], bool] = ([], False)


def test_a_lost_relay_rings_once_after_an_hour_and_once_when_it_is_found() -> None:
    ways = Ways()
    assert ways.after(30, lost="a") == QUIET
    assert ways.after(59) == QUIET, "a relay that is started anew"
    assert ways.after(30, found="a") == QUIET
    assert ways.after(30, lost="a") == QUIET
    assert ways.after(60) == (["relay.lost"], False)
    assert ways.after(60, lost="b") == QUIET
    assert ways.after(60) == (["provider.unreachable"], False)
    assert ways.after(9999) == QUIET
    assert ways.after(30, found="a") == (["relay.lost"], False), "it is reached again, and not as it was"
    assert ways.after(30, found="b") == ([], True)
    assert ways.after(30) == QUIET
    assert all("no answer" in words and "2026-01-01T" in words for words in ways.words)


def test_who_is_also_dialled_where_its_operator_says_is_reached_without_its_relays() -> None:
    ways = Ways()
    ways.after(0, lost="ab")
    assert ways.after(60, dialled=True) == (["relay.lost"], False)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"heard_ns": START_NS - 72 * 3600 * NS, "since_ns": 0}, None),
        ({"heard_ns": START_NS - 73 * 3600 * NS, "since_ns": 0}, "tenant.silent"),
        ({"heard_ns": 0, "since_ns": 0}, "tenant.silent"),
        ({"heard_ns": 0, "since_ns": 0, "used": 0}, None),
        ({"marked": 3, "marked_bytes": 100}, None),
        ({"marked": 3, "marked_bytes": 101, "first_ns": START_NS}, "deletion.large"),
        ({"unbraked": ("grace",)}, "deletion.unbraked"),
        ({"root_changes": 1}, "tenant.root"),
        ({"forks": 1}, "tenant.fork"),
    ],
)
def test_what_rings_for_a_tenant(change: dict[str, object], code: str | None) -> None:
    tenant = dataclasses.replace(TENANT, **change)  # type: ignore[arg-type]  # a test names the field it changes
    found = alarms_of(dataclasses.replace(STATE, tenants=(tenant,)))
    assert [(one.code, one.about) for one in found] == ([(code, "tenant ole")] if code else [])


def test_a_capacity_goes_down_at_once_deletes_nothing_and_goes_up_again(stand: Stand) -> None:
    put(stand.node, data_object(1, MIB))
    stand.provider.change_offer(capacity=stand.provider.state().used + SMALL)
    put(stand.node, data_object(2))
    assert refusal(lambda: stand.node.begin_put(NA, SMALL)) == "full"
    stand.provider.change_offer(capacity=SMALL)
    assert refusal(lambda: stand.node.begin_put(NA, SMALL)) == "full"
    assert stand.node.get(name_of(data_object(1, MIB))) == data_object(1, MIB), "what is stored is given out"
    state = stand.provider.state()
    assert (state.room, state.capacity) == (0, SMALL)
    assert state.used > SMALL
    assert "provider.full" in {one.code for one in alarms_of(state)}
    stand.provider.change_offer(capacity=100 * MIB)
    put(stand.node, data_object(3))


def test_what_holders_gave_and_took_is_counted_by_month(stand: Stand) -> None:
    put(stand.node, data_object(1, MIB))
    put(stand.node, data_object(2))
    stand.node.get(name_of(data_object(1, MIB)))
    stand.service.tick()
    [month] = months(stand.provider._database)
    taken = month.taken
    assert (month.tenant, month.month, month.given) == (stand.tenant.id, "2026-01", MIB)
    assert taken >= MIB + SMALL
    assert month.kept == stand.provider.state().used
    stand.clock.advance(31 * DAY_S)
    stand.keeper.get(name_of(data_object(2)))
    stand.service.tick()
    assert [(one.month, one.given) for one in months(stand.provider._database)] == [
        ("2026-02", SMALL),
        ("2026-01", MIB),
    ]
    node = next(row for row in by_holder(stand.provider._database) if row[3] == MIB)
    assert node[2] >= MIB + SMALL
    status = stand.provider.status()
    assert [row["month"] for row in status["months"]] == ["2026-02", "2026-01"]
    assert {row["given"] for row in status["holders"]} >= {MIB, SMALL}


def test_what_was_counted_is_written_down_at_the_end_and_old_months_go(stand: Stand) -> None:
    put(stand.node, data_object(1))
    stand.restart()
    assert months(stand.provider._database)[0].taken >= SMALL
    for _ in range(MONTHS + 2):
        stand.clock.advance(31 * DAY_S)
        stand.service.tick()
    found = months(stand.provider._database)
    assert len(found) == MONTHS
    assert found[-1].month > "2026-01"


def test_an_object_that_did_not_come_whole_is_not_counted(stand: Stand) -> None:
    stand.service.tick()
    before = months(stand.provider._database)[0].taken
    upload = stand.node.begin_put(NA, SMALL)
    upload.hash(b"x" * 100)
    upload.write(b"x" * 100)
    upload.abort()
    stand.service.tick()
    assert months(stand.provider._database)[0].taken == before


def test_counts_that_cannot_be_written_stop_nothing_and_are_kept(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stand.service.tick()
    before = months(stand.provider._database)[0].taken
    put(stand.node, data_object(1))
    write = stand.provider._database.write

    def full(what: str, work: Callable[[sqlite3.Connection], object]) -> object:
        if what == "traffic":
            raise SpaceError("provider.db: the disk is full")
        return write(what, work)

    with monkeypatch.context() as patch:
        patch.setattr(stand.provider._database, "write", full)
        stand.service.tick()
    assert "not written down" in caplog.text
    stand.service.tick()
    assert months(stand.provider._database)[0].taken == before + SMALL


def test_growth_is_what_came_less_what_went(stand: Stand) -> None:
    put(stand.node, data_object(1, MIB))
    assert stand.provider.state().growth == 0, "a first day says nothing"
    stand.clock.advance(10 * DAY_S)
    state = stand.provider.state()
    assert state.growth == pytest.approx(state.used / 10, rel=0.01)
    assert state.days_left == state.room / state.growth
    stand.clock.advance(60 * DAY_S)
    assert stand.provider.state().growth == 0


def test_marks_of_a_tenant_ring_only_when_they_are_more_than_may_go_in_a_week(stand: Stand) -> None:
    put(stand.node, data_object(1))
    put(stand.node, data_object(2))
    mark(stand, NA, NB)
    state = stand.provider.state()
    [tenant] = state.tenants
    assert (tenant.marked, tenant.marked_bytes) == (2, 2 * SMALL)
    assert "deletion.large" not in {one.code for one in alarms_of(state)}
    little = dataclasses.replace(state, tenants=(dataclasses.replace(tenant, budget=SMALL),))
    assert "deletion.large" in {one.code for one in alarms_of(little)}


def test_a_tenant_that_was_erased_takes_its_months_along(stand: Stand) -> None:
    put(stand.node, data_object(1))
    stand.service.tick()
    assert months(stand.provider._database) != []
    put(stand.node, data_object(2))
    stand.service.erase(stand.tenant.erase_order())
    assert months(stand.provider._database) == []
    stand.service.tick()
    assert months(stand.provider._database) == [], "what was counted since is nobody's"
