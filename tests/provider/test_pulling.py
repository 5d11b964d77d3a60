"""Who may fetch what from whom: every way to be told no, at the source and at the one that fetches."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
import pytest

from replicator.clock import DAY_S, NS, SKEW_S
from replicator.crypto.sign import Context, SigningKey, verify
from replicator.format.charter import Right
from replicator.format.claim import Receipt
from replicator.format.codec import decode, encode
from replicator.format.merkle import name_of
from replicator.format.offer import encode_offer
from replicator.format.permit import Permit, Pickup
from replicator.ids import ObjectName, TenantId
from replicator.provider.pulling import AGAIN_S, AT_ONCE, EACH, Errand, Pulls
from replicator.provider.service import ProviderService
from replicator.transport.handler import RequestRefusedError, Upload
from replicator.transport.memory import MemoryNetwork
from replicator.wire.messages import EnrolRequest, PullReply, PullRequest
from tests.fakes import SeededRng
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import MIB, SMALL, House, Tenant, data_object, publish_charter, put, right, settle

DATA = data_object(1)
NAME = name_of(DATA)
OTHER = data_object(2)


class Pair:
    """A source that holds an object of a tenant, and a provider of the same tenant that is to fetch it."""

    def __init__(self, path: str) -> None:
        self.source = Stand(f"{path}/source")
        put(self.source.node, DATA)
        put(self.source.node, OTHER)
        self.tenant: Tenant = self.source.tenant
        self.clock = self.source.clock
        self.house = House(f"{path}/puller", clock=self.clock, rng=SeededRng("puller"))
        self.provider = self.house.init()
        self.network = MemoryNetwork(self.source.service)
        self.service: ProviderService = self.provider.start(self.network, lambda work: work())
        settle(self.provider, self.service, self.tenant)

    def permit(self, by: SigningKey | None = None, **changes: Any) -> bytes:
        now_ns = self.clock.now_ns()
        values: dict[str, Any] = {
            "tenant": self.tenant.id,
            "source": self.source.service.identity,
            "puller": self.service.identity,
            "names": NAME,
            "offset": 0,
            "length": 0,
            "issued_ns": now_ns,
            "expires_ns": now_ns + 3600 * NS,
        }
        return (by or self.tenant.node).sign(Context.PERMIT, encode(Permit(**(values | changes))))

    def pickup(self, permit: bytes | None = None, by: SigningKey | None = None, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "permit": permit or self.permit(),
            "source": self.source.service.identity,
            "name": NAME,
            "offset": 0,
            "length": 0,
            "asked_ns": self.clock.now_ns(),
        }
        return (by or self.provider.key).sign(Context.PICKUP, encode(Pickup(**(values | changes))))

    def give(self, permit: bytes | None = None, by: SigningKey | None = None, **changes: Any) -> bytes:
        tenant, data = self.source.service.give(self.pickup(permit, by, **changes))
        assert tenant == self.tenant.id
        return data

    def offer(self, key: SigningKey | None = None, **changes: Any) -> bytes:
        """The source's offer; with a key, one that this key signs."""
        if key is None and not changes:
            return self.source.service.session(self.tenant.node.public).info().offer
        signer = key or self.source.provider.key
        offer = msgspec.structs.replace(self.source.provider.offer(), **changes)
        return signer.sign(Context.OFFER, encode_offer(offer))

    def request(self, **changes: Any) -> PullRequest:
        values: dict[str, Any] = {"name": NAME, "size": len(DATA), "permit": self.permit(), "offer": self.offer()}
        return PullRequest(**(values | changes))

    def pull(self, by: SigningKey | None = None, **changes: Any) -> PullReply:
        session = self.service.session((by or self.tenant.node).public)
        return decode(PullReply, session.handle("pull", encode(self.request(**changes))))

    def govern(self, service: ProviderService, *rights: Right) -> None:
        keeper = right(self.tenant.keeper, "keeper")
        charter = self.tenant.charter([keeper, *rights], keybag=name_of(data_object(7)))
        publish_charter(service.session(self.tenant.keeper.public), charter)

    @property
    def used(self) -> int:
        return self.service.session(self.tenant.node.public).info().used

    def held(self) -> bool:
        return self.service.session(self.tenant.node.public).get(NAME) == DATA


@pytest.fixture
def pair(tmp_path: str) -> Iterator[Pair]:
    found = Pair(str(tmp_path))
    yield found
    found.provider.close()
    found.source.provider.close()


