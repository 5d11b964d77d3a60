"""Which signed statements exclude each other: no honest history does, every fork that can be proven is found."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.charter.chain import (
    Link,
    Word,
    check_finding,
    connected,
    created_of,
    excludes,
    forks,
    gone_back,
    kept_head,
    read_head,
    read_snapshot_link,
    read_word,
)
from replicator.charter.verify import NO_PREVIOUS, signed_hash
from replicator.crypto.sign import Context, SigningKey
from replicator.errors import IntegrityError, ReplicatorError
from replicator.format.charter import Charter, RootStatement
from replicator.format.claim import Shown, Standing, Witness, challenge_of
from replicator.format.codec import encode
from replicator.format.finding import Finding, FindingKind, Said, Statement
from replicator.format.snapshot import Head
from tests.format.samples import CHARTER, NOW, RIGHT, ROOT, SNAPSHOT

TENANT = bytes(range(16))
WRITER, PROVIDER, OTHER, ROOT_KEY, OWNER = (SigningKey(bytes([i]) * 32) for i in range(1, 6))
LIFE = b"i" * 16


def head(number: int, previous: bytes, *, snapshot: int = 0, key: SigningKey = WRITER, **changes: Any) -> bytes:
    """Return a signed head."""
    fields: dict[str, Any] = {
        "tenant": TENANT,
        "writer": key.identity,
        "number": number,
        "previous": previous,
        "snapshot": snapshot.to_bytes(32, "big"),
        "created_ns": NOW + number,
    }
    return key.sign(Context.HEAD, encode(Head(**(fields | changes))))


def chain(length: int, *, after: Link | None = None, salt: int = 0) -> list[Link]:
    """Return a chain of heads, or one that goes on after a head."""
    links: list[Link] = []
    number, previous = (0, NO_PREVIOUS) if after is None else (after.number, after.hash)
    for _ in range(length):
        number += 1
        links.append(read_head(head(number, previous, snapshot=salt * 1000 + number), TENANT))
        previous = links[-1].hash
    return links


def snapshot(number: int, previous: bytes) -> Link:
    """Return the place that a signed snapshot takes."""
    record = msgspec.structs.replace(SNAPSHOT, tenant=TENANT, writer=WRITER.identity, number=number, previous=previous)
    return read_snapshot_link(WRITER.sign(Context.SNAPSHOT, encode(record)), b"", TENANT)


def standing(
    *numbers: int,
    links: list[Link] | None = None,
    key: SigningKey = PROVIDER,
    life: bytes = LIFE,
    challenge: bytes = bytes(32),
    seen_ns: int = NOW,
) -> Word:
    """Return a provider's word: of our writer the head with this number, of none without one."""
    known = {link.number: link for link in links or chain(9)}
    heads = [
        Shown(writer=WRITER.identity, number=number, head=known[number].hash, seen_ns=seen_ns) for number in numbers
    ]
    record = Standing(tenant=TENANT, incarnation=life, challenge=challenge, heads=heads, now_ns=NOW)
    return read_word(Statement(context="standing", signed=key.sign(Context.STANDING, encode(record))), TENANT)


def witness(number: int, *, links: list[Link] | None = None, life: bytes = LIFE) -> Word:
    """Return a provider's witness."""
    link = {one.number: one for one in links or chain(9)}[number]
    record = Witness(
        tenant=TENANT, writer=WRITER.identity, number=number, head=link.hash, incarnation=life, seen_ns=NOW
    )
    return read_word(Statement(context="witness", signed=PROVIDER.sign(Context.WITNESS, encode(record))), TENANT)


# links


def test_a_head_says_its_place() -> None:
    signed = head(3, b"p" * 32, snapshot=5)
    link = read_head(signed, TENANT)
    assert (link.writer, link.number, link.previous) == (WRITER.identity, 3, b"p" * 32)
    assert (link.hash, link.snapshot) == (signed_hash(signed), (5).to_bytes(32, "big"))
    assert kept_head(signed) == link
    assert created_of(link) == NOW + 3


@pytest.mark.parametrize(
    "signed",
    [
        head(1, NO_PREVIOUS, writer=OTHER.identity),
        head(1, NO_PREVIOUS, tenant=bytes(16)),
        head(1, NO_PREVIOUS)[:-1] + b"\x00",
        WRITER.sign(Context.CLAIM, head(1, NO_PREVIOUS)[96:]),
    ],
)
def test_what_its_writer_did_not_sign_is_no_head(signed: bytes) -> None:
    with pytest.raises(ReplicatorError):
        read_head(signed, TENANT)


BRANCHES = st.tuples(st.integers(1, 12), st.integers(0, 11), st.integers(0, 6))
"""A chain's length, after which of its heads another branch begins, and how many heads that has; 0: none."""


