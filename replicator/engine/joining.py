"""Being in a group: founding, inviting, joining, taking members' providers as peers, leaving, putting somebody out.

A member is a tenant's keeper, which speaks with its owner key, a provider, or both in one home. All that is said is a
signed fact (:mod:`replicator.charter.group`) that providers hand on; what a person has to agree to is done here only.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from replicator.charter.group import Known, Seated, Voice, found_group, hash_of_secret, merge
from replicator.clock import NS
from replicator.crypto.sign import Context, SigningKey
from replicator.endpoints import parse_way
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link
from replicator.engine.groups import ask_group, keep_group, load_group, news, swap_with, waiting
from replicator.engine.home import Half
from replicator.engine.keeper import KeeperHome
from replicator.engine.members import catch_up, enrol_with, free_petname, pin_of, spread_charter
from replicator.errors import (
    FormatError,
    HomeError,
    IntegrityError,
    KeyMissingError,
    NotFoundError,
    PeerError,
    UsageError,
)
from replicator.format.charter import PeerPin
from replicator.format.codec import decode, encode
from replicator.format.codes import read_code, write_code
from replicator.format.group import Expulsion, Fact, Group, GroupInvite, Member, Seat, Voucher
from replicator.format.offer import MOST_ENDPOINTS, Offer
from replicator.ids import Identity, identity_of, short
from replicator.transport.base import Target
from replicator.wire.messages import JoinRequest

SALT_SIZE = 16
SECRET_SIZE = 16
VALID_S = 7 * 86400


class OwnProvider(Protocol):
    """The provider's half of this home, as far as a group has to do with it."""

    key: SigningKey

    def offer(self) -> Offer:
        """Return the newest offer."""
        ...

    def signed_offer(self) -> bytes:
        """Return the newest offer as it is signed."""
        ...

    def group(self) -> Known | None:
        """Return what it knows of the group that it is in."""
        ...

    def enter_group(self, known: Known, member: bytes) -> None:
        """Be in a group from now on."""
        ...

    def take_facts(self, facts: Iterable[Fact]) -> Known:
        """Take more facts of its group."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """This home: its keeper with the other halves of its tenant, its provider, or both."""

    edge: Edge
    keeper: KeeperHome | None
    siblings: Sequence[Half]
    provider: OwnProvider | None

    def voice(self) -> Voice:
        """Return what this home signs with.

        Raises:
            KeyWrongError: the passphrase is wrong.
            KeyMissingError: neither keeper nor provider.
        """
        if self.keeper is not None:
            return Voice(key=self.keeper.owner(), root=self.keeper.charter.charter.root)
        if self.provider is None:
            raise KeyMissingError(
                "this home is neither a tenant's keeper nor a provider",
                hint="make one with `replicator init` or `replicator provider init`",
            )
        return Voice(key=self.provider.key)

    def known(self) -> Known | None:
        """Return what this home knows of its group, None if it is in none."""
        known = load_group(self.keeper) if self.keeper is not None else None
        other = self.provider.group() if self.provider is not None else None
        if known is None or other is None:
            return known or other
        return merge(known, other.facts) if known.group == other.group else known

    def keep(self, known: Known) -> Known:
        """Keep more facts in every half of this home; return all of them."""
        if self.provider is not None and _group_of(self.provider) == known.group:
            known = self.provider.take_facts(known.facts)
        if self.keeper is not None:
            for half in (self.keeper, *self.siblings):
                keep_group(half, known)
        return known

    def enter(self, known: Known, member: bytes) -> None:
        """Be in a group from now on, with every half."""
        if self.provider is not None:
            self.provider.enter_group(known, member)
        if self.keeper is not None:
            for half in (self.keeper, *self.siblings):
                keep_group(half, known)


def _group_of(provider: OwnProvider) -> bytes:
    known = provider.group()
    return b"" if known is None else known.group


def in_group(here: Here) -> tuple[Known, bytes, Seated]:
    """Return what is known of this home's group, which member it is, and how that one stands.

    Raises:
        NotFoundError: it is in none.
    """
    known, member = here.known(), own_member(here)
    seat = None if known is None else next((one for one in known.members((member,)) if one.id == member), None)
    if known is None or seat is None:
        raise NotFoundError(
            "this home is in no group", hint="`replicator group new` begins one, `group join CODE` joins"
        )
    return known, member, seat


def own_member(here: Here) -> bytes:
    """Return which member this home is, or would be. Needs no passphrase."""
    if here.keeper is not None:
        return identity_of(here.keeper.member.root_key)
    return b"" if here.provider is None else here.provider.key.identity


def _present(here: Here) -> tuple[Known, bytes, Seated]:
    known, member, seat = in_group(here)
    if seat.state != "in":
        raise UsageError(
            f"this home is not in '{known.name}' any more ({seat.state})", hint="somebody there has to invite it again"
        )
    return known, member, seat


def _must_be_free(here: Here) -> None:
    known, member = here.known(), own_member(here)
    if known is None:
        return
    seat = next((one for one in known.members((member,)) if one.id == member), None)
    if seat is not None and seat.state == "in":
        raise UsageError(f"this home is in '{known.name}' already", hint="a home is in one group; `group leave` first")


def _word(here: Here, voice: Voice, group: bytes, *, name: str, number: int, state: Literal["in", "left"]) -> Member:
    seat = b""
    if here.keeper is not None and here.provider is not None:
        seat = here.provider.key.sign(Context.SEAT, encode(Seat(group=group, member=voice.member)))
    return Member(
        group=group,
        number=number,
        name=name,
        root=voice.root,
        provider=seat,
        state=state,
        said_ns=here.edge.clock.now_ns(),
    )


def _offers(here: Here) -> list[Fact]:
    return [] if here.provider is None else [Fact(kind="offer", signed=here.provider.signed_offer())]


def new_group(here: Here, *, name: str, called: str) -> Known:
    """Found a group whose only member this home is.

    Raises:
        UsageError: this home is in one.
    """
    _must_be_free(here)
    voice, edge = here.voice(), here.edge
    group = Group(name=name, salt=edge.rng.bytes(SALT_SIZE), root=voice.root, created_ns=edge.clock.now_ns())
    known = found_group(voice, group, lambda group: _word(here, voice, group, name=called, number=1, state="in"))
    known = merge(known, _offers(here))
    here.enter(known, voice.member)
    return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """A code for one person. ``door``: the name of the provider that lets in who brings it."""

    id: str
    code: str
    door: str
    expires_ns: int


async def invite(here: Here, *, label: str, valid_s: int = VALID_S) -> Invited:
    """Make a code that lets one person in, at this home's own provider, or at another member's that answers now.

    Raises:
        NotFoundError: this home is in no group.
        HomeError: no provider can be the door.
    """
    known, _, _ = _present(here)
    voice = here.voice()
    if here.provider is not None:
        offer = here.provider.offer()
        if any(parse_way(endpoint).port == 0 for endpoint in offer.endpoints):
            raise HomeError(
                "this home's provider listens on any free port, and which one is not known yet",
                hint="run `replicator provider serve` first; it notes the port",
            )
        made, known = _vouch(
            here, voice, known, here.provider.key.identity, "this home", offer.endpoints, label, valid_s
        )
        here.keep(known)
        return made
    keeper = _keeper(here)
    async with Federation(keeper, here.edge, ticket=keeper.lazy_ticket) as federation:
        known = load_group(keeper) or known
        doors = {one.provider for one in known.members((voice.member,)) if one.state == "in"}
        for link in federation.links.values():
            if link.identity not in doors:
                continue
            made, more = _vouch(here, voice, known, link.identity, link.pin.name, link.offer.endpoints, label, valid_s)
            try:
                more, heard = await swap_with(link, more)
            except (PeerError, FormatError, IntegrityError):
                continue
            if heard:
                here.keep(more)
                return made
    raise HomeError(
        "no member's provider answers, and one has to let in who brings the code",
        hint="try again when one does; `replicator group accept` makes members' providers peers of this tenant",
    )


def _keeper(here: Here) -> KeeperHome:
    assert here.keeper is not None, "a home without a provider that has a voice is a keeper"
    return here.keeper


def _vouch(
    here: Here,
    voice: Voice,
    known: Known,
    door: Identity,
    name: str,
    endpoints: Sequence[str],
    label: str,
    valid_s: int,
) -> tuple[Invited, Known]:
    secret = here.edge.rng.bytes(SECRET_SIZE)
    expires_ns = here.edge.clock.now_ns() + valid_s * NS
    voucher = Voucher(
        group=known.group,
        root=voice.root,
        door=door,
        code=hash_of_secret(secret, voice.member),
        label=label,
        expires_ns=expires_ns,
        revoked=False,
    )
    known = merge(known, [Fact(kind="voucher", signed=voice.say(Context.VOUCHER, voucher))])
    if not any(one.code == voucher.code for _, _, one, _ in known.vouchers()):
        raise UsageError(
            "this home has given out as many codes as the group remembers of one member, and they are good for longer",
            hint="`replicator group codes` lists them; give this one as long a time with --valid",
        )
    content = GroupInvite(
        group=known.group,
        name=known.name,
        door=door,
        endpoints=list(endpoints),
        secret=secret,
        expires_ns=expires_ns,
    )
    made = Invited(
        id=voucher.code.hex()[:12], code=write_code("group", encode(content)), door=name, expires_ns=expires_ns
    )
    return made, known


def read_group_code(code: str) -> GroupInvite:
    """Return what a code says.

    Raises:
        KeyWrongError: not one of a group, or damaged.
    """
    return decode(GroupInvite, read_code("group", code))


async def join(here: Here, code: str, *, called: str) -> Known:
    """Join a group with a code; nothing is enrolled or pinned yet. The door's clock says whether the code is too old.

    Raises:
        KeyWrongError: no code of a group; the passphrase is wrong.
        UsageError: this home is in a group.
        PeerError: the door does not answer, or does not let this home in.
        IntegrityError: what the door tells does not hold.
    """
    invited = read_group_code(code)
    _must_be_free(here)
    voice, edge = here.voice(), here.edge
    target = Target(
        identity=Identity(invited.door),
        name=f"the door of '{invited.name}'",
        endpoints=tuple(invited.endpoints),
        key=voice.key,
        certificate=None,
    )
    before = here.known()
    said = None if before is None or before.group != invited.group else before.word_of(voice.member)
    number = 1 if said is None else said[0].number + 1
    for _ in range(2):
        record = _word(here, voice, invited.group, name=called, number=number, state="in")
        word = voice.say(Context.MEMBER, record)
        request = JoinRequest(group=invited.group, secret=invited.secret, word=word, facts=[])
        reply = await edge.network.join(target, request)
        known = merge(None, reply.facts, group=invited.group)
        said = known.word_of(voice.member)
        seat = next((one for one in known.members((voice.member,)) if one.id == voice.member), None)
        if said is not None and seat is not None and seat.state == "in" and said[0].number <= number:
            known = merge(known, _offers(here))
            await _tell_door(here, target, known, word)
            here.enter(known, voice.member)  # last: until then the same code may be brought again
            return known
        number = number + 1 if said is None else said[0].number + 1
    raise IntegrityError(f"{target.name}: took the code, and shows no signed fact that this home is let in")


async def _tell_door(here: Here, target: Target, known: Known, word: bytes) -> None:
    """Bring the door our offer, so that others hear of it though nobody here speaks to it again."""
    if here.provider is None:
        return
    request = JoinRequest(group=known.group, secret=b"", word=word, facts=_offers(here))
    await here.edge.network.join(target, request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What became of members' providers: those that are peers now, and why the others are not."""

    pins: list[PeerPin]
    failures: dict[str, str]
    notices: list[str]


