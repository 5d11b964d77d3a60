"""Witnessed heads: numbers rise, chains hold, and forks are kept as evidence."""

import os
import sqlite3
from contextlib import closing

import pytest

from replicator.charter.verify import signed_hash
from replicator.crypto.sign import Context, SigningKey, body_of, verify
from replicator.format.claim import Shown, Standing, Witness
from replicator.format.codec import decode, encode
from replicator.provider.heads import MAX_FORKS
from replicator.wire.messages import MAX_TESTIMONY, Chain, ChainRequest, Empty, Heads, HeadsRequest, Signed
from replicator.wire.messages import Testimony as Told  # pytest takes what begins with "Test" for tests
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import Tenant


def _head(stand: Stand, signed: bytes) -> Witness:
    answer = stand.call("head", Signed(statement=signed))
    assert isinstance(answer, Signed)
    return decode(Witness, verify(answer.statement, Context.WITNESS, [stand.provider.key.public]))


def _heads(stand: Stand) -> Heads:
    return stand.node.heads(HeadsRequest(challenge=bytes(32)))


def _chain(tenant: Tenant, length: int) -> list[bytes]:
    heads = [tenant.head(1)]
    while len(heads) < length:
        heads.append(tenant.head(len(heads) + 1, signed_hash(heads[-1])))
    return heads


def test_a_chain_is_witnessed_head_by_head(stand: Stand) -> None:
    for number, signed in enumerate(_chain(stand.tenant, 3), 1):
        stand.clock.advance(10)
        witness = _head(stand, signed)
        assert (witness.number, witness.head) == (number, signed_hash(signed))
        assert (witness.tenant, witness.writer) == (stand.tenant.id, stand.tenant.node.identity)
        assert witness.seen_ns == stand.clock.now_ns()
        assert witness.incarnation == stand.service.incarnation
        assert _heads(stand).heads == [signed]


def test_the_same_head_again_is_witnessed_with_the_time_it_was_first_seen(stand: Stand) -> None:
    first = _head(stand, stand.tenant.head(1))
    stand.clock.advance(60)
    assert _head(stand, stand.tenant.head(1)) == first


def test_a_provider_may_join_late_or_have_been_away(stand: Stand) -> None:
    chain = _chain(stand.tenant, 9)
    _head(stand, chain[4])
    _head(stand, chain[8])
    assert _heads(stand).heads == [chain[8]]


def test_an_older_number_hears_the_one_we_have(stand: Stand) -> None:
    chain = _chain(stand.tenant, 3)
    _head(stand, chain[2])
    assert refusal(lambda: _head(stand, chain[0])) == "conflict"
    assert _heads(stand).heads == [chain[2]]
    assert _heads(stand).forks == []


def test_two_heads_of_one_number_are_a_fork_and_both_are_kept(stand: Stand) -> None:
    ours, theirs = stand.tenant.head(1), stand.tenant.head(1, snapshot=b"\x01" * 32)
    _head(stand, ours)
    assert refusal(lambda: _head(stand, theirs)) == "fork"
    assert refusal(lambda: _head(stand, theirs)) == "fork"
    found = _heads(stand)
    assert found.heads == [ours]
    assert found.forks == [(ours, theirs)]


def test_a_next_head_that_does_not_name_ours_is_a_fork_too(stand: Stand) -> None:
    ours, next_of_other = stand.tenant.head(1), stand.tenant.head(2, b"\x07" * 32)
    _head(stand, ours)
    assert refusal(lambda: _head(stand, next_of_other)) == "fork"
    assert _heads(stand).forks == [(ours, next_of_other)]


def test_a_writer_cannot_fill_the_disk_with_forks(stand: Stand) -> None:
    _head(stand, stand.tenant.head(1))
    for seed in range(1, MAX_FORKS + 4):
        assert refusal(lambda s=seed: _head(stand, stand.tenant.head(1, snapshot=bytes([s]) * 32))) == "fork"  # type: ignore[misc]
    assert len(_heads(stand).forks) == MAX_FORKS


def test_a_head_of_someone_else_is_refused(stand: Stand) -> None:
    other = Tenant("other")
    assert refusal(lambda: _head(stand, other.head(1))) == "bad-request"
    foreign = stand.tenant.node.sign(Context.HEAD, body_of(other.head(1)))
    assert refusal(lambda: _head(stand, foreign)) == "bad-request"
    claim = stand.tenant.node.sign(Context.CLAIM, body_of(stand.tenant.head(1)))
    assert refusal(lambda: _head(stand, claim)) == "bad-request"
    assert refusal(lambda: stand.keeper.head(Signed(statement=stand.tenant.head(1)))) == "forbidden"


def test_heads_survive_a_restart(stand: Stand) -> None:
    head = stand.tenant.head(1)
    _head(stand, head)
    stand.restart()
    assert _heads(stand).heads == [head]


# what is kept of a chain, and signed


def _page(stand: Stand, before: int = 0, limit: int = 100) -> Chain:
    answer = stand.call("chain", ChainRequest(writer=stand.tenant.node.identity, before=before, limit=limit))
    assert isinstance(answer, Chain)
    return answer