@given(BRANCHES, st.data())
def test_forks_are_found_exactly_where_two_heads_exclude_each_other(
    shape: tuple[int, int, int], data: st.DataObject
) -> None:
    length, at, extra = shape
    main = chain(length)
    at = min(at, length)
    branch = chain(extra, after=main[at - 1] if at else None, salt=1)
    every = [*main, *branch]
    shown = data.draw(st.lists(st.sampled_from(every), max_size=20))
    found = forks(shown)
    assert all(excludes(one, other) for one, other in found)
    # Sound: one history never accuses anybody, whatever of it is shown, in whichever order, however often.
    if not {link.hash for link in shown} & {link.hash for link in branch} or at + 1 > length:
        assert found == []
    # Complete: with all of both there is a fork at the first number after they part.
    if extra and at < length:
        first = min(pair[1].number for pair in forks(every))
        assert first == at + 1
    for one in shown:
        for other in shown:
            if one != other and one.number == other.number:
                assert found != []


@given(st.integers(2, 12), st.data())
def test_what_is_connected_is_told_from_what_is_not_and_from_what_cannot_be_known(
    length: int, data: st.DataObject
) -> None:
    main = chain(length)
    low = data.draw(st.integers(0, length - 2))
    high = data.draw(st.integers(low + 1, length - 1))
    assert connected(main, main[low], main[high]) is True
    other = chain(length - low, after=main[low - 1] if low else None, salt=1)
    assert connected([*main, *other], main[low], other[high - low]) is False
    if high - low > 1:
        gap = data.draw(st.integers(low + 1, high - 1))
        assert connected(main[:gap] + main[gap + 1 :], main[low], main[high]) is None
    assert connected(main, main[low], main[low]) is True
    assert connected(main, main[high], chain(high + 1, salt=2)[high]) is False


def test_a_number_that_jumps_cannot_be_known() -> None:
    [first] = chain(1)
    later = read_head(head(1_000_000, first.hash), TENANT)
    assert connected([first, later], first, later) is None
    assert forks([first, later]) == []


def test_a_snapshot_convicts_who_signed_another_head_before_it() -> None:
    main = chain(3)
    assert excludes(main[1], snapshot(3, b"x" * 32))
    assert not excludes(main[1], snapshot(3, main[1].hash))
    assert excludes(main[2], snapshot(3, b"x" * 32))
    assert not excludes(main[2], snapshot(3, main[1].hash))
    assert not excludes(snapshot(2, main[0].hash), main[2]), "which head that snapshot had is not known"


def test_another_writers_chain_is_its_own() -> None:
    mine, other = chain(1)[0], read_head(head(1, NO_PREVIOUS, key=OTHER), TENANT)
    assert not excludes(mine, other)
    assert forks([mine, other]) == []


# words of providers


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_a_provider_goes_back_exactly_when_it_says_less_than_before(numbers: list[int]) -> None:
    words = [standing(number) for number in numbers]
    for earlier, later in pairwise(words):
        went = earlier.heads[WRITER.identity].number > later.heads[WRITER.identity].number
        assert gone_back(earlier, later) == ([WRITER.identity] if went else [])
    assert gone_back(words[0], standing()) == [WRITER.identity]
    assert gone_back(standing(), words[0]) == []


def test_a_witness_and_a_standing_are_words_of_one_kind() -> None:
    assert gone_back(witness(5), standing(4)) == [WRITER.identity]
    assert gone_back(witness(5), standing(5)) == []
    assert gone_back(witness(5), standing(5, links=chain(9, salt=1))) == [WRITER.identity], "another head"


def test_another_life_or_another_provider_contradicts_nothing() -> None:
    assert gone_back(witness(5), standing(4, life=b"j" * 16)) == []
    assert gone_back(witness(5), standing(4, key=OTHER)) == []


def test_what_is_no_word_of_a_provider_is_refused() -> None:
    with pytest.raises(IntegrityError, match="no word"):
        read_word(Statement(context="head", signed=head(1, NO_PREVIOUS)), TENANT)
    with pytest.raises(IntegrityError, match="another tenant"):
        read_word(standing(1).statement, bytes(16))


# findings


def finding(kind: FindingKind, statements: list[Statement], **changes: Any) -> Finding:
    fields: dict[str, Any] = {
        "tenant": TENANT,
        "finder": OTHER.identity,
        "kind": kind,
        "writer": WRITER.identity,
        "provider": PROVIDER.identity if kind == "rollback" else bytes(32),
        "number": 2,
        "statements": statements,
        "challenge": [],
        "found_ns": NOW,
    }
    return Finding(**(fields | changes))


def a_fork() -> Finding:
    return finding("fork", [chain(2)[1].statement, chain(2, salt=1)[1].statement])


def a_rollback(asked: list[bytes] | None = None) -> Finding:
    earlier = witness(5)
    parts = [bytes(32), earlier.hash] if asked is None else asked
    later = standing(4, challenge=challenge_of(parts))
    return finding("rollback", [earlier.statement, later.statement], challenge=parts)


def a_loss() -> Finding:
    return finding("lost", [chain(5)[4].statement, standing(4, life=b"j" * 16).statement])


