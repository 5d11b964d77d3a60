"""The group that a provider is in: what it knows of it, whom it lets in, and what it gives to its members.

Facts are handed on to tenants that are members, and taken from anybody: they are worth what their signatures are
(:mod:`replicator.charter.group`). What a member may store is this operator's own decision (``for_members``), and only
the operator's own word, or the tenant's, takes it back: then nothing more is taken, and nothing is deleted.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping

from replicator.charter.group import (
    MOST_ADMISSIONS,
    Known,
    Seated,
    Voice,
    check_facts,
    hash_of_secret,
    merge,
    read_word,
)
from replicator.charter.verify import belongs_to_root, signed_hash, verify_root
from replicator.clock import NS, SKEW_S, day_of
from replicator.config import format_size
from replicator.crypto.sign import Context, SigningKey, body_of
from replicator.errors import FormatError, IntegrityError
from replicator.format.codec import HASH_SIZE
from replicator.format.group import MAX_MEMBERS, Admission, Fact, GroupFacts
from replicator.format.offer import decode_offer
from replicator.ids import Identity, identity_of, root_fingerprint
from replicator.provider.database import Database
from replicator.provider.drain import whole_of
from replicator.provider.tenants import BY_HAND, find_tenant
from replicator.settings import DeclaredTenant
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import EnrolRequest, GroupReply, GroupRequest, JoinRequest

NO_GROUP = bytes(HASH_SIZE)


def known_group(connection: sqlite3.Connection) -> Known | None:
    """Return what is known of the group, with our newest offer; None if this provider is in none."""
    group, offer = connection.execute("SELECT group_id, offer FROM meta").fetchone()
    if not group:
        return None
    rows = connection.execute("SELECT kind, signed FROM facts ORDER BY hash")
    facts = [Fact(kind=kind, signed=signed) for kind, signed in rows]
    return merge(merge(None, facts, group=group), [Fact(kind="offer", signed=offer)])


def look_at(database: Database, group: bytes, facts: Iterable[Fact]) -> None:
    """Check the signatures of facts that came for a group, and of what is kept, while nobody waits for the database.

    What a transaction does with them soon after is worked out from the rows as they are then; it checks anew what is
    not remembered, and refuses what does not hold.
    """
    ours, offer = database.rows("SELECT group_id, offer FROM meta")[0]
    if not ours:
        return
    came = facts if group in (ours, NO_GROUP) else []  # of others nothing is taken
    kept = [Fact(kind=kind, signed=signed) for kind, signed in database.rows("SELECT kind, signed FROM facts")]
    with contextlib.suppress(IntegrityError, FormatError):
        check_facts([Fact(kind="offer", signed=offer), *kept, *came])


def enter(connection: sqlite3.Connection, known: Known, member: bytes) -> None:
    """Be this member's provider in a group, and in no other."""
    connection.execute("UPDATE meta SET group_id = ?, group_member = ?", (known.group, member))
    _keep(connection, known)
    settle(connection, known)


def take(connection: sqlite3.Connection, facts: Iterable[Fact]) -> Known:
    """Take more facts of the group.

    Raises:
        IntegrityError: a signature does not hold.
        RequestRefusedError: "not-found": this provider is in no group.
    """
    before = known_group(connection)
    if before is None:
        raise RequestRefusedError("not-found", "this provider is in no group")
    known = merge(before, facts)
    if known.hashes != before.hashes:
        _keep(connection, known)
    settle(connection, known)
    return known


def _keep(connection: sqlite3.Connection, known: Known) -> None:
    rows = [(signed_hash(fact.signed), fact.kind, fact.signed) for fact in known.facts]
    connection.execute("DELETE FROM facts")
    connection.executemany("INSERT INTO facts (hash, kind, signed) VALUES (?, ?, ?)", rows)


def own_member(connection: sqlite3.Connection) -> bytes:
    """Return which member this provider is, or is of; empty if it is in no group."""
    member: bytes = connection.execute("SELECT group_member FROM meta").fetchone()[0]
    return member


def members_here(connection: sqlite3.Connection, known: Known) -> list[Seated]:
    """Return the members as this provider sees them: its operator's word counts alone."""
    return known.members((own_member(connection),))


def settle(connection: sqlite3.Connection, known: Known) -> None:
    """Give members that store here already what members are given, and take it back from who left or was put out.

    A quota that the operator gave by hand stays. Who was expelled by most members, without a word of this operator's,
    gets nothing new and keeps what it was given.
    """
    mine = own_member(connection)
    (for_members,) = connection.execute("SELECT for_members FROM meta").fetchone()
    members = known.members((mine,))
    seats = {identity_of(one.root.root_key): one for one in members if one.root is not None}
    ours = next((one for one in members if one.id == mine), None)
    room = _room(connection)
    rows = connection.execute("SELECT id, root_key, quota, by_group FROM tenants ORDER BY created_ns, id").fetchall()
    for tenant, root_key, quota, given in rows:
        seat = seats.get(identity_of(root_key))
        own = quota - given
        if seat is None or seat.id == mine or given == BY_HAND:
            continue
        if (
            seat.state == "left"
            or any(by == mine for by, _ in seat.expelled_by)
            or ours is None
            or ours.state == "left"
        ):
            if given:
                kept = max(own, _used(connection, tenant))
                _set(connection, tenant, min(quota, kept), 0)
        elif seat.state == "in":
            wanted = max(0, for_members - own)
            if wanted > given:
                wanted = min(wanted, given + room) if given else (wanted if wanted <= room else 0)
            if wanted != given:
                room -= wanted - given
                _set(connection, tenant, own + wanted, wanted)


