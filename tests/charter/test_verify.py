from typing import Any

import msgspec
import pytest

from replicator.charter.verify import (
    HIGHEST_UNSEEN,
    MOST_AHEAD,
    NO_PREVIOUS,
    VerifiedCharter,
    belongs_to_root,
    below_floors,
    signed_hash,
    verify_change,
    verify_charter,
    verify_enrol_order,
    verify_objection,
    verify_root,
)
from replicator.crypto.sign import Context, SigningKey
from replicator.errors import FormatError, IntegrityError, RootWaitsError
from replicator.format.charter import Charter, EnrolOrder, Floors, Objection, Right, RootChange, RootStatement
from replicator.format.codec import encode
from replicator.ids import tenant_of
from tests.format.samples import CHARTER, CODED, NOW, POLICY, RIGHT, ROOT

ROOT_KEY, OWNER, NODE, KEEPER, STRANGER = (SigningKey(bytes([i]) * 32) for i in range(1, 6))
MINUTE = 60 * 10**9


def statement(key: SigningKey = ROOT_KEY, **changes: Any) -> bytes:
    """Return a signed root statement."""
    fields: dict[str, Any] = {
        "number": 1,
        "previous": NO_PREVIOUS,
        "root_key": ROOT_KEY.public,
        "owner_key": OWNER.public,
    }
    return key.sign(Context.ROOT_STATEMENT, encode(msgspec.structs.replace(ROOT, **(fields | changes))))


def right(key: SigningKey, **changes: Any) -> Right:
    """Return a right bound to a key."""
    return msgspec.structs.replace(RIGHT, **({"holder_key": key.public, "revoked": False} | changes))


def charter(key: SigningKey = OWNER, **changes: Any) -> bytes:
    """Return a signed charter, number 5 unless told otherwise."""
    fields: dict[str, Any] = {
        "number": 5,
        "root": statement(),
        "rights": [right(NODE), right(KEEPER, role="keeper")],
        "change": b"",
        "handovers": [],
    }
    return key.sign(Context.CHARTER, encode(msgspec.structs.replace(CHARTER, **(fields | changes))))


def verified(signed: bytes, known: VerifiedCharter | None = None) -> VerifiedCharter:
    """Return a charter verified against this test's root."""
    return verify_charter(signed, root_key=ROOT_KEY.public, known=known)


KNOWN = verified(charter())


class TestRoot:
    def test_a_statement_of_the_pinned_root_holds(self) -> None:
        assert verify_root(statement(), ROOT_KEY.public).owner_key == OWNER.public

    def test_without_a_pin_the_statement_shows_its_own_root(self) -> None:
        assert verify_root(statement(), None).root_key == ROOT_KEY.public

    def test_another_root_than_the_pinned_one_is_refused(self) -> None:
        with pytest.raises(IntegrityError, match="may not"):
            verify_root(statement(STRANGER, root_key=STRANGER.public), ROOT_KEY.public)

    @pytest.mark.parametrize("pin", [None, STRANGER.public])
    def test_a_signer_that_names_another_key_as_root_is_refused(self, pin: bytes | None) -> None:
        with pytest.raises(IntegrityError, match="another root key"):
            verify_root(statement(STRANGER), pin)

    @pytest.mark.parametrize("context", [Context.CHARTER, Context.ENROL_ORDER, Context.NODE_REQUEST])
    def test_a_signature_of_root_for_something_else_is_no_statement(self, context: Context) -> None:
        with pytest.raises(IntegrityError, match="does not hold"):
            verify_root(ROOT_KEY.sign(context, encode(ROOT)), None)

    def test_what_is_too_short_is_refused(self) -> None:
        for data in (b"", bytes(31), bytes(96)):
            with pytest.raises(FormatError):
                verify_root(data, None)


