"""Asking peers what they hold, and for proof: what `status` and `repair` believe instead of our own catalog."""

import base64
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from replicator.catalog.objects import HoldingState, ObjectRow
from replicator.clock import DAY_S, NS
from replicator.config import counted
from replicator.crypto.sign import Context, body_of, verify
from replicator.engine.asking import ask_all
from replicator.engine.dismissed import dismissed
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link, inventory_pages
from replicator.engine.forgetting import known_there, note_there
from replicator.engine.givenup import released_there
from replicator.engine.home import Half
from replicator.engine.presence import note_disk
from replicator.engine.sync import sync_all
from replicator.errors import BusyError, PeerError, ProtocolError, RefusedError, ReplicatorError, UnreachableError
from replicator.format.claim import AuditReceipt, hash_of
from replicator.format.codec import decode
from replicator.format.merkle import leaf_count, proves
from replicator.format.sizes import is_allowed
from replicator.ids import Identity, ObjectName, short
from replicator.wire.messages import (
    MAX_CHECKS,
    MAX_PROBES,
    PULLS_VERSION,
    AttestReply,
    CheckReply,
    CheckRequest,
    ProveReply,
    ProveRequest,
)
from scheduler import Auditable, probes

PROBES = 100
"""Leaves asked of each peer in one audit: 1% loss is found with 63% a night, 99.9% within seven. At most 1.7 MiB."""
DEEPER = 588
"""Leaves asked beside them of a peer that did not prove one: with these, 1% loss is found with 99.9% at once."""
LATE_S = 120.0
"""A proof that takes longer may have been fetched from elsewhere; it shows nothing."""
AT_ONCE = 16
"""Objects of which leaves are asked for in one request: a provider reads each whole once for all its leaves, up to 256
MiB together, so that one that reads 2.2 MB a second (a bucket behind a thin line) is in time."""
ALL_S = 3600.0
"""Seconds for all that is asked of a peer at a time. What is left then is late, whoever takes his time for each."""
_WEEK_NS = 7 * DAY_S * NS
_KEPT_NS = 60 * DAY_S * NS
_NAME = 32
Signed: TypeAlias = bytes
"""A signed AuditReceipt."""
AUDIT = "audit"
"""The kind of run under which results are kept."""


@dataclass(slots=True)
class PeerView:
    """What one peer showed: objects and bytes of ours that lie there, what is gone, what is not right.

    ``lacks`` and ``spoilt`` name what recovery begins with, "charter" and "keybag", where it is gone or not right.

    Of ``probes`` proofs that were asked for so many were ``proved``; ``wrong``: something else than the object's bytes
    came; ``absent``: the object was listed a moment before, and the peer says that it cannot show it; ``late``: not in
    time, or not at all, which is an outage and no loss.
    """

    objects: int = 0
    bytes: int = 0
    missing: list[ObjectRow] = field(default_factory=list)
    damaged: list[ObjectRow] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    spoilt: list[str] = field(default_factory=list)
    probes: int = 0
    proved: int = 0
    wrong: int = 0
    absent: int = 0
    late: int = 0
    signed: "list[Signed]" = field(default_factory=list)
    """Receipts for these proofs, one for each request."""
    problems: list[str] = field(default_factory=list)
    unnamed: dict[ObjectName, int] = field(default_factory=dict)
    """Sizes of what lies there and is no object that the catalog knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What a peer proved within the last week, and when it was asked last.

    ``signed`` are its receipts for that, the newest last; none of a provider of an earlier release.
    """

    asked_ns: int
    signed: tuple[bytes, ...] = ()
    probes: int
    proved: int
    wrong: int
    absent: int
    late: int

    @property
    def confidence(self) -> float:
        """The chance that a loss of 1% would have shown."""
        return 1 - 0.99 ** (self.probes - self.late)


def audited(half: Half, now_ns: int) -> dict[str, Audited]:
    """Return the results of the last week by peer, whose identity is in hex."""
    found: dict[str, Audited] = {}
    for row in half.catalog.runs(AUDIT):
        ended_ns, peers = row["ended_ns"], row["peers"]
        assert isinstance(ended_ns, int), "as it was recorded"
        assert isinstance(peers, dict), "as it was recorded"
        if ended_ns < now_ns - _WEEK_NS:
            continue
        for peer, counts in peers.items():
            old = found.get(peer)
            sums = {key: counts[key] + (getattr(old, key) if old else 0) for key in _COUNTS}
            signed = (*(old.signed if old else ()), *map(base64.b64decode, counts.get("receipts", ())))
            found[peer] = Audited(asked_ns=ended_ns, signed=signed, **sums)
    return found