def test_an_object_is_fetched_verified_and_receipted_as_if_it_was_put(pair: Pair) -> None:
    before = pair.used
    reply = pair.pull()
    assert reply.failed is None
    receipt = decode(Receipt, verify(reply.receipt, Context.RECEIPT, [pair.provider.key.public]))
    assert (receipt.name, receipt.size, receipt.incarnation) == (NAME, SMALL, pair.service.incarnation)
    assert receipt.lock_until_ns == pair.clock.now_ns() + 30 * DAY_S * NS
    assert pair.held()
    assert pair.used == before + SMALL
    assert pair.network.given == {pair.source.service.identity: SMALL}


def test_what_is_here_already_is_not_fetched_again(pair: Pair) -> None:
    put(pair.service.session(pair.tenant.node.public), DATA)
    assert pair.pull().receipt
    assert pair.network.given == {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"source": bytes(32)}, "for another provider"),
        ({"puller": bytes(32)}, "another's"),
        ({"names": name_of(OTHER)}, "other objects"),
        ({"tenant": bytes(16)}, "may not read here"),
        ({"length": 65536, "offset": 65536}, "another range"),
        ({"by": "stranger"}, "may not read here"),
        ({"by": "puller"}, "may not read here"),
        ({"by": "revoked"}, "revoked"),
        ({"issued_ns": 0, "expires_ns": 1}, "not of now"),
        ({"issued_ns": 2**61, "expires_ns": 2**61}, "not of now"),
        ({"expires_ns": 2**61}, "longer than a day"),
    ],
)
def test_a_permit_of_anything_else_opens_nothing(pair: Pair, change: dict[str, Any], why: str) -> None:
    signers = {"stranger": SigningKey(SeededRng("x").bytes(32)), "puller": pair.provider.key}
    said = dict(change)
    who = said.pop("by", "")
    assert pair.give() == DATA
    if who == "revoked":
        pair.govern(pair.source.service, right(pair.tenant.node, "node", revoked=True))
    with pytest.raises(RequestRefusedError, match=why):
        pair.give(pair.permit(signers.get(who), **said))


def test_a_permit_in_other_hands_is_worth_nothing(pair: Pair) -> None:
    permit = pair.permit()
    thief = SigningKey(SeededRng("thief").bytes(32))
    assert refusal(lambda: pair.give(permit, thief)) == "forbidden"
    assert refusal(lambda: pair.give(permit, pair.tenant.node)) == "forbidden"
    assert refusal(lambda: pair.give(permit, name=name_of(OTHER))) == "forbidden"
    assert pair.give(permit) == DATA


def test_forged_and_altered_permits_and_pickups_are_refused(pair: Pair) -> None:
    permit = pair.permit()
    for at in (0, 40, 100, len(permit) - 1):
        bad = permit[:at] + bytes([permit[at] ^ 1]) + permit[at + 1 :]
        assert refusal(lambda bad=bad: pair.give(bad)) in ("forbidden", "bad-request")  # type: ignore[misc] # bound now
    pickup = pair.pickup(permit)
    for at in (0, 40, 100, len(pickup) - 1):
        bad = pickup[:at] + bytes([pickup[at] ^ 1]) + pickup[at + 1 :]
        assert refusal(lambda bad=bad: pair.source.service.give(bad)) in ("forbidden", "bad-request")  # type: ignore[misc] # bound now
    for junk in (b"", bytes(96), bytes(5000), permit):
        assert refusal(lambda junk=junk: pair.source.service.give(junk)) in ("forbidden", "bad-request")  # type: ignore[misc] # bound now


def test_a_pickup_is_good_at_the_source_it_names_and_for_a_while(pair: Pair) -> None:
    old = pair.pickup(pair.permit(expires_ns=pair.clock.now_ns() + 20 * 3600 * NS))
    assert pair.source.service.give(old)[1] == DATA
    pair.clock.advance(SKEW_S - 1)
    assert pair.source.service.give(old)[1] == DATA, "an answer that was lost may be asked for again"
    pair.clock.advance(2)
    assert refusal(lambda: pair.source.service.give(old)) == "forbidden"
    assert refusal(lambda: pair.give(source=pair.service.identity)) == "forbidden"
    elsewhere = pair.pickup(pair.permit())
    put(pair.service.session(pair.tenant.node.public), DATA)
    assert refusal(lambda: pair.service.give(elsewhere)) == "forbidden", "replayed at another holder"


def test_clocks_may_differ_by_a_quarter_of_an_hour(pair: Pair) -> None:
    now_ns = pair.clock.now_ns()
    for issued, expires, good in (
        (-3600, -SKEW_S, True),
        (-3600, -SKEW_S - 1, False),
        (SKEW_S, 3600, True),
        (SKEW_S + 1, 3600, False),
    ):
        permit = pair.permit(issued_ns=now_ns + issued * NS, expires_ns=now_ns + expires * NS)
        if good:
            assert pair.give(permit) == DATA
        else:
            assert refusal(lambda permit=permit: pair.give(permit)) == "forbidden"  # type: ignore[misc] # bound now


