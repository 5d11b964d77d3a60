"""Asking peers what they hold, and for proof: what `status` and `repair` believe instead of our own catalog."""

import asyncio
from dataclasses import dataclass, field

from replicator.catalog.objects import HoldingState, ObjectRow
from replicator.engine.dismissed import dismissed
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link, inventory_pages
from replicator.engine.home import Half
from replicator.errors import PeerError
from replicator.format.merkle import leaf_count, proves
from replicator.format.sizes import is_allowed
from replicator.ids import ObjectName, short
from replicator.wire.messages import (
    MAX_CHECKS,
    MAX_PROBES,
    CheckReply,
    CheckRequest,
    ProveReply,
    ProveRequest,
)
from scheduler import Auditable, probes

PROBES = 100
"""Leaves asked of each peer in one audit: 1% loss is found with 63% a night, 99.9% within seven."""
_NAME = 32


@dataclass(slots=True)
class PeerView:
    """What one peer showed: objects and bytes of ours that lie there, what is gone, what is not right.

    ``lacks`` and ``spoilt`` name what recovery begins with, "charter" and "keybag", where it is gone or not right.
    """

    objects: int = 0
    bytes: int = 0
    missing: list[ObjectRow] = field(default_factory=list)
    damaged: list[ObjectRow] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    spoilt: list[str] = field(default_factory=list)
    probes: int = 0


async def survey(half: Half, federation: Federation, edge: Edge, *, count: int = PROBES) -> dict[bytes, PeerView]:
    """Take every reachable peer's inventory and up to ``count`` proofs; bring the catalog in line with them.

    Returns what each peer showed, by identity. What is wrong is in the link's problems and the federation's
    integrity list too.
    """
    rows: dict[bytes, ObjectRow] = {row.name: row for row in half.catalog.objects.all()}
    replaced = half.catalog.objects.replaced([row.id for row in rows.values() if row.lost]) | dismissed(half)
    links = list(federation.links.values())
    views = await asyncio.gather(*(_survey_one(half, federation, edge, link, rows, replaced, count) for link in links))
    return {link.identity: view for link, view in zip(links, views, strict=True) if view is not None}


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
    try:
        view, states, listed = await _inventory(link, rows)
        await _probe(half, edge, link, rows, states, view, count)
        await _charter_and_keybag(half, edge, link, listed, view)
    except PeerError as error:
        await federation.drop(link, error)
        return None
    names = {row.id: row for row in rows.values()}
    for object_id in (promised - set(states)) & names.keys():  # a run beside us may just have made some
        states[object_id] = "missing"
    settled = {holding.object_id for holding in holdings if holding.state == "gone"}
    for object_id in (settled | replaced) & states.keys():
        if states[object_id] != "held":
            states[object_id] = "gone"
    half.catalog.objects.set_states(
        link.identity, states, incarnation=link.info.incarnation, now_ns=edge.clock.now_ns()
    )
    view.missing = [names[i] for i, state in sorted(states.items()) if state == "missing"]
    view.damaged = [names[i] for i, state in sorted(states.items()) if state == "damaged"]
    if view.missing:
        link.problems.append(f"{len(view.missing)} objects that it had receipted are gone")
    if view.lacks:
        link.owe(f"does not hold the {' and the '.join(view.lacks)}, which recovery begins with")
    if view.spoilt:
        message = f"its {' and '.join(view.spoilt)}, which recovery begins with, are damaged"
        link.owe(message)
        federation.integrity.append(f"{link.pin.name}: {message}")
    if view.damaged:
        message = f"{len(view.damaged)} objects are damaged (first: {short(view.damaged[0].name)})"
        link.problems.append(message)
        federation.integrity.append(f"{link.pin.name}: {message}")
    return view


async def _inventory(
    link: Link, rows: dict[bytes, ObjectRow]
) -> tuple[PeerView, dict[int, HoldingState], dict[bytes, int]]:
    view = PeerView()
    states: dict[int, HoldingState] = {}
    listed: dict[bytes, int] = {}
    async for page in inventory_pages(link):
        names = [page.names[at : at + _NAME] for at in range(0, len(page.names), _NAME)]
        for name, size in zip(names, page.sizes, strict=False):
            view.objects += 1
            view.bytes += size
            listed[name] = size
            row = rows.get(name)
            if row is not None:
                states[row.id] = "held" if size == row.size and is_allowed(size) else "damaged"
        bad: tuple[tuple[bytes, HoldingState], ...] = ((page.missing, "missing"), (page.damaged, "damaged"))
        for joined, state in bad:
            for at in range(0, len(joined), _NAME):
                if state == "damaged":
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
) -> None:
    """Ask for proofs of single leaves; a wrong or absent one makes the object damaged."""
    if not count:
        return
    audited = {holding.object_id: holding.audited_ns for holding in half.catalog.objects.holdings(peer=link.identity)}
    by_id = {row.name.hex(): row for row in rows.values()}
    candidates = [
        Auditable(id=key, size=row.size, audited=audited.get(row.id) or None)
        for key, row in by_id.items()
        if states.get(row.id) == "held"
    ]
    chosen = probes(candidates, count, edge.rng.bytes(32)) if candidates else []
    proved = []
    for start in range(0, len(chosen), MAX_PROBES):
        part = chosen[start : start + MAX_PROBES]
        request = ProveRequest(names=b"".join(bytes.fromhex(key) for key, _ in part), leaves=[leaf for _, leaf in part])
        reply = await link.connection.call("prove", request, ProveReply)
        answers = [*reply.proofs, *([None] * (len(part) - len(reply.proofs)))]
        for (key, leaf), proof in zip(part, answers, strict=False):
            row = by_id[key]
            view.probes += 1
            if proof is not None and proof.size == row.size and proves(row.name, leaf, proof):
                proved.append(row.id)
            else:
                states[row.id] = "damaged"
    half.catalog.objects.set_audited(link.identity, proved, edge.clock.now_ns())


async def _charter_and_keybag(half: Half, edge: Edge, link: Link, listed: dict[bytes, int], view: PeerView) -> None:
    """Look for the two objects that a recovery begins with, where the peer knows our charter."""
    if link.info.charter_number != half.charter.number:
        return
    expected = {"charter": link.info.charter, "keybag": half.charter.charter.keybag}
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
