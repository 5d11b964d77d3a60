"""Marks: believed only from who has seen everything that was accepted here, refused name by name."""

import os

import pytest

from replicator.charter.verify import signed_hash
from replicator.clock import DAY_S, NS
from replicator.crypto.sign import Context, SigningKey, verify
from replicator.format.claim import Receipt
from replicator.format.codec import decode, encode
from replicator.format.mark import SeenWriter
from replicator.format.merkle import name_of
from replicator.provider.marks import ENDLESS_NS
from replicator.provider.session import ProviderSession
from replicator.wire.messages import (
    CharterNotice,
    ClaimReply,
    Claims,
    Empty,
    MarkReply,
    Marks,
    MarksRequest,
    Signed,
    VouchReply,
    VouchRequest,
)
from tests.fakes import SeededRng
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import SMALL, House, Tenant, charter_object, data_object, enrol, hire, put, right

A, B, C = (data_object(seed) for seed in (1, 2, 3))
NA, NB, NC = (name_of(data) for data in (A, B, C))
OTHER = SigningKey(SeededRng("another provider").bytes(32))


@pytest.fixture
def stand(tmp_path: str) -> Stand:
    """A provider with a maintainer, that has two objects."""
    stand = Stand(str(tmp_path))
    hire(stand.service, stand.tenant)
    put(stand.node, A)
    put(stand.node, B)
    return stand


def now(stand: Stand) -> Claims:
    answer = stand.call("claims", Empty())
    assert isinstance(answer, Claims)
    return answer


def mark(stand: Stand, *dead: bytes, **changes: object) -> MarkReply:
    statement = stand.tenant.mark(stand.service.identity, now(stand), dead=dead, **changes)  # type: ignore[arg-type]
    return send(stand, statement)


def send(stand: Stand, statement: bytes) -> MarkReply:
    answer = stand.call("mark", Signed(statement=statement), maintainer(stand))
    assert isinstance(answer, MarkReply)
    return answer


def maintainer(stand: Stand) -> ProviderSession:
    return stand.service.session(stand.tenant.maintainer.public)


@pytest.mark.parametrize(("short_by", "refused"), [(0, True), (1, False)])
def test_what_is_locked_without_end_is_never_marked(stand: Stand, short_by: int, *, refused: bool) -> None:
    stand.provider._database.write(
        "lock",
        lambda connection: connection.execute(
            "UPDATE objects SET lock_until_ns = ? WHERE name = ?", (ENDLESS_NS - short_by, NA)
        ),
    )
    reply = mark(stand, NA, NB)
    assert (reply.state, reply.locked) == ("stands", NA if refused else b"")
    rows = stand.provider._database.rows("SELECT name FROM marks ORDER BY name")
    assert [name for (name,) in rows] == ([NB] if refused else sorted([NA, NB]))


def claim(stand: Stand, number: int, names: list[bytes], **changes: object) -> ClaimReply:
    statement = stand.tenant.claim(stand.service.identity, number, names, **changes)  # type: ignore[arg-type]
    return stand.node.claim(Signed(statement=statement))


def marks(stand: Stand, limit: int = 100, after: bytes = b"") -> Marks:
    answer = stand.call("marks", MarksRequest(after=after, limit=limit))
    assert isinstance(answer, Marks)
    return answer


def marked(stand: Stand) -> list[bytes]:
    return [one.name for one in marks(stand).marks]


def receipt(stand: Stand, name: bytes, *, by: SigningKey = OTHER, age_s: float = 0.0, tenant: bytes = b"") -> bytes:
    made = Receipt(
        tenant=tenant or stand.tenant.id,
        name=name,
        size=SMALL,
        incarnation=bytes(16),
        received_ns=stand.clock.now_ns() - round(age_s * NS),
        lock_until_ns=0,
    )
    return by.sign(Context.RECEIPT, encode(made))


def release(stand: Stand, name: bytes, receipts: list[bytes], **changes: object) -> MarkReply:
    values = {"holders": stand.tenant.holders(OTHER.identity, stand.service.identity)} | changes
    statement = stand.tenant.mark(
        stand.service.identity,
        now(stand),
        surplus=[name],
        receipts=receipts,
        **values,  # type: ignore[arg-type]
    )
    return send(stand, statement)