def test_a_permit_for_a_range_gives_that_range(pair: Pair) -> None:
    data = data_object(5, 4 * MIB)
    put(pair.source.node, data)
    permit = pair.permit(names=name_of(data), offset=MIB, length=2 * MIB)
    assert pair.give(permit, name=name_of(data), offset=2 * MIB, length=MIB) == data[2 * MIB : 3 * MIB]
    for offset, length in ((0, MIB), (2 * MIB, 2 * MIB), (0, 0), (MIB, 0)):
        work = lambda at=offset, size=length: pair.give(permit, name=name_of(data), offset=at, length=size)  # noqa: E731
        assert refusal(work) == "forbidden"
    assert refusal(lambda: pair.pull(name=name_of(data), size=len(data), permit=permit)) == "forbidden"


def test_who_asks_for_a_pull_signed_the_permit_and_may_write_here(pair: Pair) -> None:
    assert refusal(lambda: pair.pull(permit=pair.permit(pair.tenant.keeper))) == "forbidden"
    drill = SigningKey(SeededRng("drill").bytes(32))
    pair.govern(pair.service, right(pair.tenant.node, "node"), right(drill, "drill"))
    pair.service.enrol(EnrolRequest(holder_key=drill.public, secret=b"", order=pair.tenant.order(drill), root=b""))
    assert refusal(lambda: pair.pull(drill, permit=pair.permit(drill))) == "forbidden"
    assert not pair.network.given


@pytest.mark.parametrize(
    "change",
    [{"puller": bytes(32)}, {"source": bytes(32)}, {"tenant": bytes(16)}, {"names": name_of(OTHER)}, {"length": 65536}],
)
def test_a_pull_goes_only_where_its_permit_sends_it(pair: Pair, change: dict[str, Any]) -> None:
    assert refusal(lambda: pair.pull(permit=pair.permit(**change))) == "forbidden"
    assert not pair.network.given


def test_addresses_come_from_the_source_alone(pair: Pair) -> None:
    """Who asks cannot send a provider to an address that no holder of the source's key named."""
    stranger = SigningKey(SeededRng("x").bytes(32))
    inside = ["169.254.169.254:80"]
    for offer in (
        pair.offer(stranger, endpoints=inside),
        pair.offer(stranger, endpoints=inside, provider_key=stranger.public),
        pair.offer()[:-1] + bytes([pair.offer()[-1] ^ 1]),
        b"",
    ):
        assert refusal(lambda offer=offer: pair.pull(offer=offer)) in ("forbidden", "bad-request")  # type: ignore[misc] # bound now
    own = msgspec.structs.replace(pair.provider.offer(), endpoints=inside)
    mine = pair.provider.key.sign(Context.OFFER, encode_offer(own))
    permit = pair.permit(source=pair.service.identity)
    assert refusal(lambda: pair.pull(offer=mine, permit=permit)) == "forbidden", "from itself"
    assert not pair.network.given


def test_a_source_that_gives_other_bytes_leaves_nothing_behind(pair: Pair) -> None:
    class Wrong:
        identity = pair.source.service.identity

        def give(self, _pickup: bytes) -> tuple[TenantId, bytes]:
            return TenantId(pair.tenant.id), OTHER

    pair.network.add(Wrong())  # type: ignore[arg-type] # only what is asked of it
    before = pair.service.session(pair.tenant.node.public).info()
    assert pair.pull().failed == "wrong bytes"
    after = pair.service.session(pair.tenant.node.public).info()
    assert (after.used, after.free) == (before.used, before.free)
    pair.network.add(pair.source.service)
    assert pair.pull().receipt, "and the next pull succeeds"


def test_why_it_failed_is_one_word_whatever_the_source_says(pair: Pair) -> None:
    pair.network.remove(pair.source.service.identity)
    assert pair.pull().failed == "unreachable"
    pair.network.add(pair.source.service)
    missing = data_object(9)
    reply = pair.pull(name=name_of(missing), permit=pair.permit(names=name_of(missing)))
    assert reply.failed == "refused"


def test_a_pull_is_refused_as_a_put_is(pair: Pair) -> None:
    assert refusal(lambda: pair.pull(size=SMALL + 1)) == "bad-request"
    pair.govern(pair.service, right(pair.tenant.node, "node", quota=1))
    assert refusal(pair.pull) == "quota"


