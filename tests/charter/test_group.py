"""Who is in a group follows from signed facts, in whatever order they came, and from nothing else."""

import random

import msgspec
import pytest

from replicator.charter.group import (
    MOST_ADMISSIONS,
    MOST_VOUCHERS,
    Known,
    Voice,
    found_group,
    hash_of_secret,
    merge,
    read_word,
)
from replicator.crypto.sign import Context, SigningKey
from replicator.errors import FormatError, IntegrityError
from replicator.format.charter import Floors, RootStatement
from replicator.format.codec import encode
from replicator.format.group import (
    MAX_FACT,
    MAX_FACTS,
    MAX_MEMBERS,
    Admission,
    Expulsion,
    Fact,
    Group,
    Member,
    Seat,
    Voucher,
)
from replicator.format.offer import Offer, encode_offer
from tests.fakes import SeededRng

NOW = 1_790_000_000 * 10**9


def key(name: str) -> SigningKey:
    return SigningKey(SeededRng(name).bytes(32))


def voice(name: str) -> Voice:
    """A provider that is a member by itself: who has a tenant signs in the same way, with a root statement beside."""
    return Voice(key=key(name))


def owner(name: str, number: int = 1, owner_key: str = "") -> Voice:
    root, speaks = key(f"root of {name}"), key(owner_key or f"owner of {name}")
    statement = RootStatement(
        tenant=bytes(16),
        number=number,
        previous=bytes(32),
        root_key=root.public,
        root_seal_key=bytes(32),
        owner_key=speaks.public,
        floors=Floors(lock_s=0, grace_s=0, delete_budget_percent=10, residency=[], minimum_copies=1),
        created_ns=NOW,
    )
    return Voice(key=speaks, root=root.sign(Context.ROOT_STATEMENT, encode(statement)))


def word(who: Voice, group: bytes, *, name: str, number: int = 1, left: bool = False, seat: bytes = b"") -> Fact:
    said = Member(
        group=group,
        number=number,
        name=name,
        root=who.root,
        provider=seat,
        state="left" if left else "in",
        said_ns=NOW,
    )
    return Fact(kind="member", signed=who.say(Context.MEMBER, said))


def voucher(who: Voice, group: bytes, *, code: str, door: Voice, revoked: bool = False) -> Fact:
    said = Voucher(
        group=group,
        root=who.root,
        door=door.key.identity,
        code=hash_of_secret(code.encode(), who.member),
        label="",
        expires_ns=NOW,
        revoked=revoked,
    )
    return Fact(kind="voucher", signed=who.say(Context.VOUCHER, said))


def admission(door: Voice, group: bytes, by: Fact, *, member: bytes, number: int = 1) -> Fact:
    said = Admission(group=group, voucher=by.signed, member=member, number=number, admitted_ns=NOW)
    return Fact(kind="admission", signed=door.say(Context.ADMISSION, said))


def expulsion(who: Voice, group: bytes, member: bytes, *, number: int = 1, stay: tuple[bytes, ...] = ()) -> Fact:
    said = Expulsion(group=group, root=who.root, member=member, number=number, reason="", stay=list(stay), said_ns=NOW)
    return Fact(kind="expulsion", signed=who.say(Context.EXPULSION, said))


def founded() -> Known:
    alice = voice("alice")
    group = Group(name="friends", salt=bytes(16), root=b"", created_ns=NOW)
    return found_group(alice, group, lambda group: read_word(word(alice, group, name="alice").signed)[1])


def brought(known: Known, by: str, name: str, *, number: int = 1) -> list[Fact]:
    """Return the facts with which a member brings another."""
    inviter, comer = voice(by), voice(name)
    code = voucher(inviter, known.group, code=f"{by} {name} {number}", door=inviter)
    let_in = admission(inviter, known.group, code, member=comer.member, number=number)
    return [code, let_in, word(comer, known.group, name=name, number=number)]


def states(known: Known, mine: str = "") -> dict[str, str]:
    return {one.name: one.state for one in known.members((voice(mine).member,) if mine else ())}


