"""Providers that are reached through one machine alone are out of reach with it, and a tenant hears of that in time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from replicator.catalog.objects import ObjectRow
from replicator.endpoints import via
from replicator.engine.alarms import alarms_of
from replicator.engine.node import NodeHome
from replicator.engine.placing import Ground, pack_id, peer_id
from replicator.engine.status import DatasetStatus, Status
from replicator.engine.ways import Relay, behind, fallen_with, relays
from replicator.engine.why import explain
from replicator.ids import Identity, ObjectName, short
from replicator.pack import packer
from tests.fakes import SeededRng
from tests.scenarios.world import PROMISE, World, write

ELSEWHERE = Identity(bytes(range(32)))


def relayed(world: World, number: int, *by: Identity, also: tuple[str, ...] = ()) -> None:
    """Let a provider say that it is reached through these relays, or ``also`` elsewhere."""
    world.opened[number].change_offer(endpoints=[*also, *(via(one, "relay.example:7144") for one in by)])


@contextmanager
def node_of(world: World) -> Iterator[NodeHome]:
    node = world.node()
    try:
        yield node
    finally:
        node.close()


def only(found: Status) -> DatasetStatus:
    [one] = found.datasets
    return one


def codes(found: Status) -> set[str]:
    return {one.code for one in alarms_of(found)}


async def test_a_backup_that_is_reached_through_one_machine_alone_is_warned_of_by_its_name(
    worlds: Callable[[int], World],
) -> None:
    world = worlds(3)
    alice, bob = world.identity(0), world.identity(1)
    policy = msgspec.structs.replace(PROMISE, copies=2, minimum=1, spread=["owner"])
    relayed(world, 1, alice)
    relayed(world, 2, ELSEWHERE, alice)
    world.silence(2)
    world.small_dataset(policy=policy)
    await world.backup()
    found = await world.status()
    one = only(found)
    assert (one.relays, one.state, found.exit_code) == (["alice"], "safe", 0), "nothing is lost"
    assert [text for text in one.warnings if "through 'alice' alone" in text]
    [alarm] = [alarm for alarm in alarms_of(found) if alarm.code == "data.one-relay"]
    assert "through alice alone" in alarm.what
    assert [(peer.name, peer.behind) for peer in found.peers][:2] == [("alice", []), ("bob", ["alice"])]
    with node_of(world) as node:
        pins = {pin.name: pin for pin in node.peers}
        assert fallen_with(node, pins["alice"]) == ["bob"]
        assert fallen_with(node, pins["bob"]) == []
        left = (await explain(node, world.edge, node.catalog.snapshots.all())).survives
        assert [line for line in left if "while alice is out of reach" in line]
    world.answer(2)
    await world.backup()
    found = await world.status()
    with node_of(world) as node:
        pins = {pin.name: pin for pin in node.peers}
        assert behind(node, pins["carol"]) == [f"{short(ELSEWHERE)} at relay.example", "alice"]
        assert fallen_with(node, pins["alice"]) == ["bob"], "carol has another way"
    # A copy that has another way, and a provider that can be dialled again, hang on nobody.
    relayed(world, 1, alice, also=("bob.example:1",))
    found = await world.status()
    assert only(found).relays == []
    assert "data.one-relay" not in codes(found)
    # Two behind a machine that is no provider here.
    for number in range(3):
        relayed(world, number, ELSEWHERE)
    found = await world.status()
    assert only(found).relays == [f"{short(ELSEWHERE)} at relay.example"]
    assert bob in {Identity(bytes.fromhex(peer.id)) for peer in found.peers if peer.behind}


async def test_what_lies_at_the_relay_alone_waits_for_no_relay(worlds: Callable[[int], World]) -> None:
    world = worlds(2)
    relayed(world, 1, world.identity(0))
    await world.status()
    with node_of(world) as node:
        alice, bob = (peer_id(world.identity(number)) for number in (0, 1))
        found = relays(node)
        falls = frozenset((world.identity(0), world.identity(1)))
        assert found == [Relay(identity=world.identity(0), name="alice", falls=falls)]
        row = ObjectRow(
            id=1,
            name=ObjectName(bytes(32)),
            writer=b"",
            kind="index",
            size=1,
            policy=b"",
            index_id=None,
            spooled=False,
            created_ns=0,
        )
        for holders, names in (
            ({alice}, []),
            ({bob}, ["alice"]),
            ({alice, bob}, ["alice"]),
            ({bob, peer_id(ELSEWHERE)}, []),
            (set(), []),
        ):
            ground = Ground(node, None, held={pack_id(row.name): holders})  # type: ignore[arg-type] # asks nobody
            assert [one.name for one in ground.hanging(found, [row])] == names


async def test_new_packs_are_placed_so_that_few_are_reached_through_one_machine_alone(
    worlds: Callable[[int], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packer, "MANY", 1)  # a pack for each file: many that are alike
    policy = msgspec.structs.replace(PROMISE, copies=2, minimum=1, spread=["owner"])
    kept = []
    for told in (True, False):
        world = worlds(8)
        if told:
            for number in (1, 2, 3):
                relayed(world, number, world.identity(0))
        await world.status()
        for number in range(40):
            write(f"{world.root}/source/{number}", SeededRng(str(number)).bytes(40_000))
        world.add_dataset("docs", f"{world.root}/source", policy=policy)
        await world.backup(overlap=False)
        for number in (1, 2, 3):
            relayed(world, number, world.identity(0))
        found = await world.status()
        assert (only(found).relays, only(found).state) == ([] if told else ["alice"], "safe")
        assert ("data.one-relay" in codes(found)) == (not told)
        kept.append([len(world.stored(number)) for number in range(8)])
        # What is stored stays, whoever is relayed by now, and is counted.
        done = await world.repair()
        assert (done.made, done.hanging > 0) == (0, not told)
    assert kept[0] == kept[1], "nobody holds more for it"
    assert sum(kept[0]) >= 80
