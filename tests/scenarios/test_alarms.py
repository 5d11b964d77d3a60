"""What a home and its providers have to tell, as days go by and disks go bad."""

import os

import pytest

from replicator.catalog.objects import HoldingState
from replicator.cli import exits
from replicator.cli.base import Session
from replicator.cli.telling import OTHERWISE, REMEMBERED, alarms_now
from replicator.clock import DAY_S, HOUR_S
from replicator.engine.alarms import acknowledged_exit, alarms_of, standing
from replicator.engine.federation import Federation, get_whole
from replicator.engine.metrics import metrics_of
from replicator.engine.status import Status
from replicator.errors import IntegrityError
from replicator.format.codec import decode, encode
from replicator.ids import Identity, ObjectName
from replicator.notify.alarms import Alarm
from replicator.notify.metrics import exposition
from replicator.provider.alarms import alarms_of as provider_alarms
from replicator.provider.alarms import metrics_of as provider_metrics
from replicator.provider.alarms import standing as provider_standing
from replicator.transport.handler import Service
from replicator.wire.messages import ProveReply, ProveRequest
from tests.scenarios.liars import Liar, proving
from tests.scenarios.test_status import flip
from tests.scenarios.world import TOO_MUCH, World


async def now(world: World, *, offline: bool = True) -> tuple[Status, dict[str, Alarm]]:
    found = await world.status(offline=offline)
    alarms = alarms_of(found)
    assert len({one.key for one in alarms}) == len(alarms), "each is one thing"
    return found, {one.key: one for one in alarms}


async def test_what_is_well_rings_nothing(world: World, source: str) -> None:
    assert source
    await world.backup()
    found, alarms = await now(world)
    assert alarms == {}
    assert standing(found).startswith("Your data is safe as of 2040-")
    assert [provider_alarms(one.state()) for one in world.opened] == [[]] * 5


async def test_nothing_that_is_backed_up_is_no_alarm(world: World) -> None:
    found, alarms = await now(world)
    assert alarms == {}
    assert standing(found) == "Nothing is backed up from here."


async def test_silence_rings_on_both_sides(world: World, source: str) -> None:
    assert source
    await world.backup()
    world.silence(*range(5))
    await world.status()  # nobody answers it
    world.clock.advance(35 * HOUR_S)
    assert (await now(world))[1] == {}
    world.clock.advance(2 * HOUR_S)
    found, alarms = await now(world)
    assert set(alarms) == {"data.late dataset docs", *(f"peer.silent provider {one.name}" for one in found.peers)}
    assert "in 12 days its copies will count as lost" in alarms["peer.silent provider alice"].todo
    world.clock.advance(34 * HOUR_S)
    assert provider_alarms(world.opened[0].state()) == []
    world.clock.advance(3 * HOUR_S)
    found, alarms = await now(world)
    assert "data.stale dataset docs" in alarms
    assert "data.late dataset docs" not in alarms
    assert "stale; its backup of 2040" in standing(found)
    [silent] = provider_alarms(world.opened[0].state())
    assert (silent.code, silent.about) == ("tenant.silent", "tenant test")
    assert "for 3 days" in silent.what
    world.clock.advance(12 * DAY_S)
    assert "peer.lost provider bob" in (await now(world))[1]


async def test_a_node_that_asks_nobody_calls_nobody_silent(world: World, source: str) -> None:
    assert source
    await world.backup()
    world.clock.advance(20 * DAY_S)
    found, alarms = await now(world)
    assert set(alarms) == {"data.stale dataset docs"}
    assert not [one for one in found.advice if "ask after" in one]


async def test_a_provider_never_rings_for_who_has_stored_nothing(world: World) -> None:
    world.clock.advance(30 * DAY_S)
    assert provider_alarms(world.opened[0].state()) == []


