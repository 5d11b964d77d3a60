"""Telling providers what may go there: marks and releases with a view, fences and retirements of silent writers.

Whoever marks asks :func:`ask_claims` first, reads heads, snapshots and references then, decides after that, and marks
last (docs/spec/protocol.md §10): a provider refuses what was decided without knowing all that it had accepted.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from replicator.catalog.objects import split_ids
from replicator.charter.verify import signed_hash
from replicator.crypto.sign import Context, SigningKey
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link
from replicator.engine.handing import name_of_key
from replicator.engine.home import Half
from replicator.errors import PeerError, RefusedError
from replicator.format.codec import encode
from replicator.format.mark import Fence, Mark, Retire, SeenWriter
from replicator.ids import Identity, identity_of
from replicator.wire.messages import (
    Claims,
    Empty,
    MarkReply,
    Signed,
    WriterState,
)

NAMES_AT_ONCE: Final = 100_000
"""Names in one mark: 3.2 MB of the 8 MiB that a request may have."""
RECEIPTS_AT_ONCE: Final = 10_000
"""Receipts in one release, of about 250 bytes each: 2.5 MB, and two seconds of checking signatures at the provider."""
Outcome = Literal["stands", "nothing", "stale", "unseen", "waits", "silent"]


@dataclass(slots=True, kw_only=True)
class MarkedAt:
    """What became of marks at one provider.

    ``stale``: it accepted something meanwhile, so everything is to be decided anew. ``unseen``: it knows more of a
    writer than was read. ``waits``: it was put back from an older copy, and a writer has to claim anew first.
    ``silent``: it does not answer, or cannot do this. ``claimed`` names are relied on by somebody there, and stay.
    """

    identity: Identity
    name: str
    outcome: Outcome = "nothing"
    why: str = ""
    marked: set[bytes] = field(default_factory=set)
    claimed: set[bytes] = field(default_factory=set)
    locked: set[bytes] = field(default_factory=set)
    absent: set[bytes] = field(default_factory=set)
    short: set[bytes] = field(default_factory=set)
    """Surplus that stays: the provider's own receipt for it is too young, or it counts too few others."""
    end: tuple[int, bytes] | None = None
    """The number and hash of the last mark that stood, for who goes on after it; None if all did not stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A surplus object at one provider, with the receipts of ``copies`` others or more."""

    name: bytes
    copies: int
    receipts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What goes into one mark."""

    dead: tuple[bytes, ...] = ()
    surplus: tuple[Released, ...] = ()
    holders: bytes = b""


async def ask_claims(federation: Federation) -> dict[Identity, Claims]:
    """Return what each provider that answers has accepted; call it before anything is read and decided.

    One that does not answer is dropped; one that refuses is told and left out.
    """
    found: dict[Identity, Claims] = {}
    for link in list(federation.links.values()):
        try:
            found[link.identity] = await link.connection.call("claims", Empty(), Claims)
        except RefusedError as error:
            federation.notices.append(str(error))
        except PeerError as error:
            await federation.drop(link, error)
    return found


async def mark_dead(
    half: Half,
    federation: Federation,
    edge: Edge,
    key: SigningKey,
    *,
    before: Mapping[Identity, Claims],
    seen: Mapping[bytes, int],
    names: Mapping[Identity, Collection[bytes]],
) -> list[MarkedAt]:
    """Mark objects, by provider, as needed by nobody; return what became of it at each provider that is named.

    ``before`` is what :func:`ask_claims` gave before it was decided, ``seen`` the number of the newest snapshot of each
    writer that was read. The key must have the right ``mark``. Marking again what is marked changes nothing.
    """
    return [
        await _mark_at(half, federation, edge, key, identity, before.get(identity), seen, _dead_parts(wanted))
        for identity, wanted in names.items()
    ]


async def release(
    half: Half,
    federation: Federation,
    edge: Edge,
    key: SigningKey,
    *,
    before: Mapping[Identity, Claims],
    seen: Mapping[bytes, int],
    surplus: Mapping[Identity, Collection[Released]],
    holders: bytes,
) -> list[MarkedAt]:
    """Mark copies as surplus, as :func:`mark_dead` marks; ``holders`` is owner's word on whose receipts count.

    Whoever calls it has claimed the copies that stay, and asked ``before`` after that.
    """
    return [
        await _mark_at(half, federation, edge, key, identity, before.get(identity), seen, _parts(wanted, holders))
        for identity, wanted in surplus.items()
    ]


def _dead_parts(names: Collection[bytes]) -> list[_Part]:
    ordered = sorted(set(names))
    return [_Part(dead=tuple(ordered[at : at + NAMES_AT_ONCE])) for at in range(0, len(ordered), NAMES_AT_ONCE)]


def _parts(surplus: Collection[Released], holders: bytes) -> list[_Part]:
    """One mark says one number of copies: what was promised less is told apart, so that it is not held to more."""
    found = []
    for copies in sorted({one.copies for one in surplus}):
        alike = sorted((one for one in surplus if one.copies == copies), key=lambda one: one.name)
        step = max(1, RECEIPTS_AT_ONCE // max(len(one.receipts) for one in alike))
        found += [_Part(surplus=tuple(alike[at : at + step]), holders=holders) for at in range(0, len(alike), step)]
    return found


async def _mark_at(
    half: Half,
    federation: Federation,
    edge: Edge,
    key: SigningKey,
    identity: Identity,
    claims: Claims | None,
    seen: Mapping[bytes, int],
    parts: Sequence[_Part],
) -> MarkedAt:
    link = federation.links.get(identity)
    petname = next((pin.name for pin in half.peers if pin.identity == identity), identity.hex()[:12])
    found = MarkedAt(identity=identity, name=petname)
    if link is None or claims is None:
        found.outcome, found.why = "silent", str(federation.failures.get(identity, "it does not answer"))
        return found
    if not parts:
        return found
    for state in claims.writers:
        who = name_of_key(half.private, Identity(state.writer))
        if state.head > seen.get(state.writer, 0):
            found.outcome = "unseen"
            found.why = f"it knows snapshot {state.head} of {who}, which could not be read"
            return found
        if not (state.current or state.retired):
            found.outcome = "waits"
            found.why = f"its store was put back from an older copy, and {who} has not claimed anew yet"
            return found
    number, previous = claims.mark, claims.mark_hash
    for part in parts:
        names = {*part.dead, *(one.name for one in part.surplus)}
        mark = Mark(
            tenant=half.tenant,
            provider=identity,
            incarnation=claims.incarnation,
            number=number + 1,
            previous=previous,
            view=[
                SeenWriter(writer=one.writer, claim=one.claim, head=seen.get(one.writer, 0)) for one in claims.writers
            ],
            dead=b"".join(part.dead),
            surplus=b"".join(one.name for one in part.surplus),
            copies=max((one.copies for one in part.surplus), default=1),
            holders=part.holders,
            receipts=[receipt for one in part.surplus for receipt in one.receipts],
            created_ns=edge.clock.now_ns(),
        )
        signed = key.sign(Context.MARK, encode(mark))
        try:
            reply = await link.connection.call("mark", Signed(statement=signed), MarkReply)
        except PeerError as error:
            found.outcome, found.why = "silent", str(error)
            if not isinstance(error, RefusedError):
                await federation.drop(link, error)
            return found
        if reply.state != "stands":
            found.outcome = "stale"
            found.why = "it took in something new meanwhile"
            return found
        found.outcome = "stands"
        refused = {word: set(split_ids(getattr(reply, word))) for word in ("claimed", "locked", "absent", "short")}
        found.claimed |= refused["claimed"]
        found.locked |= refused["locked"]
        found.absent |= refused["absent"]
        found.short |= refused["short"]
        found.marked |= names.difference(*refused.values())
        number, previous = number + 1, signed_hash(signed)
    found.end = number, previous
    return found


async def retire(
    half: Half,
    link: Link,
    key: SigningKey,
    state: WriterState,
) -> Claims:
    """Wait no longer for a writer at one provider: what it claimed there protects nothing, until it claims anew.

    Its snapshots must have been read before: references alone protect their data from now on. A claim that it may have
    sent and that hangs on its way is fenced off first: coming later it would undo this, and nobody would hear what it
    is answered.

    Raises:
        RefusedError: it claimed meanwhile, or the key may not do that.
        PeerError: the provider does not answer.
    """
    fence = Fence(
        tenant=half.tenant, provider=link.identity, writer=state.writer, claim=state.claim + 1, head=state.head
    )
    await link.connection.call("fence", Signed(statement=key.sign(Context.FENCE, encode(fence))), Claims)
    order = Retire(tenant=half.tenant, provider=link.identity, writer=state.writer, claim=state.claim)
    return await link.connection.call("retire", Signed(statement=key.sign(Context.RETIRE, encode(order))), Claims)


def gone_writers(half: Half) -> set[bytes]:
    """Return the identities of nodes and maintainers whose right the charter revoked: they never claim again."""
    return {
        identity_of(right.holder_key)
        for right in half.charter.charter.rights
        if right.revoked and right.role in {"node", "maintainer"}
    }


def with_writer_retired(claims: Claims, now: Claims, writer: bytes) -> Claims:
    """Return what a provider had accepted before, with one writer as it is after its retirement.

    Everything else stays as it was asked first: a view must not know more than what was read after it.
    """
    after = {one.writer: one for one in now.writers}
    writers = [after.get(one.writer, one) if one.writer == writer else one for one in claims.writers]
    return msgspec.structs.replace(claims, writers=writers)
