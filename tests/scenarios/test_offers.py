"""Addresses are not identities: who moved is found again through anybody who heard, and through nobody's lie."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import pytest

from replicator.catalog.peers import PeerRow
from replicator.crypto.sign import Context, SigningKey
from replicator.engine.federation import Federation
from replicator.format.codec import decode, encode
from replicator.format.offer import MAX_OFFER, encode_offer
from replicator.ids import Identity
from replicator.transport.handler import RequestRefusedError, Session
from replicator.wire.messages import Offers, OffersRequest
from tests.fakes import SeededRng
from tests.scenarios.joining import joined
from tests.scenarios.liars import Liar
from tests.scenarios.world import World

OLD, NEW = "alice.example:7144", "new.example:7144"
Lie = Callable[[World], list[bytes]]


@dataclass
class Met:
    """What came of meeting everybody."""

    reached: set[Identity]
    notices: list[str]
    integrity: list[str]
    problems: list[str]
    row: PeerRow
    """Of the first provider."""
    countries: set[str]

    def said(self, *words: str) -> list[str]:
        return [line for line in self.notices if all(word in line for word in words)]


async def meet(world: World, home: str | None = None) -> Met:
    node = world.node(home)
    try:
        async with Federation(node, world.edge) as federation:
            return Met(
                reached=set(federation.links),
                notices=list(federation.notices),
                integrity=list(federation.integrity),
                problems=[one for link in federation.links.values() for one in link.problems],
                row=node.catalog.peers.get(world.identity(0)),
                countries={pin.country for pin in node.peers},
            )
    finally:
        node.close()


def answer_at(world: World, *endpoints: str) -> None:
    world.network.addresses[world.identity(0)] = set(endpoints)


def offer_of(world: World, key: SigningKey | None = None, **changes: object) -> bytes:
    """An offer of the first provider with other fields, signed by it or by another key."""
    offer = msgspec.structs.replace(world.opened[0].offer(), **changes)
    return (key or world.opened[0].key).sign(Context.OFFER, encode_offer(offer))


async def test_who_moved_tells_its_peers_and_is_found_through_any_of_them(worlds: Callable[[int], World]) -> None:
    world = worlds(3)
    answer_at(world, OLD)
    assert len((await meet(world)).reached) == 3
    answer_at(world, NEW)
    world.opened[0].advertise([NEW])
    lost = await meet(world)
    assert world.identity(0) not in lost.reached, "nobody has heard yet"
    assert world.opened[0].announcements(world.network).announce() == 2
    world.silence(2)
    found = await meet(world)
    assert found.reached == {world.identity(0), world.identity(1)}
    assert len(found.said("alice", NEW, OLD, "bob handed it on")) == 1
    assert found.row.endpoints == (NEW,)
    again = await meet(world)
    assert again.reached == found.reached
    assert not again.said(NEW), "it is said once"


async def test_one_home_that_reaches_it_heals_the_others(worlds: Callable[[int], World]) -> None:
    world = worlds(3)
    other = await joined(world, "node", "barn")
    answer_at(world, OLD)
    await meet(world)
    await meet(world, other)
    answer_at(world, OLD, NEW)
    world.opened[0].advertise([NEW])
    direct = await meet(world)
    assert direct.said("alice", NEW)
    assert not direct.said("handed")
    answer_at(world, NEW)
    found = await meet(world, other)
    assert world.identity(0) in found.reached
    assert found.said("alice", NEW, "handed it on")


async def test_what_is_handed_on_changes_what_a_direct_contact_would_and_no_pin(worlds: Callable[[int], World]) -> None:
    world = worlds(3)
    await meet(world)
    world.opened[0].change_offer(country="NO", capacity=5, legal_name="Alice AB")
    world.opened[0].announcements(world.network).announce()
    world.silence(0)
    found = await meet(world)
    assert found.row.offer_number == 2
    assert found.row.offer == offer_of(world)
    assert found.countries == {"SE", "NO"}
    assert not found.said("handed"), "it is where it was"
    node = world.node()
    try:
        assert [pin.country for pin in node.peers if pin.name == "alice"] == ["SE"]
    finally:
        node.close()


def lying(world: World, offers: list[bytes]) -> None:
    """Let the second provider hand on what it likes."""

    def lie(session: Session, body: bytes) -> bytes:
        honest = decode(Offers, session.handle("offers", body))
        return encode(msgspec.structs.replace(honest, offers=offers))

    world.network.add(Liar(world.services[1], ops={"offers": lie}))


STRANGER = SigningKey(SeededRng("stranger").bytes(32))
LIES: dict[str, tuple[Lie, str, bool]] = {
    "forged": (lambda world: [offer_of(world, number=9)[:-1] + b"\x01"], "does not hold", True),
    "by another key": (lambda world: [offer_of(world, key=STRANGER, number=9, endpoints=[NEW])], "does not hold", True),
    "of a stranger": (
        lambda world: [offer_of(world, key=STRANGER, provider_key=STRANGER.public, number=9, endpoints=[NEW])],
        "nobody asked for",
        False,
    ),
    "rolled back": (lambda world: [offer_of(world, endpoints=[NEW])], "older offer of alice", False),
    "too large": (lambda _: [bytes(MAX_OFFER + 1)], "does not hold", True),
    "no offer": (lambda _: [b"", b"junk"], "does not hold", True),
    "a claim": (lambda world: [world.opened[0].key.sign(Context.CLAIM, b"offer")], "does not hold", True),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_relay_is_seen_and_does_nothing(lie: str, worlds: Callable[[int], World]) -> None:
    made, words, integrity = LIES[lie]
    world = worlds(3)
    answer_at(world, OLD)
    lies = made(world)
    world.opened[0].change_offer(capacity=7)
    before = (await meet(world)).row
    lying(world, lies)
    world.silence(0)
    found = await meet(world)
    assert (found.row.offer, found.row.endpoints) == (before.offer, before.endpoints)
    assert [one for one in found.problems if words in one]
    assert bool(found.integrity) == integrity
    world.answer(0)
    assert world.identity(0) in (await meet(world)).reached


async def test_a_fork_is_said_and_the_first_word_stays(worlds: Callable[[int], World]) -> None:
    world = worlds(3)
    before = (await meet(world)).row
    lying(world, [offer_of(world, endpoints=[NEW])])
    world.silence(0)
    found = await meet(world)
    assert found.said("alice", "two different offers of number 1")
    assert (found.row.offer, found.row.endpoints, found.integrity) == (before.offer, before.endpoints, [])


@pytest.mark.parametrize("number", [1, 9])
async def test_a_provider_that_forgot_what_it_said_signs_a_word_above_it(
    number: int, worlds: Callable[[int], World]
) -> None:
    """Put back from a copy it would not be believed any more, or be believed here and not there."""
    world = worlds(3)
    await meet(world)
    later = offer_of(world, number=number, capacity=12)
    node = world.node()
    row = node.catalog.peers.get(world.identity(0))
    node.catalog.peers.put(replace(row, offer=later, offer_number=number))
    node.close()
    assert (await meet(world)).row.offer_number == number + 1
    assert (world.opened[0].offer().number, world.opened[0].offer().capacity) == (number + 1, 10**10)


async def test_a_provider_of_an_earlier_release_is_not_complained_of(worlds: Callable[[int], World]) -> None:
    def unknown(_session: Session, _body: bytes) -> bytes:
        raise RequestRefusedError("bad-request", "no such operation")

    world = worlds(3)
    world.network.add(Liar(world.services[1], ops={"offers": unknown}))
    found = await meet(world)
    assert (len(found.reached), found.notices, found.problems) == (3, [], [])


async def test_a_provider_is_asked_once_when_nothing_is_new(worlds: Callable[[int], World]) -> None:
    world = worlds(3)
    asked: list[OffersRequest] = []

    def listen(session: Session, body: bytes) -> bytes:
        asked.append(decode(OffersRequest, body))
        return session.handle("offers", body)

    world.network.add(Liar(world.services[1], ops={"offers": listen}))
    world.opened[0].change_offer(capacity=7)
    await meet(world)
    assert [len(one.offers) for one in asked] == [0, 1], "it lacked that of the first"
    del asked[:]
    await meet(world)
    assert [(len(one.known), one.offers) for one in asked] == [(3, [])]