def read_audit_receipt(signed: bytes) -> AuditReceipt:
    """Return what a receipt says that was checked when it was kept."""
    return decode(AuditReceipt, body_of(signed))


_COUNTS = ("probes", "proved", "wrong", "absent", "late")
_LOOKED_FOR = "looked for"


async def audit(half: Half, edge: Edge, *, count: int = PROBES) -> tuple[dict[bytes, PeerView], Federation]:
    """Ask every peer for inventory and proofs, and nothing else. The federation that is returned is closed."""
    async with Federation(half, edge) as federation:
        await sync_all(half, federation)  # a keeper learns only so what there is to be proved
        views = await survey(half, federation, edge, count=count)
        problems = {link.identity: list(link.problems) for link in federation.links.values()}
    for identity, view in views.items():
        view.problems = problems.get(Identity(identity), [])
    return views, federation


async def survey(half: Half, federation: Federation, edge: Edge, *, count: int = PROBES) -> dict[bytes, PeerView]:
    """Take every reachable peer's inventory and up to ``count`` proofs; bring the catalog in line with them.

    A peer that does not prove one of them is asked for more at once. What was proved is kept in the catalog.

    Returns what each peer showed, by identity. What is wrong is in the link's problems and the federation's
    integrity list too.
    """
    rows: dict[bytes, ObjectRow] = {row.name: row for row in half.catalog.objects.all()}
    replaced = half.catalog.objects.replaced([row.id for row in rows.values() if row.lost])
    replaced |= half.catalog.objects.shards_only_of(replaced) | dismissed(half)
    began = edge.clock.now_ns()
    found = await ask_all(
        federation.links.values(), lambda link: _survey_one(half, federation, edge, link, rows, replaced, count)
    )
    views: dict[bytes, PeerView] = {identity: view for identity, view in found.given.items() if view is not None}
    if views:
        newest = max((row.id for row in rows.values()), default=0)
        half.catalog.set_meta(_LOOKED_FOR, newest.to_bytes(8))
    _remember(half, edge, began, views)
    return views


async def prove_copies(
    half: Half, federation: Federation, edge: Edge, wanted: Mapping[Identity, Collection[ObjectRow]]
) -> dict[bytes, PeerView]:
    """Have a leaf of each of these objects proved by who is taken to hold it.

    The catalog has what was proved, and what was not shown as damaged. Who does not answer is dropped. Returns what
    each peer showed; what is wrong is in the link's problems and the federation's integrity list too.
    """
    began = edge.clock.now_ns()

    async def ask(link: Link) -> PeerView:
        view, states = PeerView(), dict[int, HoldingState]()
        by_id = {row.name.hex(): row for row in wanted[link.identity]}
        leaves = [(key, edge.rng.below(leaf_count(row.size))) for key, row in sorted(by_id.items())]
        try:
            await _ask(half, edge, link, by_id, leaves, states, view)
        except PeerError as error:
            await federation.drop(link, error)
        half.catalog.objects.set_states(
            link.identity, states, incarnation=link.info.incarnation, now_ns=edge.clock.now_ns()
        )
        view.damaged = [row for row in by_id.values() if row.id in states]
        _tell_damage(federation, link, view)
        return view

    found = await ask_all([link for one, link in federation.links.items() if wanted.get(one)], ask)
    views: dict[bytes, PeerView] = dict(found.given.items())
    _remember(half, edge, began, views)
    return views


def _remember(half: Half, edge: Edge, began: int, views: Mapping[bytes, PeerView]) -> None:
    """Keep what was proved as a run."""
    results = {
        identity.hex(): {key: getattr(view, key) for key in _COUNTS}
        | {"receipts": [base64.b64encode(one).decode() for one in view.signed]}
        for identity, view in views.items()
        if view.probes
    }
    if results:
        now = edge.clock.now_ns()
        half.catalog.record_run(AUDIT, started_ns=began, ended_ns=now, exit_code=0, summary={"peers": results})
        half.catalog.forget_runs(AUDIT, before_ns=now - _KEPT_NS)