def all_kinds() -> tuple[Known, list[Fact]]:
    """A group in which all that can be said was said."""
    known = founded()
    group = known.group
    facts = [*known.facts]
    for by, name in (("alice", "bob"), ("bob", "carol"), ("carol", "dave"), ("alice", "erin"), ("erin", "frank")):
        facts += brought(known, by, name)
    facts += [
        word(voice("bob"), group, name="bob", number=2),
        word(voice("carol"), group, name="carol", number=5, left=True),
        *brought(known, "alice", "carol", number=6),
        expulsion(voice("alice"), group, voice("erin").member, stay=(voice("bob").member,)),
        expulsion(voice("bob"), group, voice("erin").member),
        expulsion(voice("dave"), group, voice("erin").member),
        voucher(voice("bob"), group, code="open", door=voice("bob")),
        voucher(voice("bob"), group, code="open", door=voice("bob"), revoked=True),
        offer_of("bob", 1),
        offer_of("bob", 2),
    ]
    return known, facts


def offer_of(name: str, number: int) -> Fact:
    said = Offer(
        provider_key=key(name).public,
        number=number,
        endpoints=[f"{name}.example:7144"],
        capacity=10**9,
        owner=name,
        site="cellar",
        region="umea",
        country="SE",
        lock_s=0,
        grace_s=0,
        wire=[1],
        created_ns=NOW,
    )
    return Fact(kind="offer", signed=key(name).sign(Context.OFFER, encode_offer(said)))


@pytest.mark.parametrize("seed", range(20))
def test_the_order_in_which_facts_come_does_not_matter(seed: int) -> None:
    _, facts = all_kinds()
    whole = merge(None, facts)
    choice = random.Random(seed)
    mixed = facts * 2
    choice.shuffle(mixed)
    cut = choice.randrange(len(mixed))
    one = merge(None, [facts[0], *mixed[:cut], *mixed])
    assert one.hashes == whole.hashes
    assert one.members() == whole.members()
    assert states(one) == {
        "alice": "in",
        "bob": "in",
        "carol": "in",
        "dave": "in",
        "erin": "expelled",
        "frank": "expelled",
    }


def test_two_who_swap_what_the_other_lacks_know_the_same() -> None:
    _, facts = all_kinds()
    one, two = merge(None, [facts[0], *facts[1:20]]), merge(None, [facts[0], *facts])
    assert merge(one, two.beside(one.hashes)).hashes == two.hashes
    assert two.beside(two.hashes) == []


def test_who_was_let_in_by_nobody_in_it_is_none() -> None:
    known = founded()
    facts = brought(known, "mallory", "trudy")
    assert states(merge(known, facts)) == {"alice": "in"}
    assert merge(known, [*facts, word(voice("mallory"), known.group, name="mallory")]).hashes == known.hashes


def test_an_admission_counts_by_the_door_that_the_voucher_names() -> None:
    known = founded()
    code = voucher(voice("alice"), known.group, code="c", door=voice("alice"))
    forged = admission(voice("mallory"), known.group, code, member=voice("mallory").member)
    with pytest.raises(IntegrityError, match="not by the provider that its voucher names"):
        merge(known, [forged, word(voice("mallory"), known.group, name="mallory")])


def test_an_admission_by_a_revoked_voucher_does_not_hold() -> None:
    known = founded()
    code = voucher(voice("alice"), known.group, code="c", door=voice("alice"), revoked=True)
    with pytest.raises(IntegrityError):
        merge(known, [admission(voice("alice"), known.group, code, member=voice("bob").member)])


@pytest.mark.parametrize("number", range(12))
def test_a_byte_of_a_signature_that_is_changed_is_seen(number: int) -> None:
    known, facts = all_kinds()
    fact = facts[(number * 3) % len(facts)]
    changed = bytearray(fact.signed)
    changed[40 + number] ^= 1
    with pytest.raises((IntegrityError, FormatError)):
        merge(known, [Fact(kind=fact.kind, signed=bytes(changed))])


