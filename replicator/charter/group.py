"""Who is in a group, from facts that members signed. Pure; the order in which facts come does not matter.

Nobody coordinates: each home and each provider works this out from the facts that it has. Facts only add up: who was
let in by somebody who was in is a member; what a member says of itself goes by its own numbers; an expulsion is one
member's word, which counts for that member at once, and for all when most of the others have said the same. Being a
member gives no right over anybody's data: providers let members store, and people are shown members' providers.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import zip_longest
from typing import TypeVar

from blake3 import blake3

from replicator.charter.offers import verify_offer
from replicator.charter.verify import signed_hash, verify_root
from replicator.crypto.sign import Context, SigningKey, signer_of, verify
from replicator.errors import FormatError, IntegrityError
from replicator.format.charter import RootStatement
from replicator.format.codec import Record, decode, encode
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
from replicator.format.offer import Offer
from replicator.ids import Identity, identity_of

R = TypeVar("R", bound=Record)
MOST_VOUCHERS = 16
"""Codes of one member that are kept, those that expire last; nobody waits for more friends at the same time."""
MOST_ADMISSIONS = 32
"""Of those whom one member brought."""
MOST_BY_CODE = 2
"""Of one code: a second one shows that its door signed twice, and what more it signs shows nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """A fact whose signatures hold. ``by``: which member, door or provider said it; ``root``: by which root's owner.

    ``provider`` is the one that a member's word names; ``voucher`` and ``inviter`` are what an admission answers.
    """

    fact: Fact
    hash: bytes
    by: bytes
    record: Record
    root: RootStatement | None = None
    provider: Identity | None = None
    voucher: Voucher | None = None
    inviter: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """What a member signs with: its owner key with the ``root`` statement that names it, or a provider's own key."""

    key: SigningKey
    root: bytes = b""

    @property
    def member(self) -> bytes:
        """Which member speaks: the hash of its root key, or the provider's identity."""
        return identity_of(verify_root(self.root, None).root_key) if self.root else self.key.identity

    def say(self, context: Context, record: Record) -> bytes:
        """Return a record signed."""
        return self.key.sign(context, encode(record))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seated:
    """A member as one home sees it.

    ``root`` is the statement that its word came with (None: a provider by itself); ``invited_by`` the member whose code
    it brought, zeros for the founder; ``doubled``: another came by that same code. ``expelled_by`` are the members that
    said it is out, whether that counts here or not.
    """

    id: bytes
    name: str
    number: int
    state: str
    root: RootStatement | None
    provider: Identity | None
    offer: Offer | None
    offer_signed: bytes
    invited_by: bytes
    doubled: bool
    expelled_by: tuple[tuple[bytes, str], ...]