class TestCharter:
    def test_a_charter_of_the_owner_that_root_names_holds(self) -> None:
        signed = charter()
        found = verified(signed)
        assert (found.number, found.signed, found.hash) == (5, signed, signed_hash(signed))
        assert found.root.owner_key == OWNER.public

    def test_a_charter_of_anyone_else_is_refused(self) -> None:
        with pytest.raises(IntegrityError, match="not named owner"):
            verified(charter(STRANGER))
        with pytest.raises(IntegrityError, match="not named owner"):
            verified(charter(ROOT_KEY))

    def test_a_charter_under_another_root_is_refused(self) -> None:
        other = statement(STRANGER, root_key=STRANGER.public)
        with pytest.raises(IntegrityError):
            verified(charter(root=other))
        with pytest.raises(IntegrityError):
            verify_charter(charter(), root_key=STRANGER.public, known=None)

    def test_a_root_statement_of_another_tenant_is_refused(self) -> None:
        with pytest.raises(IntegrityError, match="another tenant"):
            verified(charter(root=statement(tenant=bytes(16))))

    def test_every_flipped_bit_is_found(self) -> None:
        signed = charter()
        for at in range(0, len(signed), 7):
            broken = bytearray(signed)
            broken[at] ^= 1
            with pytest.raises((IntegrityError, FormatError)):
                verified(bytes(broken))

    def test_a_key_has_one_right_at_most(self) -> None:
        twice = [right(NODE, revoked=True), right(KEEPER), right(NODE)]
        with pytest.raises(IntegrityError, match="twice"):
            verified(charter(rights=twice))

    def test_an_older_number_is_refused(self) -> None:
        with pytest.raises(IntegrityError, match="number 4 is older than 5"):
            verified(charter(number=4), KNOWN)

    def test_the_same_charter_again_is_fine(self) -> None:
        assert verified(charter(), KNOWN).hash == KNOWN.hash

    def test_a_number_leaps_no_further_than_anybody_can_have_missed(self) -> None:
        assert verified(charter(number=5 + MOST_AHEAD), KNOWN).number == 5 + MOST_AHEAD
        with pytest.raises(IntegrityError, match="leaps"):
            verified(charter(number=6 + MOST_AHEAD), KNOWN)
        with pytest.raises(IntegrityError, match="higher than any"):
            verified(charter(number=HIGHEST_UNSEEN + 1))
        assert verified(charter(number=HIGHEST_UNSEEN)).number == HIGHEST_UNSEEN

    def test_root_ends_a_line_that_went_far_ahead_and_begins_another(self) -> None:
        anew = statement(number=2, previous=signed_hash(statement()))
        assert verified(charter(number=6 + MOST_AHEAD, root=anew), KNOWN).number == 6 + MOST_AHEAD

    def test_another_charter_with_the_same_number_is_refused(self) -> None:
        with pytest.raises(IntegrityError, match="two different charters have the number 5"):
            verified(charter(created_ns=NOW + 1), KNOWN)

    def test_the_next_one_must_name_the_one_before(self) -> None:
        assert verified(charter(number=6, previous=KNOWN.hash), KNOWN).number == 6
        with pytest.raises(IntegrityError, match="does not follow"):
            verified(charter(number=6, previous=bytes(32)), KNOWN)

    def test_a_later_one_may_leave_a_gap(self) -> None:
        assert verified(charter(number=9, previous=bytes(32)), KNOWN).number == 9

    def test_another_tenants_charter_does_not_follow(self) -> None:
        tenant = bytes(16)
        with pytest.raises(IntegrityError, match="another tenant"):
            verified(charter(number=9, tenant=tenant, root=statement(tenant=tenant)), KNOWN)

    def test_an_older_root_statement_is_refused(self) -> None:
        newer = statement(number=2, previous=signed_hash(statement()))
        known = verified(charter(number=6, previous=KNOWN.hash, root=newer), KNOWN)
        with pytest.raises(IntegrityError, match="root statement is older"):
            verified(charter(number=7, previous=known.hash), known)

    def test_two_root_statements_with_one_number_are_refused(self) -> None:
        other = statement(floors=msgspec.structs.replace(ROOT.floors, minimum_copies=1))
        with pytest.raises(IntegrityError, match="two different root statements have the number 1"):
            verified(charter(number=6, previous=KNOWN.hash, root=other), KNOWN)

    def test_the_next_root_statement_must_name_the_one_before(self) -> None:
        with pytest.raises(IntegrityError, match="root statement does not follow"):
            verified(charter(number=6, previous=KNOWN.hash, root=statement(number=2)), KNOWN)
        verified(charter(number=6, previous=KNOWN.hash, root=statement(number=3)), KNOWN)

    def test_root_may_name_a_new_owner_and_the_old_one_is_out(self) -> None:
        newer = statement(number=2, previous=signed_hash(statement()), owner_key=STRANGER.public)
        found = verified(charter(STRANGER, number=6, previous=KNOWN.hash, root=newer), KNOWN)
        with pytest.raises(IntegrityError, match="older"):
            verified(charter(OWNER, number=7, previous=found.hash), found)