def test_a_fact_of_one_kind_is_not_taken_for_another() -> None:
    known, facts = all_kinds()
    for fact in facts[2:]:
        for kind in ("group", "member", "voucher", "admission", "expulsion", "offer"):
            if kind != fact.kind:
                with pytest.raises((IntegrityError, FormatError)):
                    merge(known, [msgspec.structs.replace(fact, kind=kind)])


def test_facts_of_another_group_are_none_of_this_one() -> None:
    known = founded()
    other = msgspec.structs.replace(
        read_word(word(voice("alice"), known.group, name="alice").signed)[1], group=bytes(32), number=7
    )
    fact = Fact(kind="member", signed=voice("alice").say(Context.MEMBER, other))
    assert merge(known, [fact]).hashes == known.hashes
    with pytest.raises(IntegrityError, match="not the one that was meant"):
        merge(None, known.facts, group=bytes(32))


def test_an_owner_speaks_for_the_root_that_names_it_and_for_no_other() -> None:
    known = founded()
    bob = owner("bob")
    code = voucher(voice("alice"), known.group, code="c", door=voice("alice"))
    let_in = admission(voice("alice"), known.group, code, member=bob.member)
    seat = key("bobs disk").sign(Context.SEAT, encode(Seat(group=known.group, member=bob.member)))
    known = merge(known, [code, let_in, word(bob, known.group, name="bob", seat=seat)])
    [found] = [one for one in known.members() if one.name == "bob"]
    assert (found.id, found.provider, found.root and found.root.number) == (bob.member, key("bobs disk").identity, 1)
    replaced = owner("bob", 2, "another owner")
    assert replaced.member == bob.member
    known = merge(known, [word(replaced, known.group, name="bob", number=2)])
    assert states(known)["bob"] == "in"
    thief = Voice(key=key("thief"), root=bob.root)
    with pytest.raises(IntegrityError, match="has not named owner"):
        merge(known, [word(thief, known.group, name="bob", number=3, left=True)])


def test_nobody_brings_another_members_provider() -> None:
    known = founded()
    bob = owner("bob")
    seat = key("alices disk").sign(Context.SEAT, encode(Seat(group=known.group, member=voice("alice").member)))
    with pytest.raises(IntegrityError, match="another member's"):
        merge(known, [word(bob, known.group, name="bob", seat=seat)])


def test_who_left_is_not_brought_back_by_others() -> None:
    """A hostile member signs admissions with whatever number it likes: who left has to say that it is in again."""
    known = merge(founded(), brought(founded(), "alice", "bob"))
    known = merge(known, [word(voice("bob"), known.group, name="bob", number=2, left=True)])
    code = voucher(voice("alice"), known.group, code="again", door=voice("alice"))
    for number in (1, 2, 3, 2**62):
        let_in = admission(voice("alice"), known.group, code, member=voice("bob").member, number=number)
        assert states(merge(known, [code, let_in]))["bob"] == "left"
    known = merge(known, brought(known, "alice", "bob", number=3))
    assert states(known)["bob"] == "in"
    late = word(voice("bob"), known.group, name="bob", number=2)
    assert states(merge(known, [late]))["bob"] == "in"


def test_an_admission_with_a_wild_number_changes_nothing_for_who_is_in() -> None:
    known = merge(founded(), brought(founded(), "alice", "bob"))
    code = voucher(voice("alice"), known.group, code="wild", door=voice("alice"))
    known = merge(known, [code, admission(voice("alice"), known.group, code, member=voice("bob").member, number=2**62)])
    assert states(known)["bob"] == "in"
    known = merge(known, [word(voice("bob"), known.group, name="bob", number=2, left=True)])
    assert states(known)["bob"] == "left"


def test_most_of_the_others_put_somebody_out_and_a_single_one_does_not() -> None:
    known = founded()
    for name in ("bob", "carol", "dave"):
        known = merge(known, brought(known, "alice", name))
    dave = voice("dave").member
    one = merge(known, [expulsion(voice("bob"), known.group, dave)])
    assert states(one)["dave"] == "in"
    assert states(one, "bob")["dave"] == "expelled"
    assert states(one, "carol")["dave"] == "in"
    two = merge(one, [expulsion(voice("carol"), known.group, dave)])
    assert states(two)["dave"] == "expelled"
    stranger = merge(one, [expulsion(voice("mallory"), known.group, dave)])
    assert states(stranger)["dave"] == "in"
    himself = merge(one, [expulsion(voice("dave"), known.group, dave)])
    assert states(himself)["dave"] == "in"