class Known:
    """The facts of one group that somebody has, all of which hold and hang together."""

    def __init__(self, group: bytes, said: Mapping[tuple[bytes, ...], _Said]) -> None:
        self.group = group
        self._said = dict(said)

    @property
    def name(self) -> str:
        """What the group is called."""
        [said] = [one for one in self._said.values() if isinstance(one.record, Group)]
        assert isinstance(said.record, Group)
        return said.record.name

    @cached_property
    def _each(self) -> list[_Said]:
        """All facts, each once, in an order that does not change."""
        found = {one.hash: one for one in self._said.values()}
        return [found[key] for key in sorted(found)]

    @property
    def facts(self) -> list[Fact]:
        """All facts, each once, in an order that does not change."""
        return [one.fact for one in self._each]

    @property
    def hashes(self) -> list[bytes]:
        """The hashes of all facts, sorted."""
        return [one.hash for one in self._each]

    def beside(self, hashes: Collection[bytes]) -> list[Fact]:
        """Return the facts that are not among these."""
        return [one.fact for one in self._each if one.hash not in hashes]

    def records(self, kind: type[R]) -> list[tuple[bytes, R]]:
        """Return all of one kind with who said each: an expulsion's, a voucher's or a word's member, a door."""
        return [(one.by, one.record) for one in self._each if isinstance(one.record, kind)]

    def word_of(self, member: bytes) -> tuple[Member, RootStatement | None] | None:
        """Return what a member said last of itself."""
        said = self._said.get((b"member", member))
        return None if said is None or not isinstance(said.record, Member) else (said.record, said.root)

    def signed_word(self, member: bytes) -> bytes:
        """Return what a member said last of itself as it is signed; empty if it said nothing."""
        said = self._said.get((b"member", member))
        return b"" if said is None else said.fact.signed

    def admissions(self) -> list[tuple[Voucher, Admission, bytes]]:
        """Return who was let in by whom: the voucher, the admission, the member that signed the voucher."""
        return [
            (one.voucher, one.record, one.inviter)
            for one in self._each
            if isinstance(one.record, Admission) and one.voucher is not None
        ]

    def vouchers(self) -> list[tuple[bytes, bytes, Voucher, RootStatement | None]]:
        """Return each code that was made known: its member, its bytes as signed, what it says, and by which root."""
        return [
            (one.by, one.fact.signed, one.record, one.root) for one in self._each if isinstance(one.record, Voucher)
        ]

    def founder(self) -> bytes:
        """Return the member that founded the group."""
        [(by, _)] = self.records(Group)
        return by

    def members(self, mine: Collection[bytes] = ()) -> list[Seated]:
        """Return everybody who ever was in it, by name, as it is for ``mine``, whose own words count alone."""
        since = self._since()
        gone = {member for member, number in since.items() if self._left(member) >= number}
        expelled = self._expelled_by(since)
        present = set(since) - gone
        counting = {
            member: by
            for member, by in expelled.items()
            if set(by) & set(mine) or 2 * len(set(by) & (present - {member})) > len(present - {member})
        }
        out = self._out(since, counting, mine)
        came = self.admissions()
        brought: dict[tuple[bytes, bytes], set[bytes]] = {}
        for voucher, admission, by in came:
            brought.setdefault((by, voucher.code), set()).add(admission.member)
        last = sorted((admission.number, by, admission.member) for _, admission, by in came)
        inviters = {member: by for _, by, member in last}
        found = []
        for member, number in since.items():
            said = self._said.get((b"member", member))
            if said is None or not isinstance(said.record, Member):
                continue
            offer = self._said.get((b"offer", said.provider)) if said.provider is not None else None
            found.append(
                Seated(
                    id=member,
                    name=said.record.name,
                    number=said.record.number,
                    state="left" if member in gone else "expelled" if member in out else "in",
                    root=said.root,
                    provider=said.provider,
                    offer=offer.record if offer is not None and isinstance(offer.record, Offer) else None,
                    offer_signed=offer.fact.signed if offer is not None else b"",
                    invited_by=inviters.get(member, bytes(32)),
                    doubled=any(
                        len(brought[by, voucher.code]) > 1
                        for voucher, admission, by in came
                        if (admission.member, admission.number) == (member, number)
                    ),
                    expelled_by=tuple((by, one.reason) for by, one in sorted(expelled[member].items())),
                )
            )
        return sorted(found, key=lambda one: (one.name.casefold(), one.id))

    def _since(self) -> dict[bytes, int]:
        """Return everybody who was let in, and from which number of its own word on, the last time.

        Nobody is let in who has not said so: else others could undo that somebody left, or was expelled.
        """
        return _let_in(self._each)[0]

    def _left(self, member: bytes) -> int:
        """Return the number of the last word with which a member left, 0 if it never did."""
        said = self._said.get((b"left", member))
        return said.record.number if said is not None and isinstance(said.record, Member) else 0

    def _expelled_by(self, since: Mapping[bytes, int]) -> dict[bytes, dict[bytes, Expulsion]]:
        """Return of everybody who was let in which members say that it is out, and what each says."""
        found: dict[bytes, dict[bytes, Expulsion]] = {member: {} for member in since}
        for by, one in self.records(Expulsion):
            if by in since and by != one.member and since.get(one.member, one.number + 1) <= one.number:
                found[one.member][by] = one
        return found

    def _out(
        self,
        since: Mapping[bytes, int],
        counting: Mapping[bytes, Mapping[bytes, Expulsion]],
        mine: Collection[bytes],
    ) -> set[bytes]:
        """Return who is out: those who were expelled, and who came through one of them alone and was not known."""
        out = set(counting)
        stay = {one for expulsions in counting.values() for one in _staying(expulsions, mine)}
        brought: dict[bytes, set[bytes]] = {}
        for _, admission, by in self.admissions():
            if admission.number == since.get(admission.member):
                brought.setdefault(admission.member, set()).add(by)
        found = True
        while found:
            more = {member for member, by in brought.items() if by <= out and member not in out | stay}
            out |= more
            found = bool(more)
        return out