def orphan(stand: Stand) -> None:
    """Put the database back from an older copy: the store gets a new incarnation."""
    stand.service.stop()
    stand.provider.close()
    path = os.path.join(stand.house.data, ".generation")
    with open(path, "w", encoding="ascii") as file:
        file.write("999\n")
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()


def test_a_mark_that_covers_everything_stands_and_is_the_next_in_the_chain(stand: Stand) -> None:
    claim(stand, 1, [NA])
    reply = mark(stand, NB)
    assert (reply.state, reply.now.mark) == ("stands", 1)
    assert reply.claimed + reply.locked + reply.short + reply.absent == b""
    assert marked(stand) == [NB]
    assert mark(stand).now.mark == 2


def test_a_mark_that_has_not_seen_a_claim_or_a_head_is_stale_and_hears_what_it_lacked(stand: Stand) -> None:
    claim(stand, 1, [NA])
    stand.node.head(Signed(statement=stand.tenant.head(3)))
    [writer] = now(stand).writers
    assert (writer.claim, writer.head, writer.current, writer.retired) == (1, 3, True, False)
    for claimed, head in ((0, 3), (1, 2), (2, 3)):
        view = [SeenWriter(writer=writer.writer, claim=claimed, head=head)]
        reply = mark(stand, NB, view=view)
        assert (reply.state, reply.now.writers) == ("stale", [writer])
    assert mark(stand, NB, view=[]).state == "stale"
    stranger = SeenWriter(writer=bytes([255]) * 32, claim=1, head=0)
    known = SeenWriter(writer=writer.writer, claim=1, head=3)
    assert mark(stand, NB, view=[known, stranger]).state == "stale", "it knows a claim that this store has forgotten"
    assert marked(stand) == []
    assert mark(stand, NB, view=[SeenWriter(writer=writer.writer, claim=1, head=7)]).state == "stands"


def test_a_mark_that_does_not_follow_the_last_one_hears_the_end_of_the_chain(stand: Stand) -> None:
    before = now(stand)
    first = stand.tenant.mark(stand.service.identity, before, dead=[NA])
    assert send(stand, first).state == "stands"
    reply = send(stand, stand.tenant.mark(stand.service.identity, before, dead=[NB]))
    assert (reply.state, reply.now.mark) == ("wrong previous", 1)
    assert mark(stand, NB, previous=bytes(32)).state == "wrong previous"
    assert mark(stand, NB, number=3).state == "wrong previous"
    assert marked(stand) == [NA]


def test_the_same_mark_again_is_answered_again_and_marks_nothing_anew(stand: Stand) -> None:
    claim(stand, 1, [NA])
    statement = stand.tenant.mark(stand.service.identity, now(stand), dead=[NA, NB])
    first = send(stand, statement)
    claim(stand, 2, [NB])
    again = send(stand, statement)
    assert (first.state, first.claimed) == (again.state, again.claimed) == ("stands", NA)
    assert marked(stand) == [], "a mark that was cleared came back"


def test_names_are_refused_one_by_one(stand: Stand) -> None:
    claim(stand, 1, [NA])
    charter, keybag = name_of(charter_object(stand.tenant.charters[-1])), name_of(data_object(7))
    old_charter = name_of(charter_object(stand.tenant.charters[0]))
    reply = mark(stand, NA, NB, NC, charter, keybag, old_charter)
    assert reply.state == "stands"
    assert (reply.claimed, reply.absent, reply.short) == (NA, NC, b"")
    assert reply.locked == b"".join(sorted([charter, keybag]))
    assert marked(stand) == sorted([NB, old_charter])


