"""What a provider keeps of others' words: whose, how much, and who cannot push it out."""

from collections.abc import Iterator

import msgspec
import pytest

from replicator.crypto.sign import Context, SigningKey
from replicator.format.codec import encode
from replicator.format.offer import MAX_OFFER, MOST_ENDPOINTS, decode_offer, encode_offer
from replicator.ids import Identity, TenantId
from replicator.provider.told import Told, tell, told
from replicator.wire.messages import MAX_OFFERS, Empty, KnownOffer, Offers, OffersRequest
from tests.fakes import SeededRng
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import Tenant, settle

OTHER = SigningKey(SeededRng("other provider").bytes(32))


@pytest.fixture
def stand(tmp_path: str) -> Iterator[Stand]:
    found = Stand(str(tmp_path))
    yield found
    found.provider.close()


def offer(stand: Stand, number: int = 1, key: SigningKey = OTHER, **changes: object) -> bytes:
    values = {"provider_key": key.public, "number": number} | changes
    return key.sign(Context.OFFER, encode_offer(msgspec.structs.replace(stand.provider.offer(), **values)))


def swap(
    stand: Stand, *brought: bytes, known: dict[Identity, int] | None = None, tenant: Tenant | None = None
) -> Offers:
    session = stand.service.session((tenant or stand.tenant).node.public)
    listed = [KnownOffer(identity=identity, number=number) for identity, number in (known or {}).items()]
    found = stand.call("offers", OffersRequest(known=listed, offers=list(brought)), session)
    assert isinstance(found, Offers)
    return found


def number_of(stand: Stand, key: SigningKey = OTHER) -> int:
    """Which offer of another provider is handed on."""
    found = swap(stand, known={key.identity: 0}).offers
    return decode_offer(found[0][96:]).number if found else 0


def test_the_highest_number_is_handed_on_and_what_lacks_is_asked_for(stand: Stand) -> None:
    assert swap(stand, known={OTHER.identity: 3}).lacking == [OTHER.identity]
    swap(stand, offer(stand, 3))
    assert swap(stand, known={OTHER.identity: 3}) == Offers(
        incarnation=stand.service.incarnation, offers=[], lacking=[]
    )
    swap(stand, offer(stand, 2))
    assert swap(stand, known={OTHER.identity: 2}).offers == [offer(stand, 3)]
    swap(stand, offer(stand, 3, capacity=1))
    assert swap(stand, known={OTHER.identity: 2}).offers == [offer(stand, 3)], "of two with a number the first"


def test_one_tenants_news_is_anothers_and_nobody_pushes_anybody_out(stand: Stand) -> None:
    second = Tenant("second")
    settle(stand.provider, stand.service, second)
    swap(stand, offer(stand, 1))
    stand.clock.advance(1)
    swap(stand, offer(stand, 5), tenant=second)
    assert number_of(stand) == 5
    strangers = [SigningKey(SeededRng(f"stranger {n}").bytes(32)) for n in range(MAX_OFFERS)]
    stand.clock.advance(1)
    swap(stand, *(offer(stand, 9, key) for key in strangers), tenant=second)
    assert number_of(stand) == 1, "what the second had told gave way to its own strangers"
    assert all(number_of(stand, key) == 9 for key in strangers)
    stand.clock.advance(1)
    swap(stand, offer(stand, 2), tenant=second)
    assert [number_of(stand, key) for key in strangers].count(0) == 1, "the one told longest ago"


def test_a_tenant_that_is_erased_takes_along_what_it_told(stand: Stand) -> None:
    second = Tenant("second")
    settle(stand.provider, stand.service, second)
    swap(stand, offer(stand, 1))
    swap(stand, offer(stand, 5), tenant=second)
    stand.service.erase(second.erase_order())
    assert number_of(stand) == 1


@pytest.mark.parametrize("bad", ["forged", "other key", "too large", "too many addresses", "junk", "another's word"])
def test_nothing_is_kept_that_its_provider_did_not_sign_or_that_is_too_large(stand: Stand, bad: str) -> None:
    brought = {
        "forged": offer(stand)[:-1] + b"\x01",
        "other key": offer(stand, key=SigningKey(bytes(32)), provider_key=OTHER.public),
        "too large": offer(stand, endpoints=["x" * 250 + ":1"] * (MAX_OFFER // 250)),
        "too many addresses": offer(stand, endpoints=["a.example:1"] * (MOST_ENDPOINTS + 1)),
        "junk": b"junk",
        "another's word": OTHER.sign(Context.CLAIM, encode(Empty())),
    }[bad]
    assert refusal(lambda: swap(stand, brought)) == "bad-request"
    assert refusal(lambda: stand.service.announce(brought)) == "bad-request"
    assert number_of(stand) == 0


def test_who_is_known_may_announce_itself_and_who_is_not_may_not(stand: Stand) -> None:
    assert refusal(lambda: stand.service.announce(offer(stand, 7))) == "not-found"
    swap(stand, offer(stand, 2))
    stand.service.announce(offer(stand, 7, endpoints=["new.example:1"]))
    assert number_of(stand) == 7
    stand.service.announce(offer(stand, 6))
    stand.service.announce(offer(stand, 7))
    assert swap(stand, known={OTHER.identity: 6}).offers == [offer(stand, 7, endpoints=["new.example:1"])]
    own = stand.provider.key
    assert refusal(lambda: stand.service.announce(offer(stand, 99, own))) == "not-found", "its own is not for strangers"


def test_our_own_word_rises_above_a_later_one_and_stays_under_an_earlier(stand: Stand) -> None:
    own = stand.provider.key
    first = stand.provider.offer()
    swap(stand, offer(stand, 1, own))
    assert stand.provider.offer() == first, "the very same"
    stand.provider.change_offer(capacity=5)
    swap(stand, offer(stand, 1, own, capacity=77))
    assert stand.provider.offer().number == 2
    swap(stand, offer(stand, 40, own, capacity=77))
    assert (stand.provider.offer().number, stand.provider.offer().capacity) == (41, 5)
    assert swap(stand, known={own.identity: 40}).offers == [
        stand.service.session(stand.tenant.node.public).info().offer
    ]


def test_words_of_other_kinds_and_keys_stay_apart(stand: Stand) -> None:
    """As members of a group have them: several about one thing."""
    database = stand.service._core.database
    tenant = TenantId(stand.tenant.id)
    for kind, key, number in (("fact", b"a", 1), ("fact", b"b", 1), ("offer", b"", 4), ("fact", b"a", 2)):
        word = Told(about=b"g", key=key, number=number, signed=kind.encode() + key)
        database.write("t", lambda db, kind=kind, word=word: tell(db, tenant, kind, word, most=2, now_ns=word.number))  # type: ignore[misc] # bound now
    assert [(one.key, one.number) for one in told(database, "fact", b"g")] == [(b"a", 2), (b"b", 1)]
    assert [one.number for one in told(database, "offer", b"g")] == [4]