def test_every_head_that_was_witnessed_is_kept_and_given_out_newest_first(stand: Stand) -> None:
    chain = _chain(stand.tenant, 5)
    for signed in (chain[0], chain[1], chain[3], chain[4]):
        _head(stand, signed)
    stand.restart()
    assert (_page(stand).heads, _page(stand).more) == ([chain[4], chain[3], chain[1], chain[0]], False)
    assert (_page(stand, limit=2).heads, _page(stand, limit=2).more) == ([chain[4], chain[3]], True)
    assert _page(stand, before=4, limit=2).heads == [chain[1], chain[0]]
    assert (_page(stand, before=1).heads, _page(stand, before=1).more) == ([], False)


def test_a_database_of_an_earlier_build_keeps_its_newest_heads(stand: Stand) -> None:
    chain = _chain(stand.tenant, 2)
    _head(stand, chain[0])
    stand.service.stop()
    stand.provider.close()
    path = os.path.join(stand.house.home, "provider", "provider.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP TABLE witnessed; DROP TABLE testimony; DROP INDEX idx_objects_arrival; "
            "ALTER TABLE objects DROP COLUMN arrival; ALTER TABLE tenants DROP COLUMN arrivals; "
            "ALTER TABLE meta DROP COLUMN group_id; ALTER TABLE meta DROP COLUMN group_member; "
            "ALTER TABLE meta DROP COLUMN for_members; ALTER TABLE tenants DROP COLUMN by_group; "
            "PRAGMA user_version = 2"
        )
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    assert _page(stand).heads == [chain[0]]
    _head(stand, chain[1])
    assert _page(stand).heads == [chain[1], chain[0]]


def test_a_writer_cannot_fill_the_disk_with_heads_and_none_pushes_another_out(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.provider.heads.MAX_AT_ONCE", 3)
    monkeypatch.setattr("replicator.provider.heads.MAX_A_DAY", 2)
    chain = _chain(stand.tenant, 6)
    for signed in chain[:3]:
        _head(stand, signed)
    assert refusal(lambda: _head(stand, chain[3])) == "busy"
    stand.clock.advance(86400)
    _head(stand, chain[3])
    _head(stand, chain[4])
    assert refusal(lambda: _head(stand, chain[5])) == "busy"
    assert _page(stand).heads == chain[4::-1]


def _standing(stand: Stand, challenge: bytes) -> Standing:
    answer = stand.call("heads", HeadsRequest(challenge=challenge))
    assert isinstance(answer, Heads)
    return decode(Standing, verify(answer.standing, Context.STANDING, [stand.provider.key.public]))


def test_what_is_shown_is_signed_with_the_askers_challenge_and_first_times(stand: Stand) -> None:
    assert _standing(stand, b"c" * 32).heads == []
    chain = _chain(stand.tenant, 2)
    for signed in chain:
        stand.clock.advance(10)
        _head(stand, signed)
    seen_ns = stand.clock.now_ns()
    stand.clock.advance(10)
    found = _standing(stand, b"c" * 32)
    assert (found.challenge, found.tenant, found.incarnation) == (
        b"c" * 32,
        stand.tenant.id,
        stand.service.incarnation,
    )
    assert found.heads == [
        Shown(writer=stand.tenant.node.identity, number=2, head=signed_hash(chain[1]), seen_ns=seen_ns)
    ]
    assert found.now_ns == stand.clock.now_ns()


# testimony


def _witness_of(key: SigningKey, stand: Stand, number: int, **changes: bytes) -> bytes:
    fields: dict[str, bytes] = {"tenant": stand.tenant.id, "writer": stand.tenant.node.identity} | changes
    witness = Witness(**fields, number=number, head=bytes(32), incarnation=bytes(16), seen_ns=1)
    return key.sign(Context.WITNESS, encode(witness))


def _testify(stand: Stand, *witnesses: bytes) -> None:
    assert stand.call("testify", Told(witnesses=list(witnesses))) == Empty()


def test_what_other_providers_signed_is_handed_on_the_last_word_of_each(stand: Stand) -> None:
    one, other = SigningKey(b"1" * 32), SigningKey(b"2" * 32)
    _testify(stand, _witness_of(one, stand, 1), _witness_of(other, stand, 1))
    _testify(stand, _witness_of(one, stand, 2))
    stand.restart()
    assert set(_heads(stand).testimony) == {_witness_of(one, stand, 2), _witness_of(other, stand, 1)}


def test_testimony_that_does_not_hold_or_is_not_the_holders_is_refused(stand: Stand) -> None:
    key = SigningKey(b"1" * 32)
    for wrong in (
        _witness_of(key, stand, 1, writer=bytes(32)),
        _witness_of(key, stand, 1, tenant=bytes(16)),
        _witness_of(key, stand, 1)[:-1] + b"\x00",
    ):
        assert refusal(lambda signed=wrong: _testify(stand, signed)) == "bad-request"  # type: ignore[misc]
    assert refusal(lambda: stand.keeper.testify(Told(witnesses=[]))) == "forbidden"
    assert _heads(stand).testimony == []


def test_a_writer_cannot_fill_the_disk_with_testimony(stand: Stand) -> None:
    for first in (0, 40):
        keys = [SigningKey(bytes([first + n]) * 32) for n in range(40)]
        _testify(stand, *(_witness_of(key, stand, 1) for key in keys))
    assert len(_heads(stand).testimony) == MAX_TESTIMONY