def test_members_that_somebody_made_up_do_not_save_him_from_who_expels_him() -> None:
    """They may be more than all others: for who has said it himself they are out with him, whatever they sign."""
    known = merge(founded(), brought(founded(), "alice", "mallory"))
    names = [f"sybil {number}" for number in range(5)]
    for name in names:
        known = merge(known, brought(known, "mallory", name))
    sybils = tuple(voice(name).member for name in names)
    facts = [expulsion(voice(name), known.group, voice("mallory").member, stay=sybils) for name in names]
    facts += [expulsion(voice(name), known.group, voice("alice").member) for name in (*names, "mallory")]
    facts.append(expulsion(voice("alice"), known.group, voice("mallory").member))
    known = merge(known, facts)
    mine = states(known, "alice")
    assert {mine[name] for name in ("mallory", *names)} == {"expelled"}
    assert {one.name for one in known.members((voice("alice").member,)) if one.state == "in"} <= {"alice"}


def test_whom_the_expelled_founder_brought_stays() -> None:
    known = founded()
    for name in ("bob", "carol"):
        known = merge(known, brought(known, "alice", name))
    alice, bob, carol = (voice(name).member for name in ("alice", "bob", "carol"))
    known = merge(
        known,
        [
            expulsion(voice("bob"), known.group, alice, stay=(bob, carol)),
            expulsion(voice("carol"), known.group, alice, stay=(bob, carol)),
        ],
    )
    assert states(known) == {"alice": "expelled", "bob": "in", "carol": "in"}


def test_two_who_came_by_one_code_are_shown() -> None:
    known = founded()
    code = voucher(voice("alice"), known.group, code="c", door=voice("alice"))
    facts = [code]
    for name in ("bob", "carol"):
        facts.append(admission(voice("alice"), known.group, code, member=voice(name).member))
        facts.append(word(voice(name), known.group, name=name))
    found = merge(known, [*facts, *brought(known, "alice", "dave")]).members()
    assert {one.name: one.doubled for one in found} == {"alice": False, "bob": True, "carol": True, "dave": False}


@pytest.mark.parametrize("owner_key", ["", "another owner key"])
def test_a_hostile_door_makes_two_members_of_one_code_and_keeps_nobody_out_who_was_known(owner_key: str) -> None:
    """Also with the same code in another voucher, as an inviter signs one whose owner key was rotated."""
    known = founded()
    alice, door = owner("ann"), voice("alice")
    code = voucher(door, known.group, code="for ann", door=door)
    let_in = admission(door, known.group, code, member=alice.member)
    known = merge(known, [code, let_in, word(alice, known.group, name="ann")])
    invites = voucher(alice, known.group, code="c", door=door)
    friend = [
        admission(door, known.group, invites, member=voice("bob").member),
        word(voice("bob"), known.group, name="bob"),
    ]
    again = voucher(owner("ann", 2, owner_key), known.group, code="c", door=door) if owner_key else invites
    flood = [
        fact
        for number in range(MOST_ADMISSIONS)
        for fact in (
            admission(door, known.group, again, member=voice(f"x{number}").member),
            word(voice(f"x{number}"), known.group, name=f"x{number}"),
        )
    ]
    unheard = merge(known, [invites, *flood])
    assert len(unheard.members()) == 4, "the founder, who invited, and two"
    assert states(merge(unheard, friend)) == states(unheard), "what was known before stays"
    heard = merge(merge(known, [invites, *friend]), flood)
    assert len(heard.members()) == 4
    assert [one.doubled for one in heard.members() if one.name == "bob"] == [True]
    named = {by for _, _, by in heard.admissions()}
    assert alice.member in named, "it is seen whose code it was"
    back = brought(unheard, "alice", "bob")
    assert states(merge(unheard, back))["bob"] == "in", "by another code"