def _let_in(said: Collection[_Said]) -> tuple[dict[bytes, int], set[bytes]]:
    """Return who was let in, from which number of its own word on, the last time; and the admissions that say so.

    These are two of each at most: by the first it came to be known, the last counts.
    """
    words: dict[bytes, int] = {}
    for one in said:
        if isinstance(one.record, Member):
            words[one.by] = max(one.record.number, words.get(one.by, 0))
    since = {one.by: 1 for one in said if isinstance(one.record, Group)}
    first: dict[bytes, bytes] = {}
    last: dict[bytes, bytes] = {}
    found = True
    while found:
        found = False
        for one in said:
            if isinstance(one.record, Admission) and one.inviter in since:
                member, number = one.record.member, one.record.number
                if since.get(member, 0) < number <= words.get(member, 0):
                    since[member], last[member] = number, one.hash
                    first.setdefault(member, one.hash)
                    found = True
    return since, {*first.values(), *last.values()}


def _staying(expulsions: Mapping[bytes, Expulsion], mine: Collection[bytes]) -> set[bytes]:
    """Return who stays of those whom an expelled member brought: by one's own word, else by that of most who expel."""
    own = [one for by, one in expulsions.items() if by in mine] or list(expulsions.values())
    named = [member for one in own for member in set(one.stay)]
    return {member for member in named if 2 * named.count(member) > len(own)}


def found_group(voice: Voice, group: Group, word: Callable[[bytes], Member]) -> Known:
    """Return a group that its founder is in; ``word`` makes the founder's word of the group's id."""
    signed = voice.say(Context.GROUP, group)
    said = voice.say(Context.MEMBER, word(signed_hash(signed)))
    return merge(None, [Fact(kind="group", signed=signed), Fact(kind="member", signed=said)])


def hash_of_secret(secret: bytes, member: bytes) -> bytes:
    """Return what a member's voucher says of the secret in a code: another's voucher can not speak of the same."""
    return blake3(b"replicator/1 group code\x00" + member + secret).digest()


def merge(known: Known | None, facts: Iterable[Fact], *, group: bytes | None = None) -> Known:
    """Return what is known of a group together with more facts; those that hang in the air, or are too many, are left.

    ``group``: which it must be, where nothing is known yet. Of facts that exclude each other the same one stays,
    whatever came first.

    Raises:
        IntegrityError: a fact's signature does not hold, or there is no group, or another.
        FormatError: a fact is none.
    """
    have = {} if known is None else known._said  # noqa: SLF001 - the same module
    old = {one.fact.signed for one in have.values()}
    expected = known.group if known is not None else group
    said = [_read(fact) for fact in facts if fact.signed not in old]
    founding = [one for one in (*have.values(), *said) if isinstance(one.record, Group)]
    founding = [one for one in founding if expected is None or one.hash == expected]
    if not founding or len({one.hash for one in founding}) != 1:
        raise IntegrityError("group: not the one that was meant, or several")
    group_id = founding[0].hash
    best = dict(have) | {(b"group",): founding[0]}
    for one in said:
        if not isinstance(one.record, Group) and _group_of(one) in (group_id, None):
            for key in _keys(one):
                other = best.get(key)
                best[key] = one if other is None or _rank(one) > _rank(other) else other
    return Known(group_id, _hanging_together(best, have))


