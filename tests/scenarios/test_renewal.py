"""A node's write key is put in the place of another: nothing is sent again, nothing loses its claim."""

import dataclasses
import os
import shutil

import pytest

from replicator.catalog.snapshots import Dataset
from replicator.crypto.sign import Context, SigningKey
from replicator.engine import retain
from replicator.engine.browse import newest_of_each
from replicator.engine.dismissed import dismissed_packs
from replicator.engine.federation import Federation
from replicator.engine.forgetting import Forgotten
from replicator.engine.members import accept_grant, add_node, request_renewal, revoke
from replicator.engine.node import NodeHome
from replicator.engine.placing import objects_of
from replicator.engine.publish import pending
from replicator.errors import IntegrityError, KeyMissingError, UsageError
from replicator.format.codec import encode
from replicator.format.codes import read_code, write_code
from replicator.format.keybag import Renewal
from replicator.fs import PosixFs
from replicator.ids import Identity
from replicator.snapshot.retention import KeepRules
from tests.compare import Rules, compare
from tests.crashfs import Crash, CrashFs
from tests.scenarios.conftest import Worlds
from tests.scenarios.joining import joined, keeping, opened
from tests.scenarios.test_forgetting import keep, library_of
from tests.scenarios.test_prune import changing_nights
from tests.scenarios.test_pruning import days_pass, marked_at, pruned
from tests.scenarios.world import World, write


async def granted(world: World, home: str | None = None) -> str:
    """Let the keeper sign a node's request for another key; return the grant."""
    code = request_renewal(home or world.home, world.edge)
    with keeping(world) as (keeper, siblings):
        return (await add_node(keeper, siblings, world.edge, code)).code


async def renewed(world: World, home: str | None = None) -> None:
    """Give a node another key."""
    accept_grant(home or world.home, world.edge, await granted(world, home))


def claimed(world: World, writer: Identity, number: int = 0) -> set[bytes]:
    """Return what a writer claims at a provider."""
    rows = world.opened[number]._database.rows("SELECT name FROM claimed WHERE writer = ?", (writer,))
    return {name for (name,) in rows}


def identity(world: World) -> Identity:
    node = world.node()
    try:
        return node.identity
    finally:
        node.close()


async def test_the_node_goes_on_and_sends_nothing_again(world: World, source: str) -> None:
    await world.backup()
    former = identity(world)
    before = {number: claimed(world, former, number) for number in range(5)}
    await renewed(world)
    assert identity(world) != former
    report = await world.backup()
    assert report.datasets[0].published
    assert report.notices == []
    node = world.node()
    kinds = [row.kind for row in node.catalog.objects.all() if row.created_ns == world.clock.now_ns()]
    node.close()
    assert "data" not in kinds, "what was stored under the former key is relied on"
    for number in range(5):
        assert before[number] <= claimed(world, identity(world), number), "a claim was lost"
    assert await world.differences(source) == []
    snapshots = await world.snapshots()
    assert [one.node for one in snapshots] == ["testhost", "testhost"]
    assert len({one.snapshot.writer for one in snapshots}) == 2
    assert newest_of_each(snapshots) == snapshots[1:], "one node with one dataset, whatever its keys were"
    write(os.path.join(source, "more"), b"more" * 1000)
    assert (await world.backup()).datasets[0].published
    assert await world.differences(source) == []
    assert (await world.status()).exit_code == 0


async def test_the_former_key_has_no_right_anywhere_and_opens_nothing_newer(world: World, source: str) -> None:
    home = await joined(world, "node", "barn")
    stolen = opened(home, "node")
    await renewed(world, home)
    async with Federation(stolen, world.edge) as federation:
        assert len(federation.failures) == 5
        assert all("revoked" in str(error) for error in federation.failures.values())
    node = opened(home, "node")
    async with Federation(node, world.edge) as federation:
        assert len(federation.links) == 5
    assert sorted(node.keys().index_keys) == [1, 2]
    assert sorted(stolen.keys().index_keys) == [1]
    node.close()
    stolen.close()


def known_objects(world: World) -> set[tuple[bytes, str]]:
    """Return name and kind of what the node's catalog knows."""
    node = world.node()
    try:
        return {(bytes(row.name), row.kind) for row in node.catalog.objects.all()}
    finally:
        node.close()