def test_a_flood_of_members_keeps_nobody_out_who_was_known() -> None:
    known = merge(founded(), brought(founded(), "alice", "bob"))
    flood = [fact for number in range(MAX_MEMBERS + 8) for fact in brought(known, "bob", f"x{number}")]
    known = merge(known, flood)
    assert len(known.members()) == MOST_ADMISSIONS + 2
    known = merge(known, brought(known, "alice", "carol"))
    assert states(known)["carol"] == "in"
    more = [fact for number in range(MAX_MEMBERS) for fact in brought(known, "carol", f"y{number}")]
    full = merge(known, more)
    assert len(full.members()) == MAX_MEMBERS
    assert {"alice", "bob", "carol"} <= set(states(full))


def test_a_flood_of_codes_crowds_out_the_signers_own_alone() -> None:
    known = merge(founded(), brought(founded(), "alice", "bob"))
    known = merge(known, [voucher(voice("alice"), known.group, code="mine", door=voice("alice"))])
    flood = [voucher(voice("bob"), known.group, code=str(number), door=voice("bob")) for number in range(40)]
    known = merge(known, flood)
    by = [member for member, _, _, _ in known.vouchers()]
    assert by.count(voice("bob").member) == MOST_VOUCHERS
    assert by.count(voice("alice").member) == 2


def test_members_that_somebody_made_up_crowd_out_nobody_elses_words() -> None:
    """They can sign more than a group may have of facts; then nobody could expel them, or leave, or give out a code."""
    known = merge(merge(founded(), brought(founded(), "alice", "bob")), brought(founded(), "alice", "mallory"))
    sybils = [f"sybil {number}" for number in range(MAX_MEMBERS - 3)]
    for name in sybils:
        known = merge(known, brought(known, "mallory" if name in sybils[:30] else sybils[0], name))
    assert len(known.members()) == MAX_MEMBERS
    flood = []
    for name in sybils:
        who, others = voice(name), [voice(other).member for other in sybils[:2] if other != name]
        flood += [voucher(who, known.group, code=str(number), door=who) for number in range(MOST_VOUCHERS)]
        flood += [expulsion(who, known.group, other) for other in others]
    full = merge(known, flood)
    assert len(full.facts) == MAX_FACTS
    alice, bob = voice("alice"), voice("bob")
    said = [
        expulsion(alice, known.group, voice("mallory").member, stay=(bob.member,)),
        word(bob, known.group, name="bob", number=2, left=True),
        voucher(alice, known.group, code="for carol", door=alice),
        offer_of("bob", 1),
    ]
    for found in (merge(full, said), merge(merge(full, said), flood), merge(None, merge(full, said).facts)):
        assert len(found.facts) == MAX_FACTS
        assert set(said) <= set(found.facts)
        mine = states(found, "alice")
        assert mine["bob"] == "left"
        assert {mine[name] for name in ("mallory", *sybils)} == {"expelled"}
        assert [one.id for one in found.members((alice.member,)) if one.state == "in"] == [alice.member]


def test_a_revoked_code_is_not_taken_back() -> None:
    known = founded()
    given, revoked = (
        voucher(voice("alice"), known.group, code="c", door=voice("alice"), revoked=state) for state in (False, True)
    )
    known = merge(known, [revoked, given])
    assert [one.revoked for _, _, one, _ in known.vouchers()] == [True]


def test_a_fact_that_is_too_large_is_none() -> None:
    known = founded()
    with pytest.raises(FormatError):
        merge(known, [Fact(kind="member", signed=bytes(MAX_FACT + 1))])


def test_what_is_known_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, facts = all_kinds()
    known = merge(None, facts)

    def refuse(*_: object) -> bytes:
        raise AssertionError("a signature was looked at again")

    monkeypatch.setattr("replicator.charter.group.verify", refuse)
    assert merge(known, facts).hashes == merge(None, known.facts).hashes == known.hashes