def test_only_who_may_mark_in_the_charter_in_force_is_believed(stand: Stand) -> None:
    tenant = stand.tenant
    for key in (tenant.keeper, tenant.node, tenant.owner, tenant.root, OTHER):
        statement = tenant.mark(stand.service.identity, now(stand), dead=[NA], by=key)
        assert refusal(lambda statement=statement: send(stand, statement)) == "bad-request"  # type: ignore[misc]
    assert refusal(lambda: mark(stand, NA, tenant=bytes(16))) == "bad-request"
    assert refusal(lambda: send(stand, tenant.mark(OTHER.identity, now(stand), dead=[NA]))) == "bad-request"
    statement = tenant.mark(stand.service.identity, now(stand), dead=[NA])
    rights = [right(tenant.keeper, "keeper"), right(tenant.maintainer, "maintainer", revoked=True)]
    data = charter_object(tenant.charter(rights, keybag=name_of(data_object(7))))
    put(stand.keeper, data)
    stand.keeper.charter(CharterNotice(name=name_of(data)))
    assert refusal(lambda: stand.call("mark", Signed(statement=statement), stand.keeper)) == "bad-request"


def test_a_claim_that_names_it_clears_a_mark_and_so_does_storing_it_again(stand: Stand) -> None:
    mark(stand, NA, NB)
    claim(stand, 1, [NA])
    assert marked(stand) == [NB]
    put(stand.node, B)
    assert marked(stand) == []
    mark(stand, NB)
    claim(stand, 2, [NA, NB], base=1, added=[NB])
    assert marked(stand) == []


def test_a_maintainer_claims_what_takes_the_place_of_something(stand: Stand) -> None:
    statement = stand.tenant.claim(stand.service.identity, 1, [NA], by=stand.tenant.maintainer)
    view = now(stand)
    assert maintainer(stand).claim(Signed(statement=statement)).missing == b""
    reply = send(stand, stand.tenant.mark(stand.service.identity, view, dead=[NB]))
    assert reply.state == "stale", "a mark stood on a view from before another maintainer's claim"
    assert mark(stand, NA).claimed == NA


def test_a_fence_refuses_what_comes_late_and_nothing_that_was_there(stand: Stand) -> None:
    claim(stand, 2, [NA])
    stand.node.head(Signed(statement=stand.tenant.head(5)))
    provider = stand.service.identity
    stand.call("fence", Signed(statement=stand.tenant.fence(provider, claim=4, head=6)), maintainer(stand))
    stand.call("fence", Signed(statement=stand.tenant.fence(provider, claim=3, head=1, by=stand.tenant.owner)))
    [writer] = now(stand).writers
    assert (writer.fenced_claim, writer.fenced_head) == (4, 6), "a fence went back"
    assert claim(stand, 2, [NA]).number == 2
    stand.node.head(Signed(statement=stand.tenant.head(5)))
    for number in (3, 4):
        assert refusal(lambda number=number: claim(stand, number, [NA])) == "conflict"  # type: ignore[misc]
    sixth = stand.tenant.head(6, signed_hash(stand.tenant.head(5)))
    assert refusal(lambda: stand.node.head(Signed(statement=sixth))) == "conflict"
    assert stand.node.info().claim == 4, "the writer does not hear where it may go on"
    assert claim(stand, 5, [NA]).number == 5
    stand.node.head(Signed(statement=stand.tenant.head(7)))
    by_node = stand.tenant.fence(provider, claim=9, by=stand.tenant.node)
    assert refusal(lambda: stand.call("fence", Signed(statement=by_node))) == "bad-request"


def test_a_retired_writer_protects_nothing_until_it_claims_again(stand: Stand) -> None:
    claim(stand, 1, [NA, NB])
    provider = stand.service.identity
    late = stand.tenant.retire(provider, 0)
    assert refusal(lambda: stand.call("retire", Signed(statement=late), maintainer(stand))) == "conflict"
    stand.call("retire", Signed(statement=stand.tenant.retire(provider, 1)), maintainer(stand))
    [writer] = now(stand).writers
    assert (writer.retired, writer.claim) == (True, 1)
    assert mark(stand, NA, NB).claimed == b""
    assert refusal(lambda: stand.node.head(Signed(statement=stand.tenant.head(1)))) == "conflict"
    assert refusal(lambda: claim(stand, 1, [NA, NB])) == "conflict", "a claim that protects no more was confirmed"
    # A change names one object; the whole set is relied on again.
    put(stand.node, C)
    claim(stand, 2, [NA, NB, NC], base=1, added=[NC])
    assert marked(stand) == []
    assert not now(stand).writers[0].retired
    stand.node.head(Signed(statement=stand.tenant.head(1)))