async def look(here: Here) -> list[str]:
    """Hear from every peer what is new in the group; return that in words, and who does not answer.

    A home that does not know of its group asks which it is in.
    """
    if here.keeper is None:
        return []
    async with Federation(here.keeper, here.edge, ticket=here.keeper.lazy_ticket) as federation:
        if load_group(here.keeper) is None:
            await ask_group(here.keeper, federation.links.values())
        notices = [*federation.notices, *(str(error) for error in federation.failures.values())]
    heard, known = load_group(here.keeper), here.known()
    if known is not None:
        known = here.keep(known)
        if heard is not None:  # this home's own provider may have heard from others
            pinned = {Identity(pin.identity) for pin in here.keeper.peers}
            notices += news(heard, known, own_member(here), pinned)
    return notices


def candidates(here: Here, names: Sequence[str] = ()) -> list[Seated]:
    """Return the members whose providers this tenant might use and does not yet: those named, or all.

    Whom somebody has expelled has to be named, whether that counts or not: who is new here knows nobody.

    Raises:
        NotFoundError: this home is in no group, or there is no such member.
        UsageError: there is nothing to take of one who is named.
    """
    known, member, _ = _present(here)
    found = _waiting_here(here, known, member)
    if not names:
        return [one for one in found if not one.expelled_by]
    seats = known.members((member,))
    chosen = {one.id: one.name for one in (find_member(seats, name) for name in names)}
    for one in found:
        chosen.pop(one.id, None)
    if chosen:
        raise UsageError(
            f"nothing to accept of {', '.join(chosen.values())}",
            hint="a peer already, without a provider, or not in the group: `replicator group show`",
        )
    return [one for one in found if one.id in {find_member(seats, name).id for name in names}]