def read_word(signed: bytes) -> tuple[bytes, Member]:
    """Return a member's word about itself, and which member said it.

    Raises:
        IntegrityError, FormatError: a signature does not hold, or it is none.
    """
    said = _read(Fact(kind="member", signed=signed))
    assert isinstance(said.record, Member), "it was read as one"
    return said.by, said.record


def _hanging_together(
    said: Mapping[tuple[bytes, ...], _Said], before: Mapping[tuple[bytes, ...], _Said]
) -> dict[tuple[bytes, ...], _Said]:
    """Leave out what is said by or of strangers, and what is beyond the limits: what was known before stays first."""
    order = sorted(said, key=lambda key: (key not in before, said[key].hash))
    founder = said[(b"group",)].by
    members = {founder}
    kept: set[tuple[bytes, ...]] = {(b"group",)}
    brought: Counter[bytes] = Counter()
    by_code: Counter[tuple[bytes, bytes]] = Counter()
    admissions = [key for key in order if said[key].inviter]
    # First all that was known, to its end: who comes anew takes no place of whoever came through several others.
    for some in ([key for key in admissions if key in before], admissions):
        found = True
        while found:
            found = False
            for key in some:
                record, by, voucher = said[key].record, said[key].inviter, said[key].voucher
                assert isinstance(record, Admission), "nothing else has an inviter"
                assert voucher is not None, "nor a voucher"
                if key in kept or by not in members:
                    continue
                room = record.member in members or len(members) < MAX_MEMBERS
                if room and brought[by] < MOST_ADMISSIONS and by_code[by, voucher.code] < MOST_BY_CODE:
                    brought[by] += 1
                    by_code[by, voucher.code] += 1
                    members.add(record.member)
                    kept.add(key)
                    found = True
    codes: dict[bytes, list[tuple[int, bytes, tuple[bytes, ...]]]] = {}
    for key in order:
        one = said[key]
        if isinstance(one.record, Voucher) and one.by in members:
            codes.setdefault(one.by, []).append((one.record.expires_ns, one.record.code, key))
        elif isinstance(one.record, Member | Expulsion) and {one.by, _about(one)} <= members:
            kept.add(key)
    for own in codes.values():
        kept |= {key for _, _, key in sorted(own)[-MOST_VOUCHERS:]}
    providers = {said[key].provider for key in kept if isinstance(said[key].record, Member)}
    kept |= {key for key in order if isinstance(said[key].record, Offer) and said[key].by in providers}
    chosen = [said[key] for key in order if key in kept]
    if len({one.hash for one in chosen}) > MAX_FACTS:
        few = _in_turns(chosen)
        kept = {key for key in kept if said[key].hash in few}
    return {key: said[key] for key in order if key in kept}


def _in_turns(said: Collection[_Said]) -> set[bytes]:
    """Return the hashes of those that are kept where there are too many.

    Who is in, what each says of itself and its provider's offer come first. Of the rest each member has its turn, with
    expulsions before admissions before codes: who makes up members must not crowd out that somebody expels it.
    """
    _, needed = _let_in(said)
    kinds = (Expulsion, Admission, Voucher)
    kept = [one.hash for one in said if one.hash in needed or not isinstance(one.record, kinds)]
    turns: dict[bytes, list[bytes]] = {}
    for kind in kinds:
        for one in said:
            if isinstance(one.record, kind) and one.hash not in needed:
                turns.setdefault(one.inviter or one.by, []).append(one.hash)
    kept += [one for turn in zip_longest(*turns.values()) for one in turn if one is not None]
    return set(list(dict.fromkeys(kept))[:MAX_FACTS])