class TestRights:
    def test_a_key_has_the_right_the_charter_gives_it(self) -> None:
        found = KNOWN.right_of(NODE.public)
        assert found is not None
        assert found.role == "node"

    def test_an_unknown_or_revoked_key_has_none(self) -> None:
        revoked = verified(charter(rights=[right(NODE, revoked=True)]))
        assert revoked.right_of(NODE.public) is None
        assert KNOWN.right_of(STRANGER.public) is None

    def test_snapshots_of_a_revoked_node_stay_valid(self) -> None:
        found = verified(charter(rights=[right(NODE, revoked=True), right(KEEPER, role="keeper")]))
        assert found.writer_keys() == [NODE.public]


SECOND, THIRD = (SigningKey(bytes([i]) * 32) for i in (11, 12))
"""Roots that follow the first."""


def follows(former: bytes, key: SigningKey, **changes: Any) -> bytes:
    """Return the statement of a root that follows a signed one."""
    fields: dict[str, Any] = {
        "number": verify_root(former, None).number + 1,
        "previous": signed_hash(former),
        "root_key": key.public,
    }
    return statement(key, **(fields | changes))


def change(former: bytes, successor: bytes, owner: SigningKey = OWNER, **changes: Any) -> bytes:
    """Return a signed change of root."""
    record = RootChange(tenant=ROOT.tenant, former=former, successor=successor, announced_ns=NOW)
    return owner.sign(Context.ROOT_CHANGE, encode(msgspec.structs.replace(record, **changes)))


FORMER = statement()
SUCCESSOR = follows(FORMER, SECOND)
CHANGE = change(FORMER, SUCCESSOR)


def later(**changes: Any) -> bytes:
    """Return a charter under the second root."""
    fields: dict[str, Any] = {"number": 6, "previous": KNOWN.hash, "root": SUCCESSOR, "handovers": [CHANGE]}
    return charter(**(fields | changes))


