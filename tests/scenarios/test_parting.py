"""What a provider that is no peer any more holds: freed there if nobody needs it, and taken back in time."""

import os

from replicator.engine.members import remove_peer
from replicator.engine.parting import PROVED_S, Parting, free_what_it_holds, in_words, look_at_parting
from replicator.errors import UnreachableError
from replicator.format.charter import PeerPin
from replicator.format.codec import decode, encode
from replicator.ids import Identity, short
from replicator.provider.session import ProviderSession
from replicator.transport.handler import Session
from replicator.transport.memory import Phase
from replicator.wire.messages import ProveReply, ProveRequest
from tests.scenarios.joining import keeping
from tests.scenarios.liars import Liar, proving
from tests.scenarios.test_pruning import days_pass, marked_at
from tests.scenarios.test_rebalance import move
from tests.scenarios.test_repair import holders, say
from tests.scenarios.world import World


async def part(world: World, number: int) -> tuple[Parting, PeerPin]:
    """`peer remove NAME`."""
    with keeping(world) as (keeper, siblings):
        pin = next(one for one in keeper.peers if one.identity == world.identity(number))
        found = await look_at_parting(keeper, world.edge, pin)
        if found.unproved:
            return found, pin
        await remove_peer(keeper, siblings, world.edge, pin.name)
        if not found.stays:
            await free_what_it_holds(keeper, world.edge, pin, found)
    return found, pin


async def emptied(world: World) -> int:
    """Have copies made elsewhere of all that one provider holds; return its number."""
    await world.backup()
    number = holders(world)[0]
    await say(world, number, "draining")
    assert (await move(world)).exit_code == 0
    return number


async def test_what_a_removed_peer_holds_is_freed_where_every_promise_holds_without_it(
    world: World, source: str
) -> None:
    number = await emptied(world)
    lying = set(os.listdir(world.objects(number)))
    others = {one: set(os.listdir(world.objects(one))) for one in range(5) if one != number}
    found, _ = await part(world, number)
    assert (found.stays, found.objects) == ("", len(lying))
    kept = lying - {name.hex() for name in marked_at(world, number)}
    assert found.marked == len(lying) - len(kept)
    assert len(kept) == 2, "the charter that is in force there, and its keybag"
    days_pass(world)
    assert set(os.listdir(world.objects(number))) == kept
    assert all(before <= set(os.listdir(world.objects(one))) for one, before in others.items())
    assert await world.differences(source) == []


async def test_what_a_removed_peer_holds_stays_while_a_promise_stands_on_it(world: World, source: str) -> None:
    await world.backup()
    number = holders(world)[0]
    found, pin = await part(world, number)
    assert "fewer copies than promised" in found.stays
    assert found.short
    assert not any(one.proved for one in found.short)
    assert f"({short(found.short[0].name)} first)" in in_words(pin, found, dry_run=False)
    assert not marked_at(world, number)


async def test_what_a_removed_peer_holds_stays_while_a_record_has_too_few_other_copies(
    world: World, source: str
) -> None:
    number = await emptied(world)
    node = world.node()
    [index, *_] = node.catalog.objects.all("kind = 'index'")
    node.close()
    for other in range(world.providers):
        if other != number:
            os.unlink(os.path.join(world.objects(other), index.name.hex()))
    found, _ = await part(world, number)
    assert found.stays == "1 object would have fewer copies than promised without it"
    assert [(one.name, one.below, one.proved) for one in found.short] == [(index.name, True, False)]
    assert not marked_at(world, number)


def name_of(world: World, number: int) -> str:
    with keeping(world) as (keeper, _):
        return next(one.name for one in keeper.peers if one.identity == world.identity(number))


def asked_for_proofs(world: World, number: int) -> list[ProveRequest]:
    """Write down what one provider is asked to prove from now on."""
    asked: list[ProveRequest] = []

    def note(session: Session, body: bytes) -> bytes:
        asked.append(decode(ProveRequest, body))
        assert isinstance(session, ProviderSession)
        return session.handle("attest", body)

    world.network.add(Liar(world.services[number], ops={"attest": note}))
    return asked