def looked_for(half: Half) -> int:
    """Return the newest object, by its number in the catalog, that a survey has looked for; 0: there was none yet."""
    return int.from_bytes(half.catalog.meta(_LOOKED_FOR) or b"")


async def _survey_one(
    half: Half,
    federation: Federation,
    edge: Edge,
    link: Link,
    rows: dict[bytes, ObjectRow],
    replaced: set[int],
    count: int,
) -> PeerView | None:
    # Taken before the inventory: what a backup beside us has stored since then is not missing, only newer.
    holdings = half.catalog.objects.holdings(peer=link.identity)
    promised = {holding.object_id for holding in holdings}
    recovery, forgets = _recovery(half, link), known_there(half, link.identity)
    view: PeerView | None = None
    try:
        view, states, listed = await _inventory(link, rows, {*recovery.values(), *forgets})
        note_there(half, link.identity, (), gone={name for name in forgets if not listed.get(name)})
        spoilt = {holding.object_id for holding in holdings if holding.state == "damaged"}
        await _probe(half, edge, link, rows, states, view, count, spoilt)
        if view.late and not view.proved:
            # An inventory without any proof is a word: its copies go on counting only as long as the last look allows.
            raise UnreachableError(
                link.pin.name, f"none of {counted(view.probes, 'proof')} came in time: an outage, for now"
            )
        await _charter_and_keybag(edge, link, recovery, listed, view)
        note_disk(half, link.identity, edge.clock.now_ns(), away=False)
        released = await released_there(link)
    except PeerError as error:
        await federation.drop(link, error)
        return view if view is not None and view.late else None
    names = {row.id: row for row in rows.values()}
    for object_id in (promised - set(states)) & names.keys():  # a run beside us may just have made some
        states[object_id] = "missing"
    given_up = {holding.object_id for holding in holdings if holding.state == "released"}
    for object_id, state in states.items():
        row = names[object_id]
        # Of its own objects a node knows itself what it gave up: no provider can say so of what it claims.
        own = half.role == "node" and row.writer == half.identity
        if state == "held" and (object_id in given_up if own else row.name in released):
            states[object_id] = "released"
    settled = given_up | {holding.object_id for holding in holdings if holding.state == "gone"}
    for object_id in (settled | replaced) & states.keys():
        if states[object_id] not in {"held", "released"}:
            states[object_id] = "gone"
    half.catalog.objects.set_states(
        link.identity, states, incarnation=link.info.incarnation, now_ns=edge.clock.now_ns()
    )
    view.missing = [names[i] for i, state in sorted(states.items()) if state == "missing"]
    view.damaged = [names[i] for i, state in sorted(states.items()) if state == "damaged"]
    if view.wrong:
        message = f"{view.wrong} of {counted(view.probes, 'proof')} {'is' if view.wrong == 1 else 'are'} wrong"
        link.problems.append(message)
        federation.integrity.append(f"{link.pin.name}: {message}")
    if view.absent:
        link.problems.append(
            f"{view.absent} of {counted(view.probes, 'proof')} {'is' if view.absent == 1 else 'are'} "
            "of what it listed and cannot show"
        )
    if view.late:
        link.problems.append(f"{view.late} of {counted(view.probes, 'proof')} did not come in time: an outage, for now")
    if view.missing:
        link.problems.append(missing_in_words(len(view.missing)))
    if view.lacks:
        link.owe(f"does not hold the {' and the '.join(view.lacks)}, which recovery begins with")
    if view.spoilt:
        message = f"its {' and '.join(view.spoilt)}, which recovery begins with, are damaged"
        link.owe(message)
        federation.integrity.append(f"{link.pin.name}: {message}")
    _tell_damage(federation, link, view)
    return view


def missing_in_words(count: int) -> str:
    """Say how much of what a provider receipted is not there."""
    what = counted(count, "object that it had receipted is", "objects that it had receipted are")
    return f"{what} gone"


def _tell_damage(federation: Federation, link: Link, view: PeerView) -> None:
    if view.damaged:
        what = counted(len(view.damaged), "object is", "objects are")
        message = f"{what} damaged (first: {short(view.damaged[0].name)})"
        link.problems.append(message)
        federation.integrity.append(f"{link.pin.name}: {message}")


