"""Claims: a writer's set here, changed step by step, compared with the disk part by part."""

import os

import pytest
from hypothesis import given, settings, strategies

from replicator.format.merkle import name_of
from replicator.ids import ObjectName
from replicator.provider.claims import PART, ROUND, _changed, part_of
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


def test_a_change_of_a_small_set_is_compared_with_the_disk_for_the_whole_of_it(stand: Stand) -> None:
    for data in (A, B):
        put(stand.node, data)
    _claim(stand, 1, [NA])
    os.truncate(stand.house.file(stand.tenant, name_of(A)), SMALL - 1)
    assert _claim(stand, 2, [NA, NB], base=1, added=[NB]).missing == NA
    os.unlink(stand.house.file(stand.tenant, name_of(A)))
    assert _claim(stand, 3, [NA, NB], base=2, added=[]).missing == NA


def _names(count: int, first: int = 0) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(first, first + count)]


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 2999, 5000, 130_001])
def test_the_parts_of_as_many_claims_in_a_row_are_the_whole_set_once(count: int) -> None:
    names = b"".join(_names(count))
    parts = [part_of(names, number) for number in range(7, 7 + max(1, min(ROUND, count // PART)))]
    assert b"".join(sorted(parts)) == names
    assert max(len(part) for part in parts) <= 32 * max(2 * PART, count // ROUND + 1)


def test_a_change_of_a_large_set_looks_at_what_it_adds_and_at_its_turn(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.provider.claims.PART", 1)
    monkeypatch.setattr("replicator.provider.claims.ROUND", 3)
    large = sorted(name_of(data) for data in (data_object(seed) for seed in range(30, 36)))
    for seed in range(30, 36):
        put(stand.node, data_object(seed))
    _claim(stand, 1, [bytes(name) for name in large])
    for name in large:
        os.unlink(stand.house.file(stand.tenant, name))
    told = [_claim(stand, number, list(large), base=number - 1, added=[]).missing for number in (2, 3, 4)]
    assert [len(run) // 32 for run in told] == [2, 2, 2]
    assert b"".join(sorted(told)) == b"".join(large)
    everything = sorted([*large, NC])
    assert _claim(stand, 5, everything, base=4, added=[NC]).missing.count(NC) == 1


def test_after_a_retirement_and_in_a_new_incarnation_a_change_looks_at_all(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.provider.claims.PART", 1)
    absent = _names(9)
    _claim(stand, 1, absent)
    assert len(_claim(stand, 2, absent, base=1, added=[]).missing) == 32
    database = stand.provider._database
    database.write("retired", lambda connection: connection.execute("UPDATE claims SET retired = 1"))
    assert _claim(stand, 3, absent, base=2, added=[]).missing == b"".join(absent)
    database.write("old", lambda connection: connection.execute("UPDATE claims SET incarnation = x'00'"))
    assert _claim(stand, 4, absent, base=3, added=[]).missing == b"".join(absent)
    assert _claim(stand, 4, absent, base=3, added=[]).missing == b"".join(absent), "an answer that got lost"


@given(data=strategies.data())
@settings(max_examples=60, deadline=None)
def test_a_chain_of_changes_is_what_sets_make_of_it(data: strategies.DataObject) -> None:
    everything = _names(12)
    subset = strategies.sets(strategies.sampled_from(everything))
    before = sorted(data.draw(subset))
    added, dropped = sorted(data.draw(subset)), sorted(data.draw(subset))
    after, fresh, gone = _changed(b"".join(before), _of(added), _of(dropped))
    wanted = (set(before) - set(dropped)) | set(added)
    assert after == b"".join(sorted(wanted))
    assert fresh == sorted(wanted - set(before))
    assert gone == sorted(set(before) - wanted)


def _of(names: list[bytes]) -> list[ObjectName]:
    return [ObjectName(name) for name in names]


def test_what_is_remembered_of_a_set_is_what_the_rows_say(stand: Stand) -> None:
    """With and without the memory of recent sets, which a restart clears, the next claim is taken."""
    held = _names(20)
    _claim(stand, 1, held)
    for number, restart in ((2, False), (3, True), (4, False), (5, True)):
        if restart:
            stand.restart()
        gone, fresh = held[number], _names(1, 100 * number)
        held = sorted({*held, *fresh} - {gone})
        _claim(stand, number, held, base=number - 1, added=fresh, dropped=[gone])
        rows = stand.provider._database.rows("SELECT name FROM claimed ORDER BY name")
        assert [name for (name,) in rows] == held


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