def test_pulls_run_beside_are_asked_for_again_and_few_at_a_time(pair: Pair) -> None:
    waiting: list[Callable[[], None]] = []
    pair.service.stop()
    pair.service = pair.provider.start(pair.network, waiting.append)
    many = [data_object(20 + at) for at in range(EACH + 1)]
    names = [name_of(data) for data in many]
    for data in many:
        put(pair.source.node, data)

    def ask(name: ObjectName) -> PullReply:
        return pair.pull(name=name, permit=pair.permit(names=name))

    for name in names[:EACH]:
        assert ask(name).after_s == AGAIN_S
        assert ask(name).after_s == AGAIN_S
    assert len(waiting) == EACH
    assert refusal(lambda: ask(names[-1])) == "busy"
    for work in waiting:
        work()
    for name in names[:EACH]:
        assert ask(name).receipt
    assert ask(names[-1]).after_s == AGAIN_S


def test_one_tenant_leaves_a_place_to_the_others(pair: Pair) -> None:
    waiting: list[Callable[[], None]] = []
    pulls = Pulls(pair.network, pair.provider.key, lambda: 0, waiting.append)
    errand = Errand(
        permit=b"", offer=pair.source.provider.offer(), source=pair.source.service.identity, name=NAME, size=1
    )
    tenants = [TenantId(bytes([at]) * 16) for at in range(AT_ONCE)]

    def begin(tenant: TenantId, at: int) -> None:
        pulls.begin((tenant, ObjectName(bytes([at]) * 32)), errand, lambda: cast("Upload", None))

    for at in range(EACH):
        begin(tenants[0], at)
    assert refusal(lambda: begin(tenants[0], EACH)) == "busy"
    for tenant in tenants[1 : 1 + AT_ONCE - EACH]:
        begin(tenant, 0)
    assert refusal(lambda: begin(tenants[-1], 0)) == "busy"
    assert len(waiting) == AT_ONCE


def test_outside_of_its_hours_a_source_gives_nothing_large_to_others(pair: Pair) -> None:
    data = data_object(5, 4 * MIB)
    put(pair.source.node, data)
    pair.source.provider.set_hours(window="10:00-11:00", zone="UTC", streams=None)
    pair.source.restart()
    pair.network.add(pair.source.service)
    permit = pair.permit(names=name_of(data))
    assert refusal(lambda: pair.give(permit, name=name_of(data))) == "busy"
    assert pair.source.node.get(name_of(data)) == data, "a restore does not ask for the hour"
    assert pair.give() == DATA, "nor does what is small"


def test_a_source_that_is_busy_is_not_one_that_cannot_be_reached(pair: Pair) -> None:
    data = data_object(5, 4 * MIB)
    put(pair.source.node, data)
    pair.source.provider.set_hours(window="10:00-11:00", zone="UTC", streams=None)
    pair.source.restart()
    pair.network.add(pair.source.service)
    permit = pair.permit(names=name_of(data))
    assert pair.pull(name=name_of(data), size=len(data), permit=permit).failed == "busy"


def test_one_that_is_stopping_begins_nothing_and_keeps_no_room_for_it(pair: Pair) -> None:
    pair.service.stop()
    pair.service = pair.provider.start(pair.network)
    session = pair.service.session(pair.tenant.node.public)
    before = session.info().free
    pair.service._core.pulls.stop()  # type: ignore[union-attr]
    assert refusal(pair.pull) == "unavailable"
    assert refusal(pair.pull) == "unavailable", "it is not under way either"
    assert session.info().free == before


def test_who_fetches_from_nobody_says_so(pair: Pair) -> None:
    pair.service.stop()
    pair.service = pair.provider.start()
    assert refusal(pair.pull) == "forbidden"


def test_what_nobody_came_back_for_is_no_answer_to_another_request(pair: Pair) -> None:
    """A receipt of last month is for an object that may have been deleted since."""
    waiting: list[Callable[[], None]] = []
    pair.service.stop()
    pair.service = pair.provider.start(pair.network, waiting.append)
    assert pair.pull().after_s == AGAIN_S
    waiting.pop()()
    assert pair.held()
    pair.clock.advance(40 * DAY_S)
    later = pair.pull()
    receipt = decode(Receipt, verify(later.receipt, Context.RECEIPT, [pair.provider.key.public]))
    assert receipt.received_ns == pair.clock.now_ns()


def test_why_one_source_failed_is_not_said_of_the_next(pair: Pair) -> None:
    waiting: list[Callable[[], None]] = []
    pair.service.stop()
    pair.service = pair.provider.start(pair.network, waiting.append)
    pair.network.remove(pair.source.service.identity)
    assert pair.pull().after_s == AGAIN_S
    waiting.pop()()
    pair.network.add(pair.source.service)
    pair.clock.advance(60)
    assert pair.pull().after_s == AGAIN_S, "a request of its own"
    waiting.pop()()
    assert pair.pull().receipt
