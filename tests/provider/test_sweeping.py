"""The sweep done: what goes leaves no trace, what is needed stays, and a disk that fails is caught up with."""

import os
from collections.abc import Iterator

import pytest

from replicator.clock import DAY_S
from replicator.format.merkle import name_of
from replicator.ids import ObjectName, TenantId
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import InventoryRequest, Signed
from tests.crashfs import CrashFs
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import SMALL, Tenant, data_object, hire, put, settle
from tests.provider.test_marks import claim, mark, marked, marks, orphan

A, B = data_object(1), data_object(2)
NA, NB = name_of(A), name_of(B)


@pytest.fixture
def stand(tmp_path: str) -> Stand:
    """A provider with a maintainer, that has two objects."""
    stand = Stand(str(tmp_path))
    hire(stand.service, stand.tenant)
    put(stand.node, A)
    put(stand.node, B)
    return stand


@pytest.fixture
def stopped(tmp_path: str) -> Iterator[tuple[Stand, CrashFs]]:
    """A provider whose disk, broken still, stopped a sweep of A when its row was gone and its file was not."""
    fs = CrashFs(os.path.join(tmp_path, "graveyard"))
    stand = Stand(str(tmp_path), fs)
    hire(stand.service, stand.tenant)
    put(stand.node, A)
    mark(stand, NA)
    live(stand, 31)
    fs.errors["unlink objects"] = OSError(5, "broken")
    [(_, gone, why)] = stand.service.sweep()
    assert (gone, why) == ([], "Input/output error")
    yield stand, fs
    fs.close()


def live(stand: Stand, days: int) -> None:
    """Let days pass with the daemon running."""
    for _ in range(days):
        stand.clock.advance(DAY_S)
        stand.service.tick()


def sweep(stand: Stand) -> list[bytes]:
    return [one.name for _, gone, _ in stand.service.sweep() for one in gone]


def test_a_marked_object_goes_after_lock_and_grace_and_not_a_day_before(stand: Stand) -> None:
    live(stand, 20)
    mark(stand, NA)
    due_ns = marks(stand).first_ns
    live(stand, 13)
    assert sweep(stand) == []
    live(stand, 2)
    assert stand.clock.now_ns() >= due_ns
    used = stand.node.info().used
    [(part, [gone], _)] = stand.service.sweep()
    assert (gone.name, part.plan.size) == (NA, SMALL)
    assert stand.node.info().used == used - SMALL
    assert refusal(lambda: stand.node.get(NA)) == "not-found"
    assert stand.node.inventory(InventoryRequest(after=b"", limit=100)).missing == b""
    assert not os.path.exists(stand.house.file(stand.tenant, NA))
    assert marks(stand).swept == SMALL
    assert claim(stand, 1, [NA, NB]).missing == NA
    put(stand.node, A)
    assert stand.node.get(NA) == A


def test_a_claim_between_mark_and_sweep_keeps_it_and_its_end_begins_a_new_wait(stand: Stand) -> None:
    mark(stand, NA)
    live(stand, 29)
    claim(stand, 1, [NA])
    live(stand, 20)
    assert sweep(stand) == []
    claim(stand, 2, [], base=1, added=[], dropped=[NA])
    mark(stand, NA)
    live(stand, 29)
    assert sweep(stand) == []
    live(stand, 2)
    assert sweep(stand) == [NA]


def test_a_retirement_begins_a_wait_like_a_claims_end(stand: Stand) -> None:
    claim(stand, 1, [NA])
    live(stand, 40)
    maintainer = stand.service.session(stand.tenant.maintainer.public)
    stand.call("retire", Signed(statement=stand.tenant.retire(stand.service.identity, 1)), maintainer)
    mark(stand, NA)
    live(stand, 29)
    assert sweep(stand) == []
    live(stand, 2)
    assert sweep(stand) == [NA]


def test_wall_time_alone_opens_no_lock_and_a_leap_freezes(stand: Stand) -> None:
    mark(stand, NA)
    stand.clock.set_wall(stand.clock.now_ns() + 90 * DAY_S * 10**9)
    [(part, gone, _)] = stand.service.sweep()
    assert (gone, part.plan.frozen) == ([], True)
    assert marks(stand).frozen_until_ns > stand.clock.now_ns()
    live(stand, 2)
    [(part, gone, _)] = stand.service.sweep()
    assert (gone, part.plan.frozen) == ([], False)
    assert stand.provider.status()["clock_leap_s"] == 90 * DAY_S
    live(stand, 30)
    assert sweep(stand) == [NA]


def test_counted_days_alone_open_no_lock(stand: Stand) -> None:
    mark(stand, NA)
    stand.provider._database.write("days", lambda connection: connection.execute("UPDATE meta SET days = 1000"))
    assert sweep(stand) == []


def test_roots_floors_go_before_what_the_provider_offers_when_they_are_longer(tmp_path: str) -> None:
    stand = Stand(str(tmp_path))
    hire(stand.service, stand.tenant, grace_s=50 * DAY_S)
    put(stand.node, A)
    mark(stand, NA)
    live(stand, 49)
    assert sweep(stand) == []
    live(stand, 2)
    assert sweep(stand) == [NA]


