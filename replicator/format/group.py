"""What members of a group sign: who founded it, who is in it, who let whom in, who is out. Facts that need no order."""

from typing import Annotated, Any, Final, Literal

import msgspec

from replicator.format.charter import Count, Endpoint, Hash, Id16, Name, Number, Words
from replicator.format.codec import Part, Record

MAX_MEMBERS: Final = 64
"""Who ever was in a group, at most."""
MAX_FACTS: Final = 1024
MAX_FACT: Final = 8192
"""Bytes of one signed fact."""

FactKind = Literal["group", "member", "voucher", "admission", "expulsion", "offer"]
Root = Annotated[bytes, msgspec.Meta(max_length=2048)]
"""A signed root statement that names the signer owner; empty: the signer is a provider and speaks for itself."""
Ids = Annotated[list[Hash], msgspec.Meta(max_length=MAX_MEMBERS)]


class Group(Record, frozen=True, kw_only=True):
    """Signed by its founder, who is its first member. The hash of the signed record is what the group is."""

    name: Name
    salt: Id16
    root: Root
    created_ns: Count


class Member(Record, frozen=True, kw_only=True):
    """A member's word about itself: what it is called, which provider is its own, that it is in or has left.

    A higher number wins. ``provider`` is a signed :class:`Seat`; empty for who only stores elsewhere, and for a
    provider that is a member by itself.
    """

    group: Hash
    number: Number
    name: Name
    root: Root
    provider: Annotated[bytes, msgspec.Meta(max_length=1024)]
    state: Literal["in", "left"]
    said_ns: Count


class Seat(Record, frozen=True, kw_only=True):
    """Signed by a provider: I am this member's in this group."""

    group: Hash
    member: Hash


class Voucher(Record, frozen=True, kw_only=True):
    """Signed by a member: who brings the secret with this hash to the provider ``door`` is let in, the first who does.

    ``door`` judges the time by its own clock. One that is ``revoked`` never counts again.
    """

    group: Hash
    root: Root
    door: Hash
    code: Hash
    label: Words
    expires_ns: Count
    revoked: bool


class Admission(Record, frozen=True, kw_only=True):
    """Signed by the door of a voucher: this member brought the secret. It is in from this number of its own word on."""

    group: Hash
    voucher: bytes
    member: Hash
    number: Number
    admitted_ns: Count


class Expulsion(Record, frozen=True, kw_only=True):
    """Signed by a member: for me this one is out, as it was let in up to this number of its own word.

    ``stay`` are the others that I know: who came through the one that is out, and is not among these, is out too.
    """

    group: Hash
    root: Root
    member: Hash
    number: Number
    reason: Words
    stay: Ids
    said_ns: Count


class Fact(Part, frozen=True, kw_only=True):
    """One signed record, and which it is."""

    kind: FactKind
    signed: Annotated[bytes, msgspec.Meta(max_length=MAX_FACT)]


class GroupFacts(Record, frozen=True, kw_only=True):
    """What somebody knows of a group, in any order; a home's file of it, and what a door answers."""

    facts: Annotated[list[Fact], msgspec.Meta(max_length=MAX_FACTS)]


class GroupInvite(Record, frozen=True, kw_only=True):
    """One use, for one person: ``secret`` opens the group at the provider ``door``. ``name`` is the group's."""

    group: Hash
    name: Name
    door: Hash
    endpoints: list[Endpoint]
    secret: Id16
    expires_ns: Count

    def __repr__(self) -> str:
        return f"GroupInvite(group={self.group.hex()}, door={self.door.hex()})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("group", self.group.hex()), ("door", self.door.hex())]