def test_a_retired_writers_last_claim_and_head_must_have_been_seen(stand: Stand) -> None:
    view = now(stand)
    claim(stand, 1, [NA])
    stand.node.head(Signed(statement=stand.tenant.head(1)))
    stand.call("retire", Signed(statement=stand.tenant.retire(stand.service.identity, 1)), maintainer(stand))
    assert send(stand, stand.tenant.mark(stand.service.identity, view, dead=[NA])).state == "stale"


def test_a_store_that_was_put_back_forgets_its_marks_and_waits_for_every_node(stand: Stand) -> None:
    claim(stand, 1, [NA])
    mark(stand, NB)
    before = now(stand)
    old = stand.tenant.mark(stand.service.identity, before, dead=[NB])
    orphan(stand)
    assert marked(stand) == []
    after = now(stand)
    assert (after.mark, after.writers[0].current) == (1, False)
    assert send(stand, old).state == "stale"
    assert mark(stand, NB).state == "stale"
    assert refusal(lambda: stand.node.head(Signed(statement=stand.tenant.head(1)))) == "conflict"
    claim(stand, 2, [NA])
    assert send(stand, old).state == "stale", "a mark of the life before stood"
    assert mark(stand, NB).state == "stands"


def test_a_node_that_a_store_put_back_does_not_remember_holds_marks_up_until_it_is_retired(stand: Stand) -> None:
    orphan(stand)
    [node] = now(stand).writers
    assert (node.writer, node.claim, node.current) == (stand.tenant.node.identity, 0, False)
    assert mark(stand, NA).state == "stale"
    stand.call("retire", Signed(statement=stand.tenant.retire(stand.service.identity, 0)), maintainer(stand))
    assert mark(stand, NA).state == "stands"
    assert refusal(lambda: stand.node.head(Signed(statement=stand.tenant.head(1)))) == "conflict"
    claim(stand, 1, [NA])
    stand.node.head(Signed(statement=stand.tenant.head(1)))


def test_a_release_stands_on_receipts_of_enough_others_that_are_not_old(stand: Stand) -> None:
    stand.clock.advance(9 * DAY_S)
    assert release(stand, NA, []).short == NA
    assert release(stand, NA, [receipt(stand, NB)]).short == NA
    assert release(stand, NA, [receipt(stand, NA, age_s=8 * DAY_S)]).short == NA
    assert release(stand, NA, [receipt(stand, NA, age_s=-3600)]).short == NA
    assert release(stand, NA, [receipt(stand, NA, tenant=bytes(16))]).short == NA
    stranger = SigningKey(SeededRng("a stranger").bytes(32))
    assert release(stand, NA, [receipt(stand, NA, by=stranger)]).short == NA
    assert release(stand, NA, [receipt(stand, NA, by=stand.provider.key)]).short == NA, "its own copy counted"
    assert release(stand, NA, [receipt(stand, NA)] * 2, copies=2).short == NA, "one provider counted twice"
    assert marked(stand) == []
    assert release(stand, NA, [receipt(stand, NA, age_s=6 * DAY_S)]).short == b""
    assert [(one.name, one.why) for one in marks(stand).marks] == [(NA, "surplus")]


def test_roots_floor_of_copies_goes_before_what_the_mark_says(tmp_path: str) -> None:
    stand = Stand(str(tmp_path))
    hire(stand.service, stand.tenant, minimum_copies=2)
    put(stand.node, A)
    stand.clock.advance(9 * DAY_S)
    second = SigningKey(SeededRng("second").bytes(32))
    holders = stand.tenant.holders(OTHER.identity, second.identity)
    assert release(stand, NA, [receipt(stand, NA)], holders=holders).short == NA
    both = [receipt(stand, NA), receipt(stand, NA, by=second)]
    assert release(stand, NA, both, holders=holders).short == b""


