"""Another root that is announced: how long it waits at a provider, by which clocks, and what ends it."""

import msgspec
import pytest

from replicator.charter.verify import ROOT_WAIT_NS, signed_hash, verify_root
from replicator.clock import DAY_S, NS
from replicator.crypto.sign import Context, SigningKey
from replicator.format.charter import Objection, RootChange
from replicator.format.codec import encode
from replicator.format.merkle import name_of
from replicator.ids import TenantId
from replicator.provider.days import Days
from replicator.provider.succession import Waiting
from replicator.wire.messages import Empty, EnrolRequest, Succession, SuccessionRequest
from tests.fakes import SeededRng
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import Tenant, data_object, publish_charter, right

KEYBAG = name_of(data_object(7))
NEXT = SigningKey(SeededRng("next root").bytes(32))
OTHER = SigningKey(SeededRng("other root").bytes(32))
DAY_NS = DAY_S * NS


def successor(tenant: Tenant, key: SigningKey = NEXT, **changes: object) -> bytes:
    """Return the statement of a root that follows the tenant's."""
    former = tenant.root_statement()
    statement = msgspec.structs.replace(
        verify_root(former, None),
        number=tenant.root_number + 1,
        previous=signed_hash(former),
        root_key=key.public,
        **changes,
    )
    return key.sign(Context.ROOT_STATEMENT, encode(statement))


def change(tenant: Tenant, key: SigningKey = NEXT) -> bytes:
    """Return the owner's word that this root is to follow."""
    record = RootChange(
        tenant=tenant.id, former=tenant.root_statement(), successor=successor(tenant, key), announced_ns=0
    )
    return tenant.owner.sign(Context.ROOT_CHANGE, encode(record))


def announce(stand: Stand, key: SigningKey = NEXT) -> None:
    """Let a charter announce it."""
    publish_charter(stand.keeper, stand.tenant.charter(keybag=KEYBAG, change=change(stand.tenant, key)))


def hand_over(stand: Stand) -> None:
    """Let a charter come under the next root."""
    tenant = stand.tenant
    publish_charter(stand.keeper, tenant.charter(keybag=KEYBAG, root=successor(tenant), handovers=[change(tenant)]))


def days(stand: Stand, count: int) -> None:
    """Let days pass on which the daemon looks at the clock."""
    for _ in range(count):
        stand.clock.advance(DAY_S)
        stand.service.tick()


def state(stand: Stand, objection: bytes = b"") -> Succession:
    """Ask how far it is."""
    found = stand.call("succession", SuccessionRequest(objection=objection), stand.keeper)
    assert isinstance(found, Succession)
    return found


def objection(of: Tenant, by: SigningKey | None = None, **changes: object) -> bytes:
    """Return root's word against it."""
    values: dict[str, object] = {
        "tenant": of.id,
        "statement": signed_hash(of.root_statement()),
        "created_ns": 0,
    }
    record = Objection(**(values | changes))  # type: ignore[arg-type]  # a test names the field it changes
    return (by or of.root).sign(Context.OBJECTION, encode(record))


def enrol(stand: Stand, by: SigningKey) -> None:
    """Ask for a certificate on this root's word."""
    holder = SigningKey(SeededRng(f"holder of {by.identity.hex()}").bytes(32))
    request = EnrolRequest(holder_key=holder.public, secret=b"", order=stand.tenant.order(holder, by=by), root=b"")
    stand.service.enrol(request)


def test_where_none_is_announced_nothing_waits(stand: Stand) -> None:
    found = state(stand)
    assert (found.change, found.began_ns, found.due_ns, found.passed, found.objection) == (b"", 0, 0, False, b"")


def test_a_change_begins_to_wait_with_the_charter_that_announces_it(stand: Stand) -> None:
    announce(stand)
    found = state(stand)
    assert found.change == signed_hash(change(stand.tenant))
    assert (found.began_ns, found.due_ns, found.passed) == (
        stand.clock.now_ns(),
        stand.clock.now_ns() + ROOT_WAIT_NS,
        False,
    )


def test_it_counts_after_thirty_days_and_not_on_the_twenty_ninth(stand: Stand) -> None:
    announce(stand)
    days(stand, 29)
    assert not state(stand).passed
    assert refusal(lambda: hand_over(stand)) == "conflict"
    assert refusal(lambda: enrol(stand, NEXT)) == "forbidden"
    del stand.tenant.charters[-1]
    days(stand, 1)
    assert state(stand).passed
    enrol(stand, NEXT)
    hand_over(stand)
    assert state(stand).change == b""
    assert refusal(lambda: enrol(stand, stand.tenant.root)) == "replaced"


@pytest.mark.parametrize("counted", [29, 30])
@pytest.mark.parametrize("passed_days", [29, 30])
@pytest.mark.parametrize("objected", [b"", b"root's word"])
@pytest.mark.parametrize("frozen", [False, True])
def test_both_clocks_must_be_over_and_nothing_speak_against_it(
    counted: int, passed_days: int, objected: bytes, *, frozen: bool
) -> None:
    waiting = Waiting(
        tenant=TenantId(b"t"),
        hash=b"h",
        successor_key=b"k",
        began_ns=DAY_NS,
        began_day=3,
        objection=objected,
    )
    now = DAY_NS + passed_days * DAY_NS
    state = Days(seen_ns=now, high_ns=now, days=3 + counted, frozen_until_ns=now + 1 if frozen else 0)
    assert waiting.passed(state, now) == (counted == passed_days == 30 and not objected and not frozen)
    assert waiting.due_ns(state, now) == max(31 * DAY_NS, now + (30 - counted) * DAY_NS if counted < 30 else 0)


