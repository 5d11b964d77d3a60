"""Claims: a writer's set here, changed step by step, compared with the disk each time."""

import os

import pytest

from replicator.format.merkle import name_of
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import ClaimReply, Signed
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import SMALL, Tenant, data_object, enrol, put

A, B, C = (data_object(seed) for seed in (1, 2, 3))
NA, NB, NC = (bytes(name_of(data)) for data in (A, B, C))


def _claim(stand: Stand, number: int, names: list[bytes], **changes: object) -> ClaimReply:
    provider = changes.pop("by_provider", stand.service.identity)
    statement = stand.tenant.claim(provider, number, names, **changes)  # type: ignore[arg-type]
    answer = stand.call("claim", Signed(statement=statement))
    assert isinstance(answer, ClaimReply)
    return answer


def test_a_first_claim_names_the_whole_set_and_hears_what_is_missing(stand: Stand) -> None:
    put(stand.node, A)
    reply = _claim(stand, 1, [NA, NB])
    assert (reply.number, reply.missing) == (1, NB)
    assert reply.incarnation == stand.service.incarnation
    assert stand.node.info().claim == 1
    assert stand.keeper.info().claim == 0


def test_a_change_adds_and_drops_from_the_claim_before_it(stand: Stand) -> None:
    for data in (A, B, C):
        put(stand.node, data)
    _claim(stand, 1, [NA, NB])
    assert _claim(stand, 2, [NB, NC], base=1, added=[NC], dropped=[NA]).missing == b""
    assert _claim(stand, 3, [NC], base=2, added=[], dropped=[NB]).missing == b""


def test_a_change_is_compared_with_the_disk_for_the_whole_set(stand: Stand) -> None:
    for data in (A, B):
        put(stand.node, data)
    _claim(stand, 1, [NA])
    os.truncate(stand.house.file(stand.tenant, name_of(A)), SMALL - 1)
    assert _claim(stand, 2, [NA, NB], base=1, added=[NB]).missing == NA
    os.unlink(stand.house.file(stand.tenant, name_of(A)))
    assert _claim(stand, 3, [NA, NB], base=2, added=[]).missing == NA


def test_a_set_from_nothing_replaces_what_was_claimed(stand: Stand) -> None:
    put(stand.node, A)
    _claim(stand, 1, [NA, NB, NC])
    assert _claim(stand, 7, [NA]).missing == b""
    assert _claim(stand, 8, [NA, NB], base=7, added=[NB]).missing == NB


def test_the_same_claim_again_is_answered_again(stand: Stand) -> None:
    put(stand.node, A)
    first = _claim(stand, 1, [NA, NB])
    put(stand.node, B)
    again = _claim(stand, 1, [NA, NB])
    assert (first.missing, again.missing) == (NB, b"")


def test_a_claim_that_does_not_follow_ours_hears_which_one_we_have(stand: Stand) -> None:
    _claim(stand, 4, [NA])
    wrong = [
        stand.tenant.claim(stand.service.identity, 4, [NB]),
        stand.tenant.claim(stand.service.identity, 3, [NB]),
        stand.tenant.claim(stand.service.identity, 5, [NA, NB], base=3, added=[NB]),
        stand.tenant.claim(stand.service.identity, 6, [NA, NB], base=5, added=[NB]),
    ]
    for statement in wrong:
        with pytest.raises(RequestRefusedError, match="4") as caught:
            stand.node.claim(Signed(statement=statement))
        assert caught.value.code == "conflict"


def test_a_root_that_is_not_the_sets_is_a_conflict_for_a_change_and_nonsense_for_a_whole_set(stand: Stand) -> None:
    _claim(stand, 1, [NA])
    assert refusal(lambda: _claim(stand, 2, [NB, NC], base=1, added=[NB])) == "conflict"
    assert refusal(lambda: _claim(stand, 2, [NB], added=[NC])) == "bad-request"
    assert stand.node.info().claim == 1, "a refused claim left a trace"
    assert _claim(stand, 2, [NA, NB], base=1, added=[NB]).number == 2


def test_a_claim_of_another_tenant_writer_or_provider_is_refused(stand: Stand) -> None:
    other = Tenant("other")
    assert refusal(lambda: _claim(stand, 1, [NA], tenant=other.id)) == "bad-request"
    assert refusal(lambda: _claim(stand, 1, [NA], writer=other.node.identity)) == "bad-request"
    assert refusal(lambda: _claim(stand, 1, [NA], by_provider=other.node.identity)) == "bad-request"
    assert refusal(lambda: _claim(stand, 1, [NA], by=other.node)) == "bad-request"


def test_names_must_be_sorted_and_different(stand: Stand) -> None:
    low, high = sorted((NA, NB))
    for added in (high + low, low + low):
        assert refusal(lambda added=added: _claim(stand, 1, [low, high], added=[added])) == "bad-request"  # type: ignore[misc]
    assert refusal(lambda: _claim(stand, 1, [NA], dropped=[NB])) == "bad-request"


def test_a_claim_names_no_more_objects_than_could_fit(stand: Stand) -> None:
    tenant = Tenant("small")
    enrol(stand.provider, stand.service, tenant, quota=SMALL)
    names = [number.to_bytes(32, "big") for number in range(10_002)]
    session = stand.service.session(tenant.keeper.public)
    many = tenant.claim(stand.service.identity, 1, names, by=tenant.keeper)
    assert refusal(lambda: session.claim(Signed(statement=many))) == "quota"
    fewer = tenant.claim(stand.service.identity, 1, names[1:], by=tenant.keeper)
    assert len(session.claim(Signed(statement=fewer)).missing) == 32 * 10_001


def test_only_nodes_claim_once_there_is_a_charter(stand: Stand) -> None:
    statement = stand.tenant.claim(stand.service.identity, 1, [NA], by=stand.tenant.keeper)
    assert refusal(lambda: stand.keeper.claim(Signed(statement=statement))) == "forbidden"


def test_a_claim_with_a_broken_signature_is_refused(stand: Stand) -> None:
    statement = bytearray(stand.tenant.claim(stand.service.identity, 1, [NA]))
    statement[50] ^= 1
    assert refusal(lambda: stand.call("claim", Signed(statement=bytes(statement)))) == "bad-request"
