"""Witnessed heads: numbers rise, chains hold, and forks are kept as evidence."""

from replicator.charter.verify import signed_hash
from replicator.crypto.sign import Context, body_of, verify
from replicator.format.claim import Witness
from replicator.format.codec import decode
from replicator.provider.heads import MAX_FORKS
from replicator.wire.messages import Heads, HeadsRequest, Signed
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