def a_revoked(*, seen_ns: int = NOW + 5, revoked: bool = True) -> Finding:
    root = msgspec.structs.replace(
        ROOT, tenant=TENANT, root_key=ROOT_KEY.public, owner_key=OWNER.public, number=1, previous=NO_PREVIOUS
    )
    right = msgspec.structs.replace(RIGHT, holder_key=WRITER.public, revoked=revoked)
    charter = msgspec.structs.replace(
        CHARTER,
        tenant=TENANT,
        root=ROOT_KEY.sign(Context.ROOT_STATEMENT, encode(root)),
        rights=[right],
        created_ns=NOW,
    )
    assert isinstance(root, RootStatement)
    assert isinstance(charter, Charter)
    signed = Statement(context="charter", signed=OWNER.sign(Context.CHARTER, encode(charter)))
    return finding("revoked", [chain(2)[1].statement, standing(2, seen_ns=seen_ns).statement, signed])


def a_continuation(kind: FindingKind = "continued") -> Finding:
    main = chain(4)
    return finding(kind, [main[1].statement, main[3].statement], number=4)


def a_charter(number: int, previous: bytes, created_ns: int = NOW) -> Statement:
    root = msgspec.structs.replace(
        ROOT, tenant=TENANT, root_key=ROOT_KEY.public, owner_key=OWNER.public, number=1, previous=NO_PREVIOUS
    )
    charter = msgspec.structs.replace(
        CHARTER,
        tenant=TENANT,
        number=number,
        previous=previous,
        root=ROOT_KEY.sign(Context.ROOT_STATEMENT, encode(root)),
        rights=[],
        change=b"",
        handovers=[],
        created_ns=created_ns,
    )
    return Statement(context="charter", signed=OWNER.sign(Context.CHARTER, encode(charter)))


def two_charters() -> Finding:
    found = finding("charters", [a_charter(7, bytes(32)), a_charter(7, bytes(32), NOW + 1)], number=7)
    return msgspec.structs.replace(found, writer=OWNER.identity)


def test_charters_that_can_follow_each_other_are_no_finding() -> None:
    first = a_charter(7, bytes(32))
    for later, holds in (
        (a_charter(8, signed_hash(first.signed)), False),
        (a_charter(8, bytes(32)), True),
        (a_charter(9, bytes(32)), False),
    ):
        found = msgspec.structs.replace(two_charters(), statements=[first, later])
        if holds:
            check_finding(found)
        else:
            with pytest.raises(IntegrityError, match="can be in one chain"):
                check_finding(found)


@pytest.mark.parametrize(
    "make", [a_fork, a_rollback, a_loss, a_revoked, a_continuation, lambda: a_continuation("interleaved"), two_charters]
)
def test_a_finding_holds_by_public_keys_alone_and_no_changed_one_does(make: Callable[[], Finding]) -> None:
    found = make()
    check_finding(found)
    changes: list[dict[str, Any]] = [{"tenant": bytes(16)}, {"writer": OTHER.identity}, {"statements": []}]
    if found.kind != "continued":
        changes.append({"statements": found.statements[:1]})
    if found.kind in ("fork", "continued", "interleaved", "charters"):
        changes.append({"statements": found.statements[:1] * 2})
    for place, one in enumerate(found.statements):
        broken = [*found.statements]
        broken[place] = Statement(context=one.context, signed=one.signed[:-1] + bytes([one.signed[-1] ^ 1]))
        changes.append({"statements": broken})
        other: Said = "standing" if one.context != "standing" else "head"
        broken[place] = Statement(context=other, signed=one.signed)
        changes.append({"statements": [*broken]})
    for change in changes:
        with pytest.raises(ReplicatorError):
            check_finding(msgspec.structs.replace(found, **change))


def test_two_words_whose_order_nothing_shows_convict_nobody() -> None:
    """A provider may have shown 4 before it saw 5: only its answer to a challenge made of the witness is later."""
    with pytest.raises(IntegrityError, match="said after"):
        check_finding(a_rollback([bytes(32)]))
    parts = [witness(5).hash]
    unasked = finding("rollback", [witness(5).statement, standing(4).statement], challenge=parts)
    with pytest.raises(IntegrityError, match="said after"):
        check_finding(unasked)


def test_a_provider_that_went_on_or_another_one_is_not_convicted() -> None:
    earlier = witness(5)
    parts = [earlier.hash]
    for later in (standing(5, challenge=challenge_of(parts)), standing(6, challenge=challenge_of(parts))):
        with pytest.raises(IntegrityError, match="did not go back"):
            check_finding(finding("rollback", [earlier.statement, later.statement], challenge=parts))
    back = standing(4, challenge=challenge_of(parts))
    with pytest.raises(IntegrityError, match="another provider"):
        check_finding(
            finding("rollback", [earlier.statement, back.statement], challenge=parts, provider=OTHER.identity)
        )


def test_what_providers_still_show_is_not_lost() -> None:
    with pytest.raises(IntegrityError, match="shows that head"):
        check_finding(finding("lost", [chain(5)[4].statement, standing(5).statement]))


def test_what_came_before_the_revocation_or_of_who_was_not_revoked_is_no_finding() -> None:
    with pytest.raises(IntegrityError, match="after the charter"):
        check_finding(a_revoked(seen_ns=NOW))
    with pytest.raises(IntegrityError, match="does not revoke"):
        check_finding(a_revoked(revoked=False))