async def test_friends_that_sleep_for_a_night_are_patiently_waited_for(world: World, source: str) -> None:
    assert source
    await world.backup()
    world.silence(1, 2, 3)
    await world.backup()
    _, alarms = await now(world)
    assert "data.below-minimum dataset docs" not in alarms
    assert all(one.kind.patience_s for one in alarms.values()), alarms
    world.answer(1, 2, 3)
    await world.backup()
    assert (await now(world))[1] == {}


async def test_a_promise_that_cannot_be_kept_is_said_once_it_stays(worlds: object) -> None:
    world: World = worlds(3)  # type: ignore[operator] # a fixture that makes worlds
    world.small_dataset(policy=TOO_MUCH)
    await world.backup()
    _, alarms = await now(world)
    assert set(alarms) == {"data.unpublished dataset docs"}
    assert alarms["data.unpublished dataset docs"].kind.patience_s > 0


async def test_damage_rings_and_known_damage_is_never_safe(world: World, source: str) -> None:
    assert source
    await world.backup()
    spoilt = world.stored(2, ["data", "tree"])
    for path in spoilt:
        flip(world, path)
    found, alarms = await now(world, offline=False)
    assert found.exit_code == 4
    assert alarms["data.damaged provider carol"].extent == len(spoilt) > 0
    assert "data.integrity" not in {one.code for one in alarms.values()}, "it has a name of its own"
    known = {"data.damaged provider carol"}
    assert acknowledged_exit(found, ()) == 4
    assert acknowledged_exit(found, known) == 3
    later, offline = await now(world)
    assert "data.damaged provider carol" in offline
    assert (later.exit_code, acknowledged_exit(later, known)) == (4, 3)
    found.integrity.append("dave: something else")
    assert acknowledged_exit(found, known) == 4, "what is not known still counts"
    await world.repair()
    assert "data.damaged provider carol" not in (await now(world))[1]


async def test_a_damaged_copy_that_a_reader_met_is_an_alarm_until_it_is_proved_good(world: World, source: str) -> None:
    assert source
    await world.backup()
    [name, *_] = [os.path.basename(path) for path in world.stored(2, ["index"])]
    liar = Liar(world.services[2], get=lambda *_: bytes(1 << 16))
    world.network.add(liar)
    node = world.node()
    try:
        async with Federation(node, world.edge) as federation:
            row = node.catalog.objects.by_name(bytes.fromhex(name))
            assert row is not None
            with pytest.raises(IntegrityError):
                await federation.ask(get_whole, ObjectName(row.name), federation.links[world.identity(2)])
            assert federation.noted == len(federation.integrity) == 1
            federation.integrity[:] = ["what was not noted, when that was dropped"]
            assert federation.noted == 0
    finally:
        node.close()
    found, alarms = await now(world)
    assert (found.exit_code, alarms["data.damaged provider carol"].extent) == (4, 1)
    lies = proving(lambda _session, body: encode(nothing_of(world.services[2], decode(ProveRequest, body))))
    liar.get, liar.ops = None, {"attest": lies["attest"]}
    assert "data.damaged provider carol" in (await now(world, offline=False))[1], "it is listed, which is no proof"
    world.network.add(world.services[2])
    assert "data.damaged provider carol" not in (await now(world, offline=False))[1]
    assert (await now(world))[0].exit_code == 0


@pytest.mark.parametrize("remembered", [False, True])
async def test_a_run_that_met_damage_rings_by_itself_only_for_what_is_remembered_nowhere_else(
    world: World, source: str, remembered: bool
) -> None:
    assert source
    await world.backup()
    found = await world.status(offline=True)
    node = world.node()
    try:
        number = node.catalog.log.begin("restore", world.clock.now_ns())
        document = {REMEMBERED: True} if remembered else {"damaged": "a chunk"}
        node.catalog.log.end(number, now_ns=world.clock.now_ns(), code=4, document=document)
        codes = [one.code for one in alarms_now(node, found)]
    finally:
        node.close()
    assert codes == ([] if remembered else ["data.integrity"])