def _set(connection: sqlite3.Connection, tenant: bytes, quota: int, by_group: int) -> None:
    connection.execute("UPDATE tenants SET quota = ?, by_group = ? WHERE id = ?", (quota, by_group, tenant))


def _used(connection: sqlite3.Connection, tenant: bytes) -> int:
    (stored,) = connection.execute("SELECT coalesce(sum(bytes), 0) FROM usage WHERE tenant = ?", (tenant,)).fetchone()
    return int(stored)


def _room(connection: sqlite3.Connection) -> int:
    """Return what of the capacity no tenant was promised yet: a group never gives the same byte twice."""
    offer, given = connection.execute(
        "SELECT offer, (SELECT coalesce(sum(quota), 0) FROM tenants) FROM meta"
    ).fetchone()
    return max(0, decode_offer(body_of(offer)).capacity - int(given))


def set_for_members(connection: sqlite3.Connection, size: int) -> None:
    """Give each member so much from now on; those that store here already get as much, or keep less."""
    connection.execute("UPDATE meta SET for_members = ?", (size,))
    known = known_group(connection)
    if known is not None:
        settle(connection, known)


def swap(connection: sqlite3.Connection, request: GroupRequest, root_key: bytes) -> GroupReply:
    """Take what a tenant brings; return what it lacks, if it is a member, and say what is lacking here.

    Who is out hears why and nothing else.

    Raises:
        IntegrityError: a signature does not hold.
    """
    known = known_group(connection)
    if known is None or request.group not in (known.group, NO_GROUP):
        return GroupReply(group=NO_GROUP, facts=[], wanted=b"")
    if request.facts:
        known = take(connection, request.facts)
    member = identity_of(root_key)
    seat = next((one for one in members_here(connection, known) if one.id == member), None)
    if seat is None and request.group == NO_GROUP:
        return GroupReply(group=NO_GROUP, facts=[], wanted=b"")
    have = {request.have[at : at + HASH_SIZE] for at in range(0, len(request.have), HASH_SIZE)}
    lacking = [] if seat is None else known.beside(have)
    if seat is not None and seat.state != "in":
        lacking = [fact for fact in lacking if fact.kind in ("group", "expulsion")]
    wanted = b"".join(sorted(have - set(known.hashes))) if request.group == known.group else b""
    return GroupReply(group=known.group, facts=lacking, wanted=wanted)


def join(database: Database, key: SigningKey, request: JoinRequest, *, now_ns: int) -> GroupFacts:
    """Let in who brings the secret of a code that a member gave out; or, without one, hear who somebody is.

    Who comes back without a word above its last one is not let in yet, and told that one: the code stays good.

    Raises:
        RequestRefusedError: "not-found" (another group), "spent", "forbidden", "conflict" (a name that is taken).
        IntegrityError: a signature does not hold.
    """

    def work(connection: sqlite3.Connection) -> GroupFacts:
        known = known_group(connection)
        if known is None or known.group != request.group:
            raise RequestRefusedError("not-found", "this provider is not in that group")
        word = Fact(kind="member", signed=request.word)
        if not request.secret:
            take(connection, [*request.facts, word])
            return GroupFacts(facts=[])
        known = _admit(connection, Voice(key=key), known, word, request.secret, now_ns)
        return GroupFacts(facts=known.facts)

    look_at(database, request.group, [*request.facts, Fact(kind="member", signed=request.word)])
    return database.write("join", work)


def _admit(connection: sqlite3.Connection, voice: Voice, known: Known, word: Fact, secret: bytes, now_ns: int) -> Known:
    voucher = _open_voucher(connection, known, voice.key.identity, secret, now_ns)
    member, record = read_word(word.signed)
    if record.group != known.group or record.state != "in":
        raise RequestRefusedError("forbidden", "this word is of another group, or of one who leaves")
    came = {one.member for _, one, _ in known.admissions() if one.voucher == voucher}
    if came - {member}:
        raise RequestRefusedError("spent", "this code was used already, by somebody else; ask for a new one")
    if came:  # the answer to the first request was lost
        return take(connection, [word])
    said = known.word_of(member)
    if said is not None and said[0].number >= record.number:
        return known
    others = [one for one in members_here(connection, known) if one.state == "in" and one.id != member]
    if record.name.casefold() in {one.name.casefold() for one in others}:
        raise RequestRefusedError(
            "conflict", f"there is a member called '{record.name}' already: join with another name (`--name`)"
        )
    admission = Admission(group=known.group, voucher=voucher, member=member, number=record.number, admitted_ns=now_ns)
    fact = Fact(kind="admission", signed=voice.say(Context.ADMISSION, admission))
    known = take(connection, [word, fact])
    if fact not in known.facts:
        raise RequestRefusedError(
            "full",
            f"the group has had {MAX_MEMBERS} members, or {MOST_ADMISSIONS} by codes of who gave out this one, which "
            "is as many as there can be: ask another member for a code, or begin another group",
        )
    return known


