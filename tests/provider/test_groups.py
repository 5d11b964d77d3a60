"""What a provider does for the group that it is in, request by request; hostile ones too."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from replicator.charter import group
from replicator.charter.group import MOST_ADMISSIONS, Known, Voice, found_group, merge, read_word
from replicator.crypto import sign
from replicator.crypto.sign import SigningKey
from replicator.format.codec import decode, encode
from replicator.format.group import Fact, Group
from replicator.provider.home import Provider
from replicator.provider.service import ProviderService
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import EnrolRequest, GroupReply, GroupRequest, JoinRequest
from tests.charter.test_group import admission, expulsion, voucher, word
from tests.provider.tenant import MIB, House, Tenant, secret_of

SECRET = b"sixteen bytes..."
CODE = SECRET.decode()


class Stand:
    """A provider that founded a group as a member by itself, and what is sent to it."""

    def __init__(self, path: str) -> None:
        self.house = House(path)
        self.provider: Provider = self.house.init()
        self.service: ProviderService = self.provider.start()
        self.door = Voice(key=self.provider.key)
        self.provider.set_for_members(100 * MIB)

    def enter(self, known: Known) -> Known:
        self.provider.enter_group(known, self.door.member)
        return known

    def voice(self, tenant: Tenant, **changes: object) -> Voice:
        return Voice(key=tenant.owner, root=tenant.root_statement(**changes))

    def let_in(self, tenant: Tenant, **changes: object) -> Voice:
        """Let a tenant in, as if it had come by a code."""
        known = self.provider.group()
        assert known is not None
        who = self.voice(tenant, **changes)
        code = voucher(self.door, known.group, code=tenant.name, door=self.door)
        facts = [code, admission(self.door, known.group, code, member=who.member)]
        self.provider.take_facts([*facts, word(who, known.group, name=tenant.name)])
        return who

    def join(self, who: Voice, *, name: str, number: int = 1, secret: bytes = SECRET) -> Known:
        known = self.provider.group()
        assert known is not None
        said = word(who, known.group, name=name, number=number).signed
        found = self.service.join(JoinRequest(group=known.group, secret=secret, word=said, facts=[]))
        return merge(None, found.facts, group=known.group)

    def enrol(self, tenant: Tenant, **changes: object) -> None:
        self.service.enrol(
            EnrolRequest(
                holder_key=tenant.keeper.public,
                secret=b"",
                order=tenant.order(tenant.keeper),
                root=tenant.root_statement(**changes),
            )
        )

    def swap(self, tenant: Tenant, known: Known | None, facts: list[Fact] | None = None) -> GroupReply:
        request = GroupRequest(
            group=bytes(32) if known is None else known.group,
            have=b"" if known is None else b"".join(known.hashes),
            facts=facts or [],
        )
        session = self.service.session(tenant.keeper.public)
        return decode(GroupReply, session.handle("group", encode(request)))

    def quota(self, tenant: Tenant) -> int:
        [row] = [one for one in self.provider.status()["tenants"] if one["id"] == tenant.id.hex()]
        found: int = row["quota"]
        return found


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(str(tmp_path))
    made.enter(founding(made.door))
    yield made
    made.service.stop()
    made.provider.close()


def founding(door: Voice) -> Known:
    """Return a group that this provider founded."""
    group = Group(name="friends", salt=bytes(16), root=b"", created_ns=1)
    return found_group(door, group, lambda one: read_word(word(door, one, name="alice").signed)[1])


def says(pattern: str, call: Callable[[], object]) -> None:
    with pytest.raises(RequestRefusedError, match=pattern):
        call()


def test_a_member_stores_what_members_get_and_a_stranger_nothing(stand: Stand) -> None:
    bob, mallory = Tenant("bob"), Tenant("mallory")
    says("no tenant here has the key", lambda: stand.enrol(mallory))
    stand.let_in(bob)
    stand.enrol(bob)
    assert stand.quota(bob) == 100 * MIB
    stand.enrol(bob)
    assert stand.quota(bob) == 100 * MIB


def test_a_member_takes_no_other_tenants_id(stand: Stand) -> None:
    """Its root may sign a statement with any id: only one that is made of its key, or its keys before, is its own."""
    bob = Tenant("bob", id=Tenant("carol").id)
    stand.let_in(bob)
    says("not made of its root key", lambda: stand.enrol(bob))
    assert stand.provider.status()["tenants"] == []


def test_a_code_that_a_replaced_owner_key_signed_opens_nothing(stand: Stand) -> None:
    bob, comer = Tenant("bob"), Voice(key=SigningKey(bytes(range(32))))
    known = stand.provider.group()
    assert known is not None
    who = stand.let_in(bob)
    stand.provider.take_facts([voucher(who, known.group, code=CODE, door=stand.door)])
    replaced = Voice(key=bob.keeper, root=bob.root_statement(number=2, owner_key=bob.keeper.public))
    assert replaced.member == who.member
    stand.provider.take_facts([word(replaced, known.group, name="bob", number=2)])
    says("an owner key that another has replaced", lambda: stand.join(comer, name="trudy"))
    stand.provider.take_facts([voucher(replaced, known.group, code=CODE[::-1], door=stand.door)])
    stand.join(comer, name="dave", secret=SECRET[::-1])


def test_a_code_of_who_is_out_opens_nothing(stand: Stand) -> None:
    bob, comer = Tenant("bob"), Voice(key=SigningKey(bytes(range(32))))
    known = stand.provider.group()
    assert known is not None
    who = stand.let_in(bob)
    stand.provider.take_facts([voucher(who, known.group, code=CODE, door=stand.door)])
    stand.provider.take_facts([expulsion(stand.door, known.group, who.member)])
    says("not in the group any more", lambda: stand.join(comer, name="trudy"))


def test_a_door_that_left_lets_nobody_in_and_nobody_enrols(stand: Stand) -> None:
    bob, comer = Tenant("bob"), Voice(key=SigningKey(bytes(range(32))))
    known = stand.provider.group()
    assert known is not None
    stand.let_in(bob)
    stand.provider.take_facts([voucher(stand.door, known.group, code=CODE, door=stand.door)])
    stand.provider.take_facts([word(stand.door, known.group, name="alice", number=2, left=True)])
    says("has left the group", lambda: stand.join(comer, name="dave"))
    says("gives nothing to members", lambda: stand.enrol(bob))


def test_facts_are_given_to_members_and_expulsions_alone_to_who_is_out(stand: Stand) -> None:
    bob, stranger = Tenant("bob"), Tenant("stranger")
    secret = secret_of(stand.provider.invite(quota=MIB, label=""))
    stand.service.enrol(
        EnrolRequest(holder_key=stranger.keeper.public, secret=secret, order=b"", root=stranger.root_statement())
    )
    known = stand.provider.group()
    assert known is not None
    for asked in (None, founding(stand.door)):
        assert stand.swap(stranger, asked).facts == []
    assert stand.swap(stranger, None).group == bytes(32)
    who = stand.let_in(bob)
    stand.enrol(bob)
    whole = stand.swap(bob, None)
    everything = stand.provider.group()
    assert everything is not None
    assert merge(None, whole.facts).hashes == everything.hashes
    stand.provider.take_facts([expulsion(stand.door, known.group, who.member)])
    stand.let_in(Tenant("carol"))
    assert {fact.kind for fact in stand.swap(bob, None).facts} == {"group", "expulsion"}


def test_what_is_wanted_is_what_is_lacking_and_is_taken_when_it_is_brought(stand: Stand) -> None:
    bob, carol = Tenant("bob"), Tenant("carol")
    stand.let_in(bob)
    stand.enrol(bob)
    before = stand.provider.group()
    assert before is not None
    code = voucher(stand.door, before.group, code="carol", door=stand.door)
    who = stand.voice(carol)
    more = [code, admission(stand.door, before.group, code, member=who.member)]
    known = merge(before, [*more, word(who, before.group, name="carol")])
    reply = stand.swap(bob, known)
    assert sorted(reply.wanted[at : at + 32] for at in range(0, len(reply.wanted), 32)) == sorted(
        set(known.hashes) - set(before.hashes)
    )
    assert stand.swap(bob, known, known.beside(before.hashes)).wanted == b""
    forged = msgspec.structs.replace(known.facts[0], signed=known.facts[0].signed[:50] + bytes(400))
    says("does not hold", lambda: stand.swap(bob, known, [forged]))


def test_no_signature_is_checked_while_others_wait_for_the_database(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = Tenant("bob")
    stand.let_in(bob)
    stand.enrol(bob)
    known = stand.provider.group()
    assert known is not None
    voucher_ = voucher(stand.door, known.group, code=CODE, door=stand.door)
    connection, held = stand.provider._database._connection, []
    true = sign.verify

    def verify(*args: Any, **kwargs: Any) -> bytes:
        held.append(connection.in_transaction)
        return true(*args, **kwargs)

    monkeypatch.setattr(group, "verify", verify)

    def checked(work: Callable[[], object]) -> list[bool]:
        group._read.cache_clear()
        held.clear()
        work()
        return list(held)

    for work in (
        lambda: stand.swap(bob, known),
        lambda: stand.swap(bob, known, [voucher_]),
        lambda: stand.provider.take_facts([voucher_]),
    ):
        found = checked(work)
        assert len(found) >= len(known.facts) - 1
        assert not any(found)
    # A door checks inside what it has just signed itself, and nothing else.
    dave = Voice(key=SigningKey(bytes(range(32))))
    said = word(dave, known.group, name="dave").signed
    request = JoinRequest(group=known.group, secret=SECRET, word=said, facts=[])
    found = checked(lambda: stand.service.join(request))
    assert sum(found) <= 2, "the admission, and the voucher in it"
    forged = msgspec.structs.replace(voucher_, signed=voucher_.signed[:-1] + bytes(1))
    says("does not hold", lambda: stand.swap(bob, known, [forged]))
    elsewhere = msgspec.structs.replace(request, group=bytes(31) + b"\1", secret=b"")
    assert not any(checked(lambda: says("not in that group", lambda: stand.service.join(elsewhere))))


def test_who_has_brought_as_many_as_one_may_brings_nobody_back_either(stand: Stand) -> None:
    known = stand.provider.group()
    assert known is not None
    members = [stand.let_in(Tenant(f"member {number}")) for number in range(MOST_ADMISSIONS)]
    gone = word(members[0], known.group, name="member 0", number=2, left=True)
    stand.provider.take_facts([gone, voucher(stand.door, known.group, code=CODE, door=stand.door)])
    says("as many as there can be", lambda: stand.join(Voice(key=SigningKey(bytes(range(32)))), name="dave"))
    says("as many as there can be", lambda: stand.join(members[0], name="member 0", number=3))
    known = stand.provider.group()
    assert known is not None
    assert known.signed_word(members[0].member) == gone.signed, "who is not let in has not said that it is in"


def test_a_code_that_nobody_gave_out_is_refused(stand: Stand) -> None:
    says("not known here", lambda: stand.join(Voice(key=SigningKey(bytes(range(32)))), name="dave"))


def test_a_provider_in_no_group_knows_nothing_of_any(tmp_path: Path) -> None:
    stand, bob = Stand(str(tmp_path)), Tenant("bob")
    known = founding(stand.door)
    request = JoinRequest(group=known.group, secret=b"", word=known.signed_word(stand.door.member), facts=known.facts)
    says("not in that group", lambda: stand.service.join(request))
    says("no tenant here has the key", lambda: stand.enrol(bob))
    stand.service.stop()
    stand.provider.close()