class TestChangeOfRoot:
    def test_the_owner_says_that_one_root_follows_the_other(self) -> None:
        found = verify_change(CHANGE)
        assert (found.former.root_key, found.successor.root_key) == (ROOT_KEY.public, SECOND.public)
        assert (found.former_hash, found.successor_hash) == (signed_hash(FORMER), signed_hash(SUCCESSOR))
        assert found.hash == signed_hash(CHANGE)

    @pytest.mark.parametrize(
        ("broken", "why"),
        [
            (change(FORMER, SUCCESSOR, STRANGER), "do not both name owner"),
            (change(FORMER, follows(FORMER, SECOND, owner_key=STRANGER.public)), "do not both name owner"),
            (change(FORMER, follows(FORMER, SECOND, tenant=bytes(16))), "several tenants"),
            (change(FORMER, SUCCESSOR, tenant=bytes(16)), "several tenants"),
            (change(FORMER, follows(FORMER, ROOT_KEY)), "the same root"),
            (change(FORMER, follows(FORMER, SECOND, number=3)), "does not follow"),
            (change(FORMER, follows(FORMER, SECOND, previous=bytes(32))), "does not follow"),
            (
                change(FORMER, follows(FORMER, SECOND, floors=msgspec.structs.replace(ROOT.floors, minimum_copies=1))),
                "floors",
            ),
            (change(FORMER, SECOND.sign(Context.CHARTER, encode(ROOT))), "does not hold"),
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, broken: bytes, why: str) -> None:
        with pytest.raises(IntegrityError, match=why):
            verify_change(broken)

    def test_a_charter_announces_a_change_of_its_own_root_statement_alone(self) -> None:
        found = verified(charter(change=CHANGE))
        assert found.pending is not None
        assert found.root.root_key == ROOT_KEY.public
        newer = statement(number=2, previous=signed_hash(FORMER))
        with pytest.raises(IntegrityError, match="of another root statement than its own"):
            verified(charter(root=newer, change=CHANGE))

    def test_a_charter_under_the_next_root_holds_for_who_has_waited(self) -> None:
        found = verify_charter(later(), root_key=ROOT_KEY.public, known=KNOWN, passed=[signed_hash(CHANGE)])
        assert found.root.root_key == SECOND.public
        assert verify_charter(later(), root_key=SECOND.public, known=None).hash == found.hash

    def test_for_who_has_not_it_waits_and_the_change_is_named(self) -> None:
        for passed in ((), [bytes(32)]):
            with pytest.raises(RootWaitsError) as caught:
                verify_charter(later(), root_key=ROOT_KEY.public, known=KNOWN, passed=passed)
            assert caught.value.change == CHANGE

    def test_what_is_wrong_besides_is_not_hidden_by_the_wait(self) -> None:
        with pytest.raises(IntegrityError, match="does not follow"):
            verify_charter(later(previous=bytes(32)), root_key=ROOT_KEY.public, known=KNOWN)
        with pytest.raises(IntegrityError, match="older"):
            verify_charter(later(number=4), root_key=ROOT_KEY.public, known=KNOWN)

    def test_a_chain_of_roots_is_followed_from_any_of_them(self) -> None:
        third = follows(SUCCESSOR, THIRD)
        second_change = change(SUCCESSOR, third)
        signed = later(root=third, handovers=[CHANGE, second_change])
        both = [signed_hash(CHANGE), signed_hash(second_change)]
        for key in (ROOT_KEY, SECOND, THIRD):
            assert verify_charter(signed, root_key=key.public, known=None, passed=both).root.root_key == THIRD.public
        with pytest.raises(RootWaitsError) as caught:
            verify_charter(signed, root_key=ROOT_KEY.public, known=None, passed=both[:1])
        assert caught.value.change == second_change
        with pytest.raises(IntegrityError, match="may not"):
            verify_charter(later(root=third, handovers=[second_change]), root_key=ROOT_KEY.public, known=None)

    def test_an_id_belongs_to_the_root_it_is_made_of_and_to_those_that_followed(self) -> None:
        tenant = tenant_of(ROOT_KEY.public)
        first = statement(tenant=tenant)
        second = follows(first, SECOND, tenant=tenant)
        third = follows(second, THIRD, tenant=tenant)
        changes = [change(first, second, tenant=tenant), change(second, third, tenant=tenant)]
        assert belongs_to_root(tenant, ROOT_KEY.public)
        assert belongs_to_root(tenant, THIRD.public, changes)
        assert not belongs_to_root(tenant, THIRD.public)
        assert not belongs_to_root(tenant, SECOND.public, changes), "it was followed"
        assert not belongs_to_root(tenant, THIRD.public, changes[1:]), "nothing leads there from the first"
        assert not belongs_to_root(tenant, STRANGER.public, changes)
        assert not belongs_to_root(ROOT.tenant, SECOND.public, [CHANGE]), "the id was made of nothing"
        with pytest.raises(IntegrityError):
            belongs_to_root(tenant, THIRD.public, [change(first, second, STRANGER, tenant=tenant)])

    def test_what_the_new_root_says_later_follows_the_change(self) -> None:
        passed = [signed_hash(CHANGE)]
        newer = follows(SUCCESSOR, SECOND, floors=msgspec.structs.replace(ROOT.floors, minimum_copies=1))
        found = verify_charter(later(root=newer), root_key=ROOT_KEY.public, known=KNOWN, passed=passed)
        assert found.root.floors.minimum_copies == 1
        for root, why in (
            (follows(SUCCESSOR, SECOND, previous=bytes(32)), "does not follow"),
            (follows(SUCCESSOR, SECOND, number=2), "two different root statements"),
            (follows(SUCCESSOR, SECOND, number=1), "older"),
        ):
            with pytest.raises(IntegrityError, match=why):
                verify_charter(later(root=root), root_key=ROOT_KEY.public, known=KNOWN, passed=passed)

    def test_a_change_of_a_statement_that_root_has_replaced_leads_nowhere(self) -> None:
        newer = statement(number=2, previous=signed_hash(FORMER))
        known = verified(charter(root=newer))
        far = follows(SUCCESSOR, SECOND, number=9, previous=bytes(32))
        signed = charter(number=7, root=far, handovers=[CHANGE])
        with pytest.raises(IntegrityError, match="older than one that was seen"):
            verify_charter(signed, root_key=ROOT_KEY.public, known=known, passed=[signed_hash(CHANGE)])

    def test_root_objects_for_its_own_tenant(self) -> None:
        record = Objection(tenant=ROOT.tenant, statement=signed_hash(FORMER), created_ns=NOW)
        signed = ROOT_KEY.sign(Context.OBJECTION, encode(record))
        assert verify_objection(signed, root_key=ROOT_KEY.public, tenant=ROOT.tenant) == record
        with pytest.raises(IntegrityError, match="another tenant"):
            verify_objection(signed, root_key=ROOT_KEY.public, tenant=bytes(16))
        for signer in (OWNER, SECOND):
            with pytest.raises(IntegrityError, match="may not"):
                verify_objection(
                    signer.sign(Context.OBJECTION, encode(record)), root_key=ROOT_KEY.public, tenant=ROOT.tenant
                )


class TestEnrolOrder:
    def order(self, expires_ns: int) -> bytes:
        return OWNER.sign(Context.ENROL_ORDER, encode(EnrolOrder(holder_key=NODE.public, expires_ns=expires_ns)))

    @pytest.mark.parametrize("late", [-MINUTE, 0, 15 * MINUTE])
    def test_an_order_holds_until_it_expires_and_a_little_longer(self, late: int) -> None:
        found = verify_enrol_order(self.order(NOW), [OWNER.public], now_ns=NOW + late, skew_ns=15 * MINUTE)
        assert found.holder_key == NODE.public

    def test_an_expired_order_is_refused(self) -> None:
        with pytest.raises(IntegrityError, match="expired"):
            verify_enrol_order(self.order(NOW), [OWNER.public], now_ns=NOW + 15 * MINUTE + 1, skew_ns=15 * MINUTE)

    def test_an_order_without_a_date_never_expires(self) -> None:
        assert verify_enrol_order(self.order(0), [OWNER.public], now_ns=2**62, skew_ns=0).expires_ns == 0

    def test_an_order_of_anyone_else_is_refused(self) -> None:
        with pytest.raises(IntegrityError, match="may not"):
            verify_enrol_order(self.order(0), [ROOT_KEY.public], now_ns=NOW, skew_ns=0)

    def test_a_signature_of_the_owner_for_something_else_is_no_order(self) -> None:
        body = encode(EnrolOrder(holder_key=NODE.public, expires_ns=0))
        with pytest.raises(IntegrityError, match="does not hold"):
            verify_enrol_order(OWNER.sign(Context.NODE_REQUEST, body), [OWNER.public], now_ns=NOW, skew_ns=0)


def root_with(**changes: Any) -> RootStatement:
    """Return a root statement with other floors."""
    floors: Floors = msgspec.structs.replace(ROOT.floors, **changes)
    return msgspec.structs.replace(ROOT, floors=floors)


class TestFloors:
    def test_a_policy_within_the_floors_has_nothing_said_of_it(self) -> None:
        assert below_floors(POLICY, root_with(minimum_copies=3, residency=["EEA"])) == []
        assert below_floors(POLICY, root_with(minimum_copies=1, residency=[])) == []

    def test_too_few_copies_are_named(self) -> None:
        [said] = below_floors(POLICY, root_with(minimum_copies=4))
        assert said == "3 copies are fewer than the 4 copies that root demands"

    def test_a_coding_counts_by_the_losses_it_survives(self) -> None:
        assert below_floors(CODED, root_with(minimum_copies=3, residency=[])) == []
        [said] = below_floors(CODED, root_with(minimum_copies=4, residency=[]))
        assert said == "a coding that survives 2 losses is fewer than the 4 copies that root demands"

    @pytest.mark.parametrize(
        ("ceiling", "wanted"),
        [
            (["EEA"], ["SE"]),
            (["EEA"], ["NO", "SE"]),
            (["EEA"], ["EU"]),
            (["EEA"], ["EEA"]),
            (["SE"], ["SE"]),
            ([], ["US"]),
        ],
    )
    def test_a_residency_inside_the_ceiling_is_fine(self, ceiling: list[str], wanted: list[str]) -> None:
        policy = msgspec.structs.replace(POLICY, residency=wanted)
        assert below_floors(policy, root_with(residency=ceiling)) == []

    @pytest.mark.parametrize(
        ("ceiling", "wanted", "beyond"),
        [
            (["EEA"], ["US"], "US"),
            (["EEA"], ["SE", "US"], "US"),
            (["EU"], ["EEA"], "EEA"),
            (["SE"], ["EEA"], "EEA"),
            (["SE"], ["Atlantis"], "Atlantis"),
        ],
    )
    def test_a_residency_beyond_the_ceiling_is_named(self, ceiling: list[str], wanted: list[str], beyond: str) -> None:
        policy = msgspec.structs.replace(POLICY, residency=wanted)
        [said] = below_floors(policy, root_with(residency=ceiling))
        assert said.startswith(f"residency in {beyond} goes beyond {ceiling[0]}")

    def test_no_residency_under_a_ceiling_is_named(self) -> None:
        policy = msgspec.structs.replace(POLICY, residency=[])
        assert below_floors(policy, root_with(residency=["EEA"])) == ["no residency is set, root allows only EEA"]


def test_the_hash_of_a_signed_record_covers_its_signature() -> None:
    signed = charter()
    assert signed_hash(signed) != signed_hash(signed[96:])
    assert isinstance(KNOWN.charter, Charter)