async def _inventory(
    link: Link, rows: dict[bytes, ObjectRow], others: set[bytes]
) -> tuple[PeerView, dict[int, HoldingState], dict[bytes, int]]:
    """Return what a peer lists: of objects with a row their states, of ``others`` their sizes, 0 if damaged."""
    view = PeerView()
    states: dict[int, HoldingState] = {}
    listed: dict[bytes, int] = {}
    async for page in inventory_pages(link):
        names = [page.names[at : at + _NAME] for at in range(0, len(page.names), _NAME)]
        for name, size in zip(names, page.sizes, strict=False):
            view.objects += 1
            view.bytes += size
            if name in others:
                listed[name] = size
            row = rows.get(name)
            if row is None:
                view.unnamed[ObjectName(name)] = size
            else:
                states[row.id] = "held" if size == row.size and is_allowed(size) else "damaged"
        bad: tuple[tuple[bytes, HoldingState], ...] = ((page.missing, "missing"), (page.damaged, "damaged"))
        for joined, state in bad:
            for at in range(0, len(joined), _NAME):
                if state == "damaged" and joined[at : at + _NAME] in others:
                    listed[joined[at : at + _NAME]] = 0
                row = rows.get(joined[at : at + _NAME])
                if row is not None:
                    states[row.id] = state
    return view, states, listed


async def _probe(
    half: Half,
    edge: Edge,
    link: Link,
    rows: dict[bytes, ObjectRow],
    states: dict[int, HoldingState],
    view: PeerView,
    count: int,
    spoilt: set[int],
) -> None:
    """Ask for proofs of single leaves; a wrong or absent one makes the object damaged, a late one says nothing.

    What was damaged when it was last looked at (``spoilt``) is asked for too, and stays so until it is proved: to be
    listed again is no proof.
    """
    back = [row for row in rows.values() if row.id in spoilt and states.get(row.id) == "held"]
    proved: set[int] = set()
    if back:
        leaves = [(row.name.hex(), edge.rng.below(leaf_count(row.size))) for row in back]
        by_name = {row.name.hex(): row for row in back}
        proved = await _ask(half, edge, link, by_name, leaves, states, view)
    for row in back:
        if row.id not in proved:
            states[row.id] = "damaged"
    if not count:
        return
    audited = {holding.object_id: holding.audited_ns for holding in half.catalog.objects.holdings(peer=link.identity)}
    by_id = {row.name.hex(): row for row in rows.values()}
    candidates = [
        Auditable(id=key, size=row.size, audited=audited.get(row.id) or None)
        for key, row in by_id.items()
        if states.get(row.id) == "held"
    ]
    await _ask(half, edge, link, by_id, probes(candidates, count, edge.rng.bytes(32)), states, view)
    if view.wrong or view.absent:
        left = [one for one in candidates if states[by_id[one.id].id] == "held"]
        await _ask(half, edge, link, by_id, probes(left, DEEPER, edge.rng.bytes(32)), states, view)


async def _ask(
    half: Half,
    edge: Edge,
    link: Link,
    by_id: dict[str, ObjectRow],
    chosen: list[tuple[str, int]],
    states: dict[int, HoldingState],
    view: PeerView,
) -> set[int]:
    """Return which objects were proved, by their numbers in the catalog."""
    proved: set[int] = set()
    view.probes += len(chosen)
    began = edge.clock.monotonic()
    left = len(chosen)
    for part in _parts(chosen):
        request = ProveRequest(names=b"".join(bytes.fromhex(key) for key, _ in part), leaves=[leaf for _, leaf in part])
        asked = edge.clock.monotonic()
        if asked - began > ALL_S:
            view.late += left
            break
        try:
            reply, receipt = await _proved(half, link, request)
        except (UnreachableError, BusyError):
            view.late += left
            break
        left -= len(part)
        view.signed += receipt
        is_late = edge.clock.monotonic() - asked > LATE_S
        answers = [*reply.proofs, *([None] * (len(part) - len(reply.proofs)))]
        for (key, leaf), proof in zip(part, answers, strict=False):
            row = by_id[key]
            if proof is None:
                view.absent += 1
                states[row.id] = "damaged"
            elif proof.size != row.size or not proves(row.name, leaf, proof):
                view.wrong += 1
                states[row.id] = "damaged"
            elif is_late:
                view.late += 1
            else:
                view.proved += 1
                proved.add(row.id)
    half.catalog.objects.set_audited(link.identity, proved, edge.clock.now_ns())
    return proved