async def test_what_waited_to_be_published_is_published_under_the_new_key(world: World, source: str) -> None:
    await world.backup()
    write(os.path.join(source, "more"), b"more" * 100_000)
    grant = await granted(world)
    world.silence(0, 1, 2, 3, 4)
    await world.backup()
    node = world.node()
    assert len(pending(node)) == 1
    node.close()
    world.answer(0, 1, 2, 3, 4)
    elsewhere = os.path.join(world.root, "spool on another disk")
    shutil.move(os.path.join(world.home, "node", "spool"), elsewhere)
    rows = known_objects(world)
    accept_grant(world.home, world.edge, grant, spool_path=elsewhere)
    kept = known_objects(world)
    assert {kind for _, kind in rows - kept} <= {"snapshot", "index", "references"}, "packs stay for the next snapshot"
    shutil.move(elsewhere, os.path.join(world.home, "node", "spool"))
    report = await world.backup()
    assert report.datasets[0].published
    assert await world.differences(source) == []
    node = world.node()
    assert node.spool().names() == []
    node.close()


async def test_a_lost_catalog_takes_back_what_the_former_key_made(world: World, source: str) -> None:
    await world.backup()
    await renewed(world)
    await world.backup()
    for name in os.listdir(os.path.join(world.home, "node")):
        if name.startswith("catalog.db"):
            os.unlink(os.path.join(world.home, "node", name))
    before = claimed(world, identity(world))
    write(os.path.join(source, "more"), b"more" * 1000)
    assert (await world.backup()).datasets[0].published
    node = world.node()
    assert {row.writer for row in node.catalog.objects.all()} == {node.identity}
    node.close()
    missing = before - claimed(world, identity(world))
    assert sorted(k for k in missing) == []
    assert before <= claimed(world, identity(world))
    assert await world.differences(source) == []


async def test_a_key_that_was_renewed_can_be_renewed_again(world: World, source: str) -> None:
    for _ in range(3):
        write(os.path.join(source, world.rng.bytes(4).hex()), b"x" * 5000)
        assert (await world.backup()).datasets[0].published
        await renewed(world)
    assert (await world.backup()).datasets[0].published
    assert await world.differences(source) == []
    keeper = world.keeper()
    rights = [one for one in keeper.charter.charter.rights if one.role == "node"]
    keeper.close()
    assert [one.revoked for one in rights] == [True, True, True, False]


async def test_asking_twice_and_granting_twice_changes_nothing_more(world: World) -> None:
    assert request_renewal(world.home, world.edge) == request_renewal(world.home, world.edge)
    await granted(world)
    keeper = world.keeper()
    number = keeper.charter.number
    keeper.close()
    grant = await granted(world)
    keeper = world.keeper()
    assert keeper.charter.number == number
    keeper.close()
    accept_grant(world.home, world.edge, grant)
    assert "renewal.json" not in os.listdir(os.path.join(world.home, "node"))


async def test_stopped_anywhere_the_node_works_with_one_key_or_is_given_the_other(
    world: World, source: str, fresh: str
) -> None:
    await world.backup()
    grant = await granted(world)
    world.close()
    outcomes = set()
    for step in range(60):
        one = world.copy(os.path.join(fresh, f"step-{step}"), seed=f"step {step}")
        fs = CrashFs(os.path.join(fresh, f"graveyard-{step}"))
        former = identity(one)
        edge = dataclasses.replace(one.edge, fs=fs)
        fs.stop_at(step)
        try:
            accept_grant(one.home, edge, grant)
        except Crash:
            stopped = True
        else:
            stopped = False
        if stopped:
            fs.power_loss(keep=lambda _: False, torn=False)
        fs.close()
        outcomes.add(identity(one) == former)
        if stopped:
            accept_grant(one.home, one.edge, grant)
        assert identity(one) != former
        node = one.node()
        assert {row.writer for row in node.catalog.objects.all()} == {node.identity}
        assert all(not node.catalog.peers.get(Identity(pin.identity)).claim_number for pin in node.peers)
        node.close()
        one.close()
        if not stopped:
            break
    assert step > 3
    assert outcomes == {True, False}


async def test_prune_waits_for_the_former_key_no_more_and_deletes_nothing_that_is_needed(world: World) -> None:
    copies = await changing_nights(world, 4)
    former = identity(world)
    await renewed(world)
    await world.backup()
    await keep(world, KeepRules(last=2))
    report = await pruned(world)
    assert (report.exit_code, report.plan.gaps) == (0, [])
    assert len(report.retired) > 0
    assert days_pass(world) > 10
    left = await world.snapshots()
    assert [one.snapshot.writer for one in left] == [former, identity(world)]
    for one in left:
        target = os.path.join(world.root, "restored", one.id)
        found = await world.restore(target, one.id)
        assert (found.lost, found.damaged) == ([], [])
        assert compare(copies[4], os.path.join(target, "docs"), Rules(owners=os.geteuid() == 0)) == []
    assert (await world.backup()).datasets[0].published
    assert (await world.status()).integrity == []