def doubtful(here: Here) -> list[Seated]:
    """Return those whom somebody has expelled without that counting here.

    Raises:
        NotFoundError: this home is in no group.
    """
    known, member, _ = _present(here)
    return [one for one in _waiting_here(here, known, member) if one.expelled_by]


def _waiting_here(here: Here, known: Known, member: bytes) -> list[Seated]:
    if here.keeper is None:
        return []
    own = set() if here.provider is None else {here.provider.key.identity}
    return waiting(known, member, own | {Identity(pin.identity) for pin in here.keeper.peers})


async def accept(here: Here, seats: Sequence[Seated]) -> Accepted:
    """Enrol with members' providers and pin them as they say they are, in one charter. The owner's word, after a look.

    Raises:
        KeyWrongError: the passphrase is wrong.
    """
    keeper = _keeper(here)
    known, member, _ = _present(here)
    await catch_up(keeper, here.edge)
    pins: list[PeerPin] = []
    failures: dict[str, str] = {}
    word = known.signed_word(member)
    for seat in seats:
        if seat.offer is None or seat.provider is None:
            continue
        target = Target(
            identity=seat.provider,
            name=seat.name,
            endpoints=tuple(seat.offer.endpoints[:MOST_ENDPOINTS]),
            key=keeper.signing,
            certificate=None,
        )
        try:
            await here.edge.network.join(
                target, JoinRequest(group=known.group, secret=b"", word=word, facts=known.facts)
            )
            offer = await enrol_with(keeper, here.edge, target)
        except PeerError as error:
            failures[seat.name] = str(error)
            continue
        name = free_petname([*keeper.peers, *pins], seat.name, offer.site)
        pins.append(
            pin_of(offer, name=name, endpoints=(*offer.endpoints, *target.endpoints), own=False, edge=here.edge)
        )
    if not pins:
        return Accepted(pins=[], failures=failures, notices=[])
    taken = {pin.identity for pin in pins}
    others = [pin for pin in keeper.peers if pin.identity not in taken]
    data = keeper.write_charter(here.edge, private=keeper.with_peers([*others, *pins]))
    notices = await spread_charter(keeper, list(here.siblings), here.edge, data)
    return Accepted(pins=pins, failures=failures, notices=notices)


