"""Whom a provider passes connections on to, where it says that it is reached itself, and what is counted."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from replicator.clock import DAY_S
from replicator.crypto.sign import Context, SigningKey
from replicator.endpoints import via
from replicator.errors import HomeError, UsageError
from replicator.format.codec import encode
from replicator.format.offer import MOST_ENDPOINTS, encode_offer
from replicator.format.relay import Waiting
from replicator.ids import Identity, address_form
from replicator.provider.home import Provider
from replicator.provider.relaying import MOST_A_MONTH, Relayed, relay_words, relayed_months
from replicator.provider.state import RelayState
from replicator.transport.handler import RequestRefusedError
from replicator.transport.patience import MAX_REASON
from replicator.wire.messages import OffersRequest
from tests.fakes import START_NS, SeededRng
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import House

HIDDEN = SigningKey(SeededRng("hidden").bytes(32))
RELAY = Identity(bytes(range(32)))
OTHER = Identity(bytes(range(1, 33)))


@pytest.fixture
def stand(tmp_path: str) -> Iterator[Stand]:
    found = Stand(str(tmp_path))
    yield found
    found.provider.close()


def word(stand: Stand, key: SigningKey = HIDDEN, relay: Identity | None = None, late_s: int = 0) -> bytes:
    asked_ns = stand.clock.now_ns() - late_s * 10**9
    waiting = Waiting(relay=relay or stand.service.identity, asked_ns=asked_ns)
    return key.sign(Context.WAITING, encode(waiting))


def allow(stand: Stand, *words: str) -> None:
    stand.provider.set_relay(words, None)
    stand.restart()


def test_who_is_named_is_relayed_by_its_own_word_of_now(stand: Stand) -> None:
    assert refusal(lambda: stand.service.relays(word(stand))) == "forbidden", "nobody was named"
    allow(stand, HIDDEN.identity.hex())
    assert stand.service.relays(word(stand)) == HIDDEN.identity
    assert stand.service.relays(word(stand, late_s=899)) == HIDDEN.identity
    for bad in (
        word(stand, late_s=901),
        word(stand, late_s=-901),
        word(stand, relay=RELAY),
        word(stand, stand.tenant.node),
    ):
        assert refusal(lambda bad=bad: stand.service.relays(bad)) == "forbidden"  # type: ignore[misc] # bound now
    assert refusal(lambda: stand.service.relays(word(stand)[:-1] + b"\x01")) == "forbidden"
    for junk in (b"", bytes(96), bytes(5000)):
        with pytest.raises(RequestRefusedError):
            stand.service.relays(junk)


def test_members_are_those_that_a_tenant_here_also_uses(stand: Stand) -> None:
    allow(stand, "members")
    assert refusal(lambda: stand.service.relays(word(stand))) == "forbidden"
    values = {"provider_key": HIDDEN.public, "number": 1}
    offer = HIDDEN.sign(Context.OFFER, encode_offer(replace(stand.provider.offer(), **values)))
    stand.call("offers", OffersRequest(known=[], offers=[offer]))
    assert stand.service.relays(word(stand)) == HIDDEN.identity


def test_words_are_kept_in_one_form() -> None:
    named = address_form(RELAY)
    assert relay_words(["members", RELAY.hex(), named.upper(), named]) == ("members", named)
    assert relay_words(["nobody"]) == ()
    for bad in (["nobody", "members"], ["everybody"], [""]):
        with pytest.raises(UsageError):
            relay_words(bad)


def test_what_was_passed_on_is_counted_by_month(stand: Stand) -> None:
    stand.service.relayed(HIDDEN.identity, 100)
    stand.service.relayed(HIDDEN.identity, 11)
    stand.service.tick()
    stand.service.relayed(HIDDEN.identity, 1)
    stand.clock.advance(31 * DAY_S)
    stand.service.tick()
    found = [(one["provider"], one["connections"], one["bytes"]) for one in stand.provider.status()["relayed"]]
    assert found == [(address_form(HIDDEN.identity), 1, 1), (address_form(HIDDEN.identity), 2, 111)]
    database = stand.service._core.database
    counts = Relayed()
    for month in range(30):
        counts.passed(HIDDEN.identity, 1)
        counts.write_down(database, stand.clock.now_ns() + month * 31 * DAY_S * 10**9)
    assert len(relayed_months(database)) == 24
    for number in range(MOST_A_MONTH + 8):
        counts.passed(Identity(number.to_bytes(32, "big")), number)
    counts.write_down(database, stand.clock.now_ns() + 29 * 31 * DAY_S * 10**9)
    rows = relayed_months(database)
    newest = [one for one in rows if one.month == rows[0].month]
    assert len(newest) == MOST_A_MONTH
    assert min(one.moved for one in newest) == 8, "of those that moved least nothing stays"


@pytest.fixture
def provider(tmp_path: str) -> Iterator[Provider]:
    made = House(str(tmp_path)).init(listen="192.0.2.1:7144")
    yield made
    made.close()


def test_who_waits_at_a_relay_is_reached_there_and_nowhere_else(provider: Provider) -> None:
    relays = [f"relay.example:7144/{address_form(RELAY)}", f"other.example:1/{address_form(OTHER)}"]
    provider.set_via(relays)
    provider.listening_on("192.0.2.1:7144")
    assert provider.offer().endpoints == ["192.0.2.1:7144"], "it has not waited yet"
    with pytest.raises(HomeError, match="has not waited there yet"):
        provider.invite(quota=1, label="")
    way, second = via(RELAY, "relay.example:7144"), via(OTHER, "other.example:1")
    provider.reached_via(RELAY, [way])
    assert provider.offer().endpoints == [way]
    assert provider.invite(quota=1, label="")
    number = provider.offer().number
    provider.reached_via(RELAY, [way])
    provider.listening_on("192.0.2.1:7144")
    assert provider.offer().number == number, "nothing is new"
    provider.reached_via(OTHER, [second])
    moved = via(RELAY, "moved.example:7144")
    provider.reached_via(RELAY, [moved])
    assert provider.offer().endpoints == [second, moved]
    provider.set_via(["nobody"])
    provider.listening_on("192.0.2.1:7144")
    assert provider.offer().endpoints == ["192.0.2.1:7144"]


def test_since_when_a_relay_is_lost_is_kept_for_whoever_looks(provider: Provider, tmp_path: str) -> None:
    first, second = f"relay.example:7144/{address_form(RELAY)}", f"other.example:1/{address_form(OTHER)}"
    provider.set_via([first, second])
    assert provider.relays() == (RelayState(address=first), RelayState(address=second))
    provider.relay_lost(RELAY, START_NS, "no answer\nin time " + "x" * 999)
    provider.relay_lost(RELAY, START_NS + 1, "barred")
    provider.relay_lost(OTHER, START_NS + 2, "no answer\nin time " + "x" * 999)
    again = House(str(tmp_path)).open()
    try:
        shown = {row["id"]: row for row in again.status()["relays"]}
        assert (shown[first]["lost_ns"], shown[first]["reason"]) == (START_NS, "barred"), "the first day, the last why"
        assert "--relay-for" in shown[first]["todo"]
        assert len(shown[second]["reason"]) == MAX_REASON
        assert "\n" not in shown[second]["reason"]
        assert not again.state().dialled
        again.relay_found(OTHER)
        assert again.status()["relays"][1] == {"id": second, "lost_ns": 0, "reason": "", "todo": ""}
    finally:
        again.close()
    provider.set_via([second])
    provider.set_via([first])
    assert provider.relays() == (RelayState(address=first),), "no old day of one that was let go of meanwhile"
    provider.advertise(["lan.example:7144"])
    assert provider.state().dialled


def test_what_is_advertised_stays_beside_a_relay_and_comes_first(provider: Provider) -> None:
    provider.set_via([f"relay.example:7144/{address_form(RELAY)}"])
    provider.advertise(["lan.example:7144"])
    way = via(RELAY, "relay.example:7144")
    provider.reached_via(RELAY, [way])
    provider.listening_on("192.0.2.1:7144")
    assert provider.offer().endpoints == ["lan.example:7144", way]
    provider.advertise(["new.example:7144"])
    assert provider.offer().endpoints == ["new.example:7144", way]
    provider.reached_via(OTHER, [via(OTHER, f"h{n}.example:1") for n in range(9)])
    assert len(provider.offer().endpoints) == MOST_ENDPOINTS


@pytest.mark.parametrize(
    "bad", ["relay.example:7144", "nowhere", f"via:{address_form(RELAY)}@a:1/{address_form(OTHER)}"]
)
def test_a_relay_is_an_address_with_an_identity_that_is_dialled_itself(provider: Provider, bad: str) -> None:
    with pytest.raises(UsageError):
        provider.set_via([bad])
    assert provider.via == ()