async def test_what_else_went_wrong_rings_beside_damage_that_is_remembered(world: World, source: str) -> None:
    assert source
    await world.backup()
    found = await world.status(offline=True)
    session = Session()
    session.worsen(exits.INTEGRITY, remembered=True)
    session.worsen(exits.FAILED)
    assert (session.code, session.open_code) == (exits.INTEGRITY, exits.FAILED)
    node = world.node()
    try:
        number = node.catalog.log.begin("run", world.clock.now_ns())
        document = {REMEMBERED: True, OTHERWISE: session.open_code}
        node.catalog.log.end(number, now_ns=world.clock.now_ns(), code=session.code, document=document)
        assert [one.code for one in alarms_now(node, found)] == ["run.failed"]
    finally:
        node.close()
    session.worsen(exits.INTEGRITY)
    assert session.open_code == exits.INTEGRITY, "other damage is remembered nowhere else"


async def test_what_is_damaged_where_no_provider_is_rings_nothing(world: World, source: str) -> None:
    assert source
    await world.backup()
    node = world.node()
    try:
        rows: dict[int, HoldingState] = {row.id: "damaged" for row in node.catalog.objects.all("kind = 'index'")}
        node.catalog.objects.set_states(Identity(bytes(32)), rows, incarnation=b"", now_ns=world.clock.now_ns())
    finally:
        node.close()
    found, alarms = await now(world)
    assert (found.exit_code, alarms) == (0, {})


def nothing_of(service: Service, request: ProveRequest) -> ProveReply:
    return ProveReply(incarnation=service.incarnation, proofs=[None] * len(request.leaves))


async def test_damage_at_one_more_provider_is_not_known(world: World, source: str) -> None:
    assert source
    await world.backup()
    for number in (1, 2):
        for path in world.stored(number, ["tree"]):
            flip(world, path)
    found, _ = await now(world, offline=False)
    if len([one for one in found.peers if one.damaged]) == 2:
        assert acknowledged_exit(found, {"data.damaged provider carol"}) == 4
    assert acknowledged_exit(found, {f"data.damaged provider {one.name}" for one in found.peers}) == 3


async def test_what_was_marked_is_remembered_for_those_who_ask_nobody(world: World, source: str) -> None:
    assert source
    await world.backup()
    found = await world.status()
    assert found.deletions_ns == world.clock.now_ns()
    asked_ns = found.deletions_ns
    world.clock.advance(60)
    assert (await world.status(offline=True)).deletions_ns == asked_ns
    await world.repair()
    assert (await world.status(offline=True)).deletions_ns == world.clock.now_ns()


async def test_the_disk_that_is_gone_rings_and_loses_nothing(world: World, source: str) -> None:
    assert source
    await world.backup()
    os.rename(world.data(0), world.data(0) + ".away")
    state = world.opened[0].state()
    [alarm] = provider_alarms(state)
    assert alarm.code == "provider.unmounted"
    assert "cannot be reached" in provider_standing(state)
    os.rename(world.data(0) + ".away", world.data(0))
    assert provider_alarms(world.opened[0].state()) == []


async def test_metrics_have_no_names_of_files_and_say_how_things_stand(world: World, source: str) -> None:
    assert source
    await world.backup()
    node = world.node()
    try:
        number = node.catalog.log.begin("backup", world.clock.now_ns())
        node.catalog.log.end(number, now_ns=world.clock.now_ns(), code=0, document={})
        found = await world.status(offline=True)
        text = exposition(metrics_of(node, found, [], world.clock.now_ns()))
    finally:
        node.close()
    assert 'replicator_dataset_copies{dataset="docs"} 3' in text
    assert 'replicator_dataset_debt_objects{dataset="docs"} 0' in text
    assert 'replicator_run_last_success_seconds{run="backup"} ' in text
    assert "replicator_safe 1" in text
    assert "letter" not in text
    assert "photos" not in text
    given = exposition(provider_metrics(world.opened[0].state()))
    assert "replicator_provider_mounted 1" in given
    assert f'replicator_provider_tenant_used_bytes{{tenant="{world.tenant_id.hex()}"}} ' in given
    assert "test" not in given, "an operator's notes stay here"