def test_a_clock_set_forward_passes_nothing(stand: Stand) -> None:
    announce(stand)
    stand.clock.set_wall(stand.clock.now_ns() + 90 * DAY_NS)
    stand.service.tick()
    assert not state(stand).passed
    days(stand, 3)
    assert not state(stand).passed


def test_time_while_the_daemon_does_not_run_counts_one_day(stand: Stand) -> None:
    announce(stand)
    stand.clock.advance(60 * DAY_S)
    stand.restart()
    assert not state(stand).passed
    days(stand, 28)
    assert not state(stand).passed
    days(stand, 1)
    assert state(stand).passed


def test_the_same_change_in_later_charters_goes_on_and_another_or_none_begins_anew(stand: Stand) -> None:
    announce(stand)
    began = stand.clock.now_ns()
    days(stand, 20)
    announce(stand)
    assert state(stand).began_ns == began
    announce(stand, OTHER)
    assert state(stand).began_ns == stand.clock.now_ns()
    days(stand, 20)
    announce(stand)
    assert state(stand).began_ns == stand.clock.now_ns()
    publish_charter(stand.keeper, stand.tenant.charter(keybag=KEYBAG))
    assert state(stand).change == b""
    announce(stand)
    days(stand, 29)
    assert not state(stand).passed


def test_a_charter_under_a_root_that_nobody_announced_here_begins_no_wait(stand: Stand) -> None:
    """A wait that no home could see would be none: only a charter in force announces."""
    assert refusal(lambda: hand_over(stand)) == "conflict"
    assert state(stand).change == b""
    days(stand, 31)
    del stand.tenant.charters[-1]
    assert refusal(lambda: hand_over(stand)) == "conflict"
    assert stand.node.info().charter_number == 1
    del stand.tenant.charters[-1]
    announce(stand)
    days(stand, 30)
    hand_over(stand)
    assert stand.node.info().charter_number == 3


def test_roots_objection_ends_it_and_is_told_to_everybody(stand: Stand) -> None:
    announce(stand)
    days(stand, 29)
    assert state(stand, objection(stand.tenant)).objection == objection(stand.tenant)
    days(stand, 9)
    assert not state(stand).passed
    assert refusal(lambda: hand_over(stand)) == "conflict"
    assert refusal(lambda: enrol(stand, NEXT)) == "forbidden"
    stand.restart()
    found = stand.call("succession", SuccessionRequest(objection=b""), stand.node)
    assert isinstance(found, Succession)
    assert found.objection == objection(stand.tenant)


def test_an_objection_of_anybody_else_or_of_another_statement_is_refused(stand: Stand) -> None:
    tenant = stand.tenant
    announce(stand)
    for bad in (
        objection(tenant, tenant.owner),
        objection(tenant, NEXT),
        objection(tenant, tenant=bytes(16)),
        objection(tenant)[:-1] + b"\xff",
    ):
        assert refusal(lambda bad=bad: state(stand, bad)) == "bad-request"  # type: ignore[misc]
    assert refusal(lambda: state(stand, objection(tenant, statement=bytes(32)))) == "conflict"
    assert state(stand).objection == b""


def test_a_newer_root_statement_ends_both_the_objection_and_the_change(stand: Stand) -> None:
    tenant = stand.tenant
    announce(stand)
    state(stand, objection(tenant))
    first = tenant.root_statement()
    tenant.root_number, tenant.root_previous = 2, signed_hash(first)
    publish_charter(stand.keeper, tenant.charter(keybag=KEYBAG))
    assert (state(stand).change, state(stand).objection) == (b"", b"")
    announce(stand)
    days(stand, 30)
    assert state(stand).passed


def test_a_store_that_was_put_back_begins_anew(stand: Stand) -> None:
    announce(stand)
    days(stand, 29)
    stand.service.stop()
    stand.provider.close()
    with open(f"{stand.house.data}/.generation", "w", encoding="ascii") as file:
        file.write("99\n")
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    days(stand, 29)
    assert not state(stand).passed
    days(stand, 1)
    assert state(stand).passed


def test_root_has_no_say_any_more_and_whom_it_enrolled_has_what_the_charter_gives(stand: Stand) -> None:
    tenant = stand.tenant
    helper = SigningKey(SeededRng("helper").bytes(32))
    stand.service.enrol(
        EnrolRequest(holder_key=helper.public, secret=b"", order=tenant.order(helper, by=tenant.root), root=b"")
    )
    session = stand.service.session(helper.public)
    assert session.info().charter_number == 1
    session.handle("claims", encode(Empty()))
    announce(stand)
    days(stand, 30)
    hand_over(stand)
    assert refusal(lambda: stand.service.session(helper.public).handle("claims", encode(Empty()))) == "forbidden"
    assert refusal(lambda: state(stand, objection(tenant))) == "bad-request"
    stand.restart()
    assert refusal(lambda: enrol(stand, tenant.root)) == "replaced"
    rights = [right(tenant.keeper, "keeper")]
    publish_charter(
        stand.keeper,
        tenant.charter(rights, keybag=KEYBAG, root=successor(tenant), handovers=[change(tenant)]),
    )
    assert stand.keeper.info().charter_number == 4