def _open_voucher(connection: sqlite3.Connection, known: Known, ours: Identity, secret: bytes, now_ns: int) -> bytes:
    """Return the signed voucher of a code that is good here, by our own clock.

    Raises:
        RequestRefusedError: "spent": it is unknown, revoked or too old; "forbidden": who gave it out may not, or we.
    """
    seats = {one.id: one for one in members_here(connection, known)}
    us = seats.get(own_member(connection))
    if us is None or us.state != "in":
        raise RequestRefusedError("forbidden", "this provider has left the group: ask for a code of another member's")
    found = [one for one in known.vouchers() if (one[2].code, one[2].door) == (hash_of_secret(secret, one[0]), ours)]
    if not found:
        raise RequestRefusedError("spent", "this code is not known here; ask for a new one")
    member, signed, voucher, root = found[0]
    if voucher.revoked:
        raise RequestRefusedError("spent", "this code was revoked; ask for a new one")
    came = any(one.voucher == signed for _, one, _ in known.admissions())
    if not came and now_ns > voucher.expires_ns + SKEW_S * NS:
        raise RequestRefusedError(
            "spent", f"this code was good until {day_of(voucher.expires_ns)}, and here it is {day_of(now_ns)}"
        )
    seat = seats.get(member)
    if seat is None or seat.state != "in":
        raise RequestRefusedError("forbidden", "who gave out this code is not in the group any more")
    if root is not None and seat.root is not None and root.number < seat.root.number:
        raise RequestRefusedError("forbidden", "this code was signed with an owner key that another has replaced since")
    return signed


def declared_member(
    database: Database, request: EnrolRequest, declared: Mapping[bytes, DeclaredTenant]
) -> tuple[Mapping[bytes, DeclaredTenant], bytes]:
    """Return whom an order may enrol without an invite: ``declared``, and the member that asks, with its root key.

    That is empty if it is no member, or is here as something else.

    Raises:
        RequestRefusedError: "forbidden", "full": it is a member, and gets nothing here.
        IntegrityError: its root statement does not hold.
    """
    if not request.root:
        return declared, b""
    root = verify_root(request.root, None)
    known = database.read(known_group)
    here = find_tenant(database, root.tenant)
    if known is None or root.root_key in declared or (here is not None and here.charter_number):
        return declared, b""
    seats = {one.id: one for one in database.read(lambda connection: members_here(connection, known))}
    seat = seats.get(identity_of(root.root_key))
    if seat is None or seat.root is None or seat.id == database.read(own_member):
        return declared, b""
    if root.number < seat.root.number:
        raise RequestRefusedError("forbidden", "this member's root has said more since than in this statement")
    if seat.state != "in":
        raise RequestRefusedError("forbidden", "who left the group, or was put out of it, gets nothing new here")
    if whole_of(database) is not None:
        raise RequestRefusedError("forbidden", "this provider leaves or shrinks, and takes nobody new")
    us = seats.get(database.read(own_member))
    for_members, room = database.read(
        lambda connection: (connection.execute("SELECT for_members FROM meta").fetchone()[0], _room(connection))
    )
    if us is None or us.state != "in" or not for_members:
        raise RequestRefusedError(
            "forbidden", "this provider gives nothing to members; its operator can: `provider set --for-members 50G`"
        )
    if here is None and for_members > room:
        raise RequestRefusedError(
            "full",
            f"each member gets {format_size(for_members)} here, and of what is offered there is left only "
            f"{format_size(room)}: its operator can give less to each, or offer more",
        )
    if not belongs_to_root(root.tenant, root.root_key, request.handovers):
        raise RequestRefusedError(
            "forbidden",
            "this tenant's id is not made of its root key; where it is of an earlier build, the operator can declare "
            f"tenant {root_fingerprint(root.root_key)}",
        )
    # The quota comes with what the group settles, in which it is counted as the group's.
    quota = here.quota if here is not None else 0
    member = DeclaredTenant(name=seat.name, root_key=root.root_key, quota=quota)
    return {**declared, root.root_key: member}, root.root_key


def settle_now(database: Database, admitted: bytes) -> None:
    """Settle what members get, of whom the one with this root key was just enrolled as a member (empty: none)."""

    def work(connection: sqlite3.Connection) -> None:
        known = known_group(connection)
        if known is not None:
            connection.execute("UPDATE tenants SET by_group = 0 WHERE root_key = ? AND charter_number = 0", (admitted,))
            settle(connection, known)

    database.write("members' quotas", work)