def _parts(chosen: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Yield leaves as they are asked for: those of one object together, of a few objects at a time."""
    part: list[tuple[str, int]] = []
    keys: set[str] = set()
    for one in sorted(chosen):
        keys.add(one[0])
        if len(keys) > AT_ONCE or len(part) == MAX_PROBES:
            yield part
            part, keys = [], {one[0]}
        part.append(one)
    if part:
        yield part


async def _proved(half: Half, link: Link, request: ProveRequest) -> tuple[ProveReply, list[bytes]]:
    """Have leaves proved, and the provider's receipt for that if its release signs any.

    A receipt that does not hold is a problem of the provider and costs no proof.
    """
    if PULLS_VERSION in link.info.wire:
        try:
            answer = await link.connection.call("attest", request, AttestReply)
        except RefusedError as error:
            if error.code != "bad-request":  # a build that spoke version 2 before this was in it
                raise
        else:
            reply = ProveReply(incarnation=answer.incarnation, proofs=answer.proofs)
            try:
                check_audit_receipt(answer.receipt, link, half, request, reply)
            except ProtocolError as error:
                link.problems.append(error.reason)
                return reply, []
            return reply, [answer.receipt]
    return await link.connection.call("prove", request, ProveReply), []


def check_audit_receipt(signed: Signed, link: Link, half: Half, request: ProveRequest, reply: ProveReply) -> None:
    """Check that this provider signed a receipt for this question and answer.

    Raises:
        ProtocolError: it did not.
    """
    try:
        receipt = decode(AuditReceipt, verify(signed, Context.AUDIT_RECEIPT, [link.offer.provider_key]))
    except ReplicatorError as error:
        raise ProtocolError(link.pin.name, f"its receipt for proofs cannot be trusted ({error})") from error
    expected = msgspec.structs.replace(
        receipt,
        tenant=half.tenant,
        auditor=half.identity,
        incarnation=link.info.incarnation,
        question=hash_of(request),
        answer=hash_of(reply),
        probes=len(request.leaves),
        shown=sum(proof is not None for proof in reply.proofs),
    )
    if receipt != expected:
        raise ProtocolError(link.pin.name, "its receipt for proofs is for something else")


def _recovery(half: Half, link: Link) -> dict[str, bytes]:
    """Return the two objects that a recovery begins with, where the peer knows our charter."""
    if link.info.charter_number != half.charter.number:
        return {}
    return {"charter": link.info.charter, "keybag": half.charter.charter.keybag}


async def _charter_and_keybag(
    edge: Edge, link: Link, expected: dict[str, bytes], listed: dict[bytes, int], view: PeerView
) -> None:
    """Have the two objects that a recovery begins with proved."""
    if not expected:
        return
    view.lacks = [what for what, name in expected.items() if name not in listed]
    here = [
        (what, name, edge.rng.below(leaf_count(max(listed[name], 1))))
        for what, name in expected.items()
        if name in listed
    ]
    request = ProveRequest(names=b"".join(name for _, name, _ in here), leaves=[leaf for _, _, leaf in here])
    reply = await link.connection.call("prove", request, ProveReply)
    for (what, name, leaf), proof in zip(here, [*reply.proofs, None, None], strict=False):
        if proof is None or proof.size != listed[name] or not proves(ObjectName(name), leaf, proof):
            view.spoilt.append(what)


async def recheck(link: Link, rows: list[ObjectRow]) -> dict[int, HoldingState]:
    """Have a peer read objects whole and quarantine what is bad, so that they can be stored again.

    Raises:
        PeerError: it does not answer.
    """
    words: dict[str, HoldingState] = {"good": "held", "missing": "missing", "damaged": "damaged"}
    states: dict[int, HoldingState] = {}
    for start in range(0, len(rows), MAX_CHECKS):
        part = rows[start : start + MAX_CHECKS]
        reply = await link.connection.call("check", CheckRequest(names=b"".join(row.name for row in part)), CheckReply)
        states.update({row.id: words[state] for row, state in zip(part, reply.states, strict=False)})
    return states