def same_household(pin: PeerPin, peers: Iterable[PeerPin]) -> list[str]:
    """Return the petnames of other peers that count as of one household with it: two friends may have one name."""
    return [
        other.name
        for other in peers
        if other.identity != pin.identity and (other.owner.casefold() == pin.owner.casefold() or other.site == pin.site)
    ]


async def leave(here: Here) -> tuple[Known, list[str]]:
    """Say that this home leaves its group; return what could not be told to whom. Nothing is deleted.

    Raises:
        NotFoundError: it is in none.
        UsageError: it has left already, or the group is full of facts.
    """
    known, _, seat = _present(here)
    voice = here.voice()
    record = _word(here, voice, known.group, name=seat.name, number=seat.number + 1, state="left")
    return await _say(here, Fact(kind="member", signed=voice.say(Context.MEMBER, record)), known)


async def expel(here: Here, seat: Seated, *, reason: str) -> tuple[Known, list[str]]:
    """Say that for this home a member is out; return what could not be told to whom. Nothing is deleted.

    Raises:
        UsageError: it is this home itself, or the group is full of facts.
    """
    known, member, _ = _present(here)
    if seat.id == member:
        raise UsageError("this is this very home", hint="`replicator group leave` leaves")
    voice = here.voice()
    present = [one.id for one in known.members((member,)) if one.state == "in" and one.id != seat.id]
    record = Expulsion(
        group=known.group,
        root=voice.root,
        member=seat.id,
        number=seat.number,
        reason=reason,
        stay=present,
        said_ns=here.edge.clock.now_ns(),
    )
    return await _say(here, Fact(kind="expulsion", signed=voice.say(Context.EXPULSION, record)), known)