def test_holders_are_the_owners_word_with_the_charter_in_force(stand: Stand) -> None:
    stand.clock.advance(9 * DAY_S)
    proof = [receipt(stand, NA)]
    forged = stand.tenant.holders(OTHER.identity, by=stand.tenant.maintainer)
    assert refusal(lambda: release(stand, NA, proof, holders=forged)) == "bad-request"
    old = stand.tenant.holders(OTHER.identity, charter=1)
    assert refusal(lambda: release(stand, NA, proof, holders=old)) == "conflict"
    broken = bytearray(proof[0])
    broken[50] ^= 1
    assert refusal(lambda: release(stand, NA, [bytes(broken)])) == "bad-request"


def test_a_copy_that_others_may_still_stand_on_is_no_surplus(stand: Stand) -> None:
    stand.clock.advance(9 * DAY_S)
    proof = [receipt(stand, NA)]
    assert stand.call("vouch", VouchRequest(names=NA)) is not None
    assert release(stand, NA, proof).short == NA
    stand.clock.advance(7 * DAY_S)
    assert release(stand, NA, [receipt(stand, NA)]).short == NA, "a receipt of 7 days may be on its way"
    stand.clock.advance(DAY_S)
    assert release(stand, NA, [receipt(stand, NA)]).short == b""


def test_vouching_gives_a_fresh_receipt_for_what_is_intact_and_clears_its_mark(stand: Stand) -> None:
    mark(stand, NA)
    stand.clock.advance(100)
    with open(stand.house.file(stand.tenant, NB), "r+b") as file:
        file.write(b"rot")
    answer = stand.call("vouch", VouchRequest(names=NA + NB + NC))
    assert isinstance(answer, VouchReply)
    fresh, damaged, absent = answer.receipts
    assert damaged == absent == b""
    made = decode(Receipt, verify(fresh, Context.RECEIPT, [stand.provider.key.public]))
    assert (made.name, made.received_ns) == (NA, stand.clock.now_ns())
    assert marked(stand) == []
    assert refusal(lambda: stand.call("vouch", VouchRequest(names=NA * 65))) == "bad-request"


def test_marks_are_listed_by_page_with_sums_and_dates(stand: Stand) -> None:
    assert marks(stand) == Marks(
        incarnation=stand.service.incarnation,
        marks=[],
        more=False,
        count=0,
        size=0,
        first_ns=0,
        swept=0,
        budget=20 * 10**9,
        frozen_until_ns=0,
    )
    stand.clock.advance(20 * DAY_S)
    mark(stand, NA, NB)
    low, high = sorted([NA, NB])
    page = marks(stand, limit=1)
    assert ([one.name for one in page.marks], page.more, page.count, page.size) == ([low], True, 2, 2 * SMALL)
    # Grace is 14 days from now, the lock 30 days from when it was received, 20 days ago; but of those the daemon
    # has counted none, and 30 must be.
    assert page.marks[0].due_ns == page.first_ns == stand.clock.now_ns() + 30 * DAY_S * NS
    assert [one.name for one in marks(stand, after=low).marks] == [high]


def test_without_a_charter_nobody_marks(tmp_path: str) -> None:
    house = House(str(tmp_path))
    provider = house.init()
    service = provider.start()
    tenant = Tenant("new")
    enrol(provider, service, tenant)
    session = service.session(tenant.keeper.public)
    view = session.claims()
    assert (
        refusal(lambda: session.mark(Signed(statement=tenant.mark(service.identity, view, by=tenant.keeper))))
        == "forbidden"
    )


def test_accepted_marks_and_orders_are_kept_as_evidence(stand: Stand) -> None:
    statement = stand.tenant.mark(stand.service.identity, now(stand), dead=[NA])
    send(stand, statement)
    order = stand.tenant.fence(stand.service.identity, claim=1)
    for _ in range(2):
        stand.call("fence", Signed(statement=order), maintainer(stand))
    database = stand.provider._database
    assert database.rows("SELECT number, signed FROM mark_chain") == [(1, statement)]
    assert database.rows("SELECT kind, signed FROM orders") == [("fence", order)]