async def test_what_another_lists_and_cannot_show_is_no_copy_to_part_on(world: World, source: str) -> None:
    number = await emptied(world)
    [other, *_] = [one for one in holders(world) if one != number]

    def nothing(_session: Session, body: bytes) -> bytes:
        request = decode(ProveRequest, body)
        return encode(ProveReply(incarnation=world.services[other].incarnation, proofs=[None] * len(request.leaves)))

    world.network.add(Liar(world.services[other], ops={"attest": proving(nothing)["attest"]}))
    found, pin = await part(world, number)
    assert found.disproved
    assert {one.peer for one in found.unproved} == {name_of(world, other)}
    assert "cannot show" in in_words(pin, found, dry_run=False)
    with keeping(world) as (keeper, _):  # what it lists again is no better for that
        again = await look_at_parting(keeper, world.edge, pin)
        assert "damaged" in again.stays
        assert again.short == found.short
        assert {one.name for one in again.short} <= {one.name for one in found.unproved}
        assert (again.unsure, {one.below for one in again.short}, {one.proved for one in again.short}) == (
            *(True, {False}, {True}),
        )
    assert not marked_at(world, number)
    world.network.add(world.services[other])
    found, _ = await part(world, number)
    assert (found.stays, found.unproved) == ("", [])
    assert found.marked


async def test_who_gives_no_proofs_now_is_waited_for_before_a_provider_is_parted_with(
    world: World, source: str
) -> None:
    number = await emptied(world)
    [other, *_] = [one for one in holders(world) if one != number]

    def mute(identity: Identity, op: str, phase: Phase) -> None:
        if op == "attest" and phase == "before" and identity == world.identity(other):
            raise UnreachableError("it", "the line is gone")

    world.network.faults = mute
    found, pin = await part(world, number)
    assert found.unproved
    assert not found.disproved
    assert "no proof in time" in in_words(pin, found, dry_run=True)
    assert not marked_at(world, number)
    await say(world, number, "gone")  # nobody is kept to a provider that the tenant has given up
    found, _ = await part(world, number)
    assert found.unproved == []
    assert "too few other copies that were proved" in found.stays
    assert not marked_at(world, number)


async def test_what_was_proved_within_a_week_is_not_asked_for_again_to_part(world: World, source: str) -> None:
    number = await emptied(world)
    others = [one for one in holders(world) if one != number]
    asked = {one: asked_for_proofs(world, one) for one in others}

    async def look() -> None:
        with keeping(world) as (keeper, _):
            pin = next(one for one in keeper.peers if one.identity == world.identity(number))
            assert (await look_at_parting(keeper, world.edge, pin)).stays == ""

    await look()
    first = {one: sum(len(request.leaves) for request in requests) for one, requests in asked.items()}
    assert all(first.values())
    await look()
    assert first == {one: sum(len(request.leaves) for request in requests) for one, requests in asked.items()}
    world.clock.advance(PROVED_S + 1)
    await look()
    assert {one: 2 * count for one, count in first.items()} == {
        one: sum(len(request.leaves) for request in requests) for one, requests in asked.items()
    }


async def test_a_peer_that_is_taken_back_in_time_loses_nothing(world: World, source: str) -> None:
    number = await emptied(world)
    await part(world, number)
    assert marked_at(world, number)
    await world.add_peer(world.opened[number])
    days_pass(world, 5)
    await world.repair()
    await world.backup()
    node = world.node()
    claimed = {
        row.name for row in node.catalog.objects.all() if row.id in node.catalog.objects.claimed(world.identity(number))
    }
    node.close()
    assert claimed
    assert not claimed & marked_at(world, number)
    days_pass(world)
    assert {name.hex() for name in claimed} <= set(os.listdir(world.objects(number)))