@lru_cache(maxsize=2 * MAX_FACTS)  # of exactly as many none is left when one more was looked at
def _read(fact: Fact) -> _Said:
    """Return a fact after checking who said it. A signature that held once holds: homes read their facts often."""
    if len(fact.signed) > MAX_FACT:
        raise FormatError(f"group: a fact of {len(fact.signed)} bytes, at most {MAX_FACT} are allowed")
    signed, provider = fact.signed, None
    root: RootStatement | None = None
    by: bytes
    record: Record
    voucher: Voucher | None = None
    inviter = b""
    if fact.kind == "offer":
        offer = verify_offer(signed)
        by, record = offer.identity, offer.offer
    elif fact.kind == "admission":
        key = signer_of(signed)
        admission = decode(Admission, verify(signed, Context.ADMISSION, [key]))
        voucher, inviter, _ = _by_member(Voucher, admission.voucher, Context.VOUCHER)
        by, record = identity_of(key), admission
        if (voucher.group, voucher.door) != (admission.group, by) or voucher.revoked:
            raise IntegrityError("admission: not by the provider that its voucher names")
    elif fact.kind == "voucher":
        record, by, root = _by_member(Voucher, signed, Context.VOUCHER)
    elif fact.kind == "group":
        record, by, root = _by_member(Group, signed, Context.GROUP)
    elif fact.kind == "expulsion":
        record, by, root = _by_member(Expulsion, signed, Context.EXPULSION)
    else:
        member, by, root = _by_member(Member, signed, Context.MEMBER)
        record, provider = member, _provider_of(member, by)
    return _Said(
        fact=fact,
        hash=signed_hash(signed),
        by=by,
        record=record,
        root=root,
        provider=provider,
        voucher=voucher,
        inviter=inviter,
    )


M = TypeVar("M", Group, Member, Voucher, Expulsion)


def _by_member(kind: type[M], signed: bytes, context: Context) -> tuple[M, bytes, RootStatement | None]:
    """Return a member's record, which member signed it, and the root statement that names its key owner."""
    key = signer_of(signed)
    record = decode(kind, verify(signed, context, [key]))
    if not record.root:
        return record, identity_of(key), None
    root = verify_root(record.root, None)
    if root.owner_key != key:
        raise IntegrityError(f"{context.value.decode()}: signed by a key that its root has not named owner")
    return record, identity_of(root.root_key), root


def _provider_of(member: Member, by: bytes) -> Identity | None:
    if not member.root:
        return Identity(by)
    if not member.provider:
        return None
    key = signer_of(member.provider)
    seat = decode(Seat, verify(member.provider, Context.SEAT, [key]))
    if (seat.group, seat.member) != (member.group, by):
        raise IntegrityError("seat: this provider is another member's")
    return identity_of(key)


def _about(one: _Said) -> bytes:
    return one.record.member if isinstance(one.record, Expulsion) else one.by


def _group_of(one: _Said) -> bytes | None:
    """Return which group a fact is of; None for an offer, which is a provider's whatever it is in."""
    record = one.record
    return record.group if isinstance(record, Member | Voucher | Admission | Expulsion) else None


def _keys(one: _Said) -> list[tuple[bytes, ...]]:
    """Return the places that a fact has: of those with one place a single one stays."""
    match one.record:
        case Member(state=state):
            return [(b"member", one.by), *([(b"left", one.by)] if state == "left" else [])]
        case Voucher(code=code):
            return [(b"voucher", one.by, code)]
        case Admission(member=member, voucher=voucher):
            return [(b"admission", signed_hash(voucher), member)]
        case Expulsion(member=member):
            return [(b"expulsion", one.by, member)]
    return [(b"offer", one.by)]


def _rank(one: _Said) -> tuple[int, bytes]:
    """Return which of several facts in one place stays: the greatest."""
    match one.record:
        case Member(number=number) | Expulsion(number=number) | Offer(number=number):
            return number, one.hash
        case Voucher(revoked=revoked):
            return int(revoked), one.hash
    return 0, one.hash