async def test_the_node_lets_go_of_nothing_that_a_snapshot_of_its_former_key_needs_which_maintenance_had_not_read(
    worlds: Worlds,
) -> None:
    world = worlds(4)
    copies = await changing_nights(world, 4)
    path = os.path.join(world.root, "source", "docs")
    shutil.copy2(os.path.join(copies[2], "new"), os.path.join(path, "new"))
    world.silence(0, 1)
    await world.backup("docs")  # the keeper never hears of it
    world.answer(0, 1)
    former = identity(world)
    node = world.node()
    needed = {row.name for row in objects_of(node, node.catalog.snapshots.all("number = 5"))}
    node.close()
    shutil.copy2(os.path.join(copies[4], "new"), os.path.join(path, "new"))
    await renewed(world)
    assert (await world.backup("docs")).datasets[0].published
    world.silence(2, 3)
    await keep(world, KeepRules(last=1))
    assert (await pruned(world)).plan.gaps == []
    node = world.node()
    assert Forgotten.of(node).view == {former: 4, node.identity: 1}
    assert dismissed_packs(node) == set()
    node.close()
    for number in (0, 1):
        assert not needed & marked_at(world, number)


class TestRefused:
    async def test_a_request_that_the_key_so_far_did_not_sign(self, world: World) -> None:
        code = request_renewal(world.home, world.edge)
        thief = SigningKey(bytes(31) + b"t")
        outer = read_code("renewal", code)
        forged = write_code("renewal", outer[:32] + thief.sign(Context.RENEWAL, outer[96:])[32:])
        with keeping(world) as (keeper, siblings), pytest.raises(IntegrityError, match="does not hold"):
            await add_node(keeper, siblings, world.edge, forged)
        stranger = write_code("renewal", thief.sign(Context.RENEWAL, outer[96:]))
        with keeping(world) as (keeper, siblings), pytest.raises(UsageError, match="no right of a node"):
            await add_node(keeper, siblings, world.edge, stranger)

    async def test_one_of_another_tenants_node(self, world: World) -> None:
        node = world.node()
        inner = read_code("renewal", request_renewal(world.home, world.edge))
        renewal = Renewal(tenant=bytes(16), request=inner[96 + 20 :])
        code = write_code("renewal", node.signing.sign(Context.RENEWAL, encode(renewal)))
        node.close()
        with keeping(world) as (keeper, siblings), pytest.raises(IntegrityError, match="another tenant"):
            await add_node(keeper, siblings, world.edge, code)

    async def test_one_of_a_node_that_was_shut_out(self, world: World) -> None:
        home = await joined(world, "node", "stolen")
        code = request_renewal(home, world.edge)
        with keeping(world) as (keeper, siblings):
            await revoke(keeper, siblings, world.edge, "stolen")
            with pytest.raises(UsageError, match="no right of a node"):
                await add_node(keeper, siblings, world.edge, code)

    async def test_a_grant_whose_charter_does_not_give_it_the_right(self, world: World) -> None:
        code = request_renewal(world.home, world.edge)
        home = await joined(world, "node", "other")
        assert home
        with pytest.raises(KeyMissingError):
            request_renewal(os.path.join(world.root, "nowhere"), world.edge)
        assert code.startswith("rpl-renewal-")


def test_a_damaged_list_of_former_keys_is_named(world: World) -> None:
    write(os.path.join(world.home, "node", "formers.json"), b"[1")
    with pytest.raises(Exception, match=r"formers.json: damaged"):
        NodeHome(world.home, PosixFs())


async def test_rules_take_what_a_node_wrote_with_one_key_after_another_for_one_history(
    worlds: Worlds,
) -> None:
    world = worlds(3)
    await changing_nights(world, 3)
    await renewed(world)
    home = await joined(world, "node", "testhost")  # another machine that would have the same name
    other = opened(home, "node")
    assert isinstance(other, NodeHome)
    other.catalog.datasets.add(world_dataset(world))
    other.close()
    await world.backup("docs", home=home)
    for _ in range(2):
        world.clock.advance(86400)
        await world.backup("docs")
    before = await world.snapshots()
    assert [one.row.number for one in before] == [1, 2, 3, 1, 1, 2]
    await keep(world, KeepRules(last=3))
    assert [one.id for one in await world.snapshots()] == [one.id for one in before[2:]]
    async with library_of(world) as library:
        await retain.by_name(library, world.edge, [before[2].id])  # it is not the last good one of this node
        with pytest.raises(UsageError, match="the last good one"):
            await retain.by_name(library, world.edge, [before[3].id])


def world_dataset(world: World) -> Dataset:
    node = world.node()
    try:
        return node.catalog.datasets.get("docs")
    finally:
        node.close()