async def _say(here: Here, fact: Fact, known: Known) -> tuple[Known, list[str]]:
    known = here.keep(merge(known, [fact]))
    if fact not in known.facts:
        raise UsageError(
            f"'{known.name}' has as many signed facts as a group can have, and this one found no place among them",
            hint="somebody fills it up; `replicator group new` begins another, without whoever that is",
        )
    notices = await look(here)
    return here.known() or known, notices


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A code that this home gave out. ``used_by`` is the name of who came with it."""

    id: str
    label: str
    state: Literal["open", "used", "revoked", "expired"]
    expires_ns: int
    door: Identity
    used_by: str


def codes(here: Here) -> list[Code]:
    """Return the codes that this home gave out, the last to expire first.

    Raises:
        NotFoundError: it is in no group.
    """
    known, member, _ = in_group(here)
    names = {one.id: one.name for one in known.members((member,))}
    used = {
        voucher.code: names.get(one.member, short(one.member))
        for voucher, one, by in known.admissions()
        if by == member
    }
    now_ns = here.edge.clock.now_ns()
    found = []
    for by, _, voucher, _ in known.vouchers():
        if by != member:
            continue
        state: Literal["open", "used", "revoked", "expired"] = "open"
        if voucher.code in used:
            state = "used"
        elif voucher.revoked:
            state = "revoked"
        elif now_ns > voucher.expires_ns:
            state = "expired"
        found.append(
            Code(
                id=voucher.code.hex()[:12],
                label=voucher.label,
                state=state,
                expires_ns=voucher.expires_ns,
                door=Identity(voucher.door),
                used_by=used.get(voucher.code, ""),
            )
        )
    return sorted(found, key=lambda one: (-one.expires_ns, one.id))


async def revoke_code(here: Here, code_id: str) -> tuple[Code, list[str]]:
    """Make an open code worthless; return it and why its door may not have heard of that yet.

    Raises:
        NotFoundError: no open code's id begins so, or several do.
    """
    known, member, _ = _present(here)
    open_codes = [one for one in codes(here) if one.state == "open" and code_id and one.id.startswith(code_id.lower())]
    if len(open_codes) != 1:
        raise NotFoundError(
            f"{'no' if not open_codes else 'more than one'} open code '{code_id}'", hint="`replicator group codes`"
        )
    voice = here.voice()
    [voucher] = [one for by, _, one, _ in known.vouchers() if by == member and one.code.hex()[:12] == open_codes[0].id]
    revoked = msgspec.structs.replace(voucher, root=voice.root, revoked=True)
    fact = Fact(kind="voucher", signed=voice.say(Context.VOUCHER, revoked))
    known = here.keep(merge(known, [fact]))
    if here.provider is not None and here.provider.key.identity == voucher.door:
        return open_codes[0], []
    keeper = _keeper(here)
    async with Federation(keeper, here.edge, ticket=keeper.lazy_ticket) as federation:
        problem = await _heard(federation, Identity(voucher.door), known)
    return open_codes[0], problem


async def _heard(federation: Federation, door: Identity, known: Known) -> list[str]:
    """Return why a provider does not know what we know."""
    link: Link | None = federation.links.get(door)
    if link is None:
        error = federation.failures.get(door)
        return [str(error) if error is not None else f"provider {short(door)} is no peer of this tenant any more"]
    try:
        _, heard = await swap_with(link, known)
    except (PeerError, FormatError, IntegrityError) as error:
        return [str(error)]
    return [] if heard else [f"{link.pin.name} says that it is not in this group"]


def find_member(seats: Collection[Seated], name: str) -> Seated:
    """Return a member by name, or by the beginning of its id.

    Raises:
        NotFoundError: none, or several.
    """
    named = [one for one in seats if one.name.casefold() == name.casefold()]
    if len(named) > 1:
        named = [one for one in named if one.state == "in"] or named
    # Both: a member could call itself by the beginning of another's id.
    found = named + [one for one in seats if name and one.id.hex().startswith(name.lower()) and one not in named]
    if len(found) != 1:
        known = ", ".join(f"{one.name} ({short(one.id)})" for one in (found or seats))
        raise NotFoundError(f"{'no' if not found else 'more than one'} member '{name}' (there are: {known})")
    return found[0]