def test_no_more_than_the_weeks_budget_goes_and_the_rest_the_week_after(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    from replicator.provider import sweep as module

    monkeypatch.setattr(module, "BUDGET_BYTES", SMALL)
    live(stand, 31)
    mark(stand, NA, NB)
    live(stand, 15)
    first = sweep(stand)
    assert len(first) == 1
    live(stand, 6)
    assert sweep(stand) == []
    live(stand, 2)
    assert sorted(first + sweep(stand)) == sorted([NA, NB])


def test_a_dry_run_shows_the_same_and_changes_nothing(stand: Stand) -> None:
    mark(stand, NA)
    live(stand, 31)
    for _ in range(2):
        [part] = stand.provider.plan_sweep()
        assert [one.name for one in part.plan.gone] == [NA]
    assert stand.node.get(NA) == A
    assert sweep(stand) == [NA]


def test_a_disk_that_fails_in_the_middle_is_caught_up_with(stopped: tuple[Stand, CrashFs]) -> None:
    stand, fs = stopped
    assert claim(stand, 1, [NA]).missing == NA, "it was called there while it was going"
    fs.errors.clear()
    stand.service.sweep()
    assert not os.path.exists(stand.house.file(stand.tenant, NA))
    put(stand.node, A)
    stand.service.sweep()
    assert stand.node.get(NA) == A


def test_what_is_stored_again_after_a_stopped_sweep_stays(stopped: tuple[Stand, CrashFs]) -> None:
    stand, fs = stopped
    fs.errors.clear()
    put(stand.node, A)
    stand.service.sweep()
    assert stand.node.get(NA) == A
    stand.restart()
    assert stand.node.get(NA) == A


def test_a_damaged_object_leaves_quarantine_too(stand: Stand) -> None:
    mark(stand, NA)
    live(stand, 31)
    with open(stand.house.file(stand.tenant, NA), "r+b") as file:
        file.write(b"rot")
    assert refusal(lambda: stand.node.get(NA)) == "damaged"
    assert sweep(stand) == [NA]
    assert os.listdir(stand.house.objects(stand.tenant, "quarantine")) == []


def test_a_store_that_was_put_back_deletes_nothing_of_what_was_leaving(stopped: tuple[Stand, CrashFs]) -> None:
    stand, fs = stopped
    fs.errors.clear()
    orphan(stand)
    assert stand.node.get(NA) == A
    assert marked(stand) == []


def _neighbour(stand: Stand) -> Tenant:
    """Return another tenant with an object B marked long ago, whose turn is after or before the first one's."""
    tenant = Tenant("neighbour")
    settle(stand.provider, stand.service, tenant)
    hire(stand.service, tenant)
    put(stand.service.session(tenant.node.public), B)
    state = stand.service.session(tenant.maintainer.public).claims()
    statement = tenant.mark(stand.service.identity, state, dead=[NB])
    assert stand.service.session(tenant.maintainer.public).mark(Signed(statement=statement)).state == "stands"
    return tenant


@pytest.mark.parametrize("broken", ["stand", "neighbour"])
def test_one_tenants_trouble_is_told_and_ends_no_others_sweep(
    stand: Stand, broken: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _neighbour(stand)
    mark(stand, NA)
    live(stand, 31)
    bad = stand.tenant if broken == "stand" else other
    store = stand.service._core.store(TenantId(bad.id))

    def fails(names: list[ObjectName]) -> None:
        raise OSError(5, "a file's name")

    monkeypatch.setattr(store, "remove_all", fails)
    found = {bytes(part.tenant): ([one.name for one in gone], why) for part, gone, why in stand.service.sweep()}
    good = other if broken == "stand" else stand.tenant
    assert found[bad.id] == ([], "Input/output error")
    assert found[good.id] == ([NB if good is other else NA], "")
    assert "the sweep of a tenant stopped (Input/output error)" in caplog.text
    assert "file's name" not in caplog.text


def test_what_went_before_the_disk_failed_is_told(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicator.provider.sweeping.BATCH", 1)
    put(stand.node, B)
    mark(stand, NA, NB)
    live(stand, 31)
    store = stand.service._core.store(TenantId(stand.tenant.id))
    real = store.remove_all

    def fails(names: list[ObjectName]) -> None:
        monkeypatch.setattr(store, "remove_all", broken)
        real(names)

    def broken(names: list[ObjectName]) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr(store, "remove_all", fails)
    [(_, gone, why)] = stand.service.sweep()
    assert len(gone) == 1
    assert why


def test_a_tenant_whose_charter_cannot_be_read_is_passed_over_and_told(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    other = _neighbour(stand)
    mark(stand, NA)
    live(stand, 31)
    stand.provider._database.write(
        "rot", lambda connection: connection.execute("UPDATE tenants SET charter = x'00' WHERE id = ?", (other.id,))
    )
    stand.restart()
    found = {bytes(part.tenant): ([one.name for one in gone], bool(why)) for part, gone, why in stand.service.sweep()}
    assert found == {stand.tenant.id: ([NA], False), other.id: ([], True)}
    assert "a tenant is not swept" in caplog.text


def test_a_disk_that_is_not_mounted_is_not_swept(stand: Stand) -> None:
    mark(stand, NA)
    live(stand, 31)
    os.rename(stand.house.data, stand.house.data + ".away")
    with pytest.raises(RequestRefusedError):
        stand.service.sweep()
    os.rename(stand.house.data + ".away", stand.house.data)
    assert sweep(stand) == [NA]


def test_the_operator_sees_what_is_marked_and_which_brakes_are_off(tmp_path: str) -> None:
    stand = Stand(str(tmp_path))
    hire(stand.service, stand.tenant, delete_budget_percent=100)
    put(stand.node, A)
    mark(stand, NA)
    [row] = stand.provider.status()["deletions"]
    assert (row["marked"], row["marked_bytes"], row["unbraked"]) == (1, SMALL, ["budget"])
    assert row["first_ns"] == marks(stand).first_ns
