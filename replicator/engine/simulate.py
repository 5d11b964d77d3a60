"""What copies are worth: a home's own, as last heard of, or those of a problem in a file. Asks nobody."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.home import Half
from replicator.engine.placing import PACK_KINDS, Ground, pack_id, peer_id, scheduler_policy
from replicator.errors import UsageError
from replicator.format.sizes import shard_size
from replicator.ids import Identity, short
from scheduler import (
    Holders,
    Pack,
    PackId,
    Peer,
    PeerId,
    Placement,
    Policy,
    SchedulerError,
    country_code,
    place,
    residency,
)
from scheduler.hazards import Hazards
from scheduler.outlook import Outlook, outlook
from scheduler.schemes import Choice, Scheme, choose, evaluate

SAMPLE: Final = 256
"""Packs that stand for all of a policy that has none yet, or for a number of equal ones."""
_PACK_BYTES: Final = 16 << 20
_PEER_KEYS: Final = {"id", "capacity", "used", "owner", "site", "region", "country", "state", "cost", "own"}
_PROBLEM_KEYS: Final = {"peers", "policies", "packs", "placements"}
_POLICY_KEYS: Final = {
    "name", "copies", "coding", "minimum", "spread", "max_per", "min_regions", "only_countries", "count_own",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One policy and where its packs lie; ``supposed`` where there are none yet and the planner says where."""

    label: str
    policy: Policy
    placement: Placement
    supposed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Peers, what they are called, and what is promised on them."""

    peers: tuple[Peer, ...]
    names: Mapping[PeerId, str]
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """An outlook for each case, in their order; what was tried; what reaches the target, by the first case's policy."""

    outlooks: tuple[Outlook, ...]
    tried: Scheme | None
    choice: Choice | None


def simulate(
    scene: Scene, hazards: Hazards, *, target: float | None = None, scheme: tuple[int, int] | None = None
) -> Simulation:
    """Judge a scene; ``scheme`` is (needed, shards) to be tried on its peers, ``target`` the nines to be reached.

    Raises:
        UsageError: there is no policy whose limits a scheme could keep, or the target is none.
    """
    outlooks = tuple(outlook(case.placement, scene.peers, case.policy, hazards) for case in scene.cases)
    limits = scene.cases[0].policy if scene.cases else Policy(name="any", copies=1, minimum=1)
    try:
        tried = evaluate(scene.peers, limits, hazards, needed=scheme[0], shards=scheme[1]) if scheme else None
        choice = choose(scene.peers, limits, hazards, target) if target is not None else None
    except SchedulerError as error:
        raise UsageError(str(error)) from error
    return Simulation(outlooks=outlooks, tried=tried, choice=choice)


def home_scene(half: Half, edge: Edge) -> Scene:
    """A home's providers and packs, as they were last heard of.

    Raises:
        UsageError: a policy or a provider's place is not one that can be planned with.
    """
    ground = Ground(half, Federation(half, edge))
    ground.refresh()
    peers = []
    for peer, pin in zip(ground.roster(), half.peers, strict=True):
        known = half.catalog.peers.get(Identity(pin.identity))
        peers.append(replace(peer, capacity=known.used + max(known.free, 0), used=known.used))
    rows = [row for row in half.catalog.objects.all() if row.kind in PACK_KINDS and not row.lost]
    counted = ground.counted(rows)
    policies = half.catalog.datasets.policies()
    users: dict[bytes, list[str]] = {}
    for dataset in half.catalog.datasets.all():
        users.setdefault(half.catalog.datasets.remember(dataset.policy), []).append(dataset.name)
    cases = []
    for key, record in policies.items():
        mine = [row for row in rows if row.policy == key]
        label = ", ".join(users.get(key, [])) or f"policy {short(key)}"
        for whole in (False, True) if record.coding is not None else (False,):
            rule = scheduler_policy(key, record, whole=whole)
            placement: Placement = {
                pack_id(row.name): tuple(sorted(counted[pack_id(row.name)]))
                for row in mine
                if record.coding is None or (ground.shards(row) is None) == whole
            }
            if not placement and (whole or key not in users):
                continue
            size = _PACK_BYTES if rule.coding is None else shard_size(_PACK_BYTES, rule.needed)
            cases.append(
                Case(
                    label=f"{label}, what is not cut" if whole else label,
                    policy=rule,
                    placement=placement or supposed(rule, peers, SAMPLE, size),
                    supposed=not placement,
                )
            )
    cases.sort(key=lambda case: (case.supposed, -len(case.placement), case.label))
    return Scene(peers=tuple(peers), names={peer_id(pin.identity): pin.name for pin in half.peers}, cases=tuple(cases))


def supposed(policy: Policy, peers: Sequence[Peer], count: int, size: int) -> dict[PackId, Holders]:
    """Where so many equal packs would be placed from empty; ``size`` is what each takes on a peer."""
    packs = [Pack(id=PackId(f"supposed {number}"), size=size, policy=policy.name) for number in range(count)]
    return {name: holders for name, holders in place(packs, peers, policy).placement.items() if holders}


def problem_scene(text: str) -> Scene:
    """The scene of a placement problem in JSON. Packs that lie nowhere yet are planned.

    Not every problem of docs/spec/placement.md is one here: docs/operate/durability.md has the differences.

    Raises:
        UsageError: it is none; the message says which part is wrong.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the problem is not JSON ({error})") from error
    try:
        return _scene(_table("the problem", document, _PROBLEM_KEYS))
    except SchedulerError as error:
        raise UsageError(f"the problem: {error}") from error


def _scene(document: dict[str, Any]) -> Scene:
    peers = [_peer(row) for row in _rows("peers", document.get("peers", []))]
    policies = [_policy(row) for row in _rows("policies", document.get("policies", []))]
    packs: dict[str, tuple[list[Pack], int, int]] = {policy.name: ([], 0, 1) for policy in policies}
    listed = document.get("packs", [])
    for number, row in enumerate(listed if isinstance(listed, list) else [listed]):
        where = f"packs[{number}]"
        row = _table(where, row, {"id", "size", "policy", "count"})
        name, size = row.get("policy", next(iter(packs), None)), row.get("size", 1)
        if name not in packs:
            raise UsageError(f"{where}: there is no policy {name!r}", hint="name one of `policies`")
        mine, count, largest = packs[name]
        if "id" in row:
            mine.append(Pack(id=PackId(row["id"]), size=size, policy=name))
            packs[name] = (mine, count, largest)
        else:
            packs[name] = (mine, count + _count(where, row.get("count")), max(largest, size))
    placements = _placements(document.get("placements", {}), peers)
    cases = []
    for policy in policies:
        mine, count, size = packs[policy.name]
        lying = {pack.id: placements[pack.id] for pack in mine if pack.id in placements}
        rest = [replace(pack, size=-(-pack.size // policy.needed)) for pack in mine if pack.id not in placements]
        if rest:
            lying |= place(rest, peers, policy).placement
        elif count or not lying:
            units = min(count or SAMPLE, SAMPLE)
            lying |= supposed(policy, peers, units, max(1, -(-size // policy.needed) * count // units))
        supposes = not any(pack.id in placements for pack in mine)
        cases.append(Case(label=policy.name, policy=policy, placement=lying, supposed=supposes))
    return Scene(peers=tuple(peers), names={}, cases=tuple(cases))


def _peer(row: dict[str, Any]) -> Peer:
    where = f"peer {row.get('id')!r}"
    _table(where, row, _PEER_KEYS)
    for key in ("id", "capacity", "country"):
        if key not in row:
            raise UsageError(f"{where}: {key} is missing")
    name, country = _word(where, "id", row["id"]), country_code(_word(where, "country", row["country"]))
    values = {"owner": name, "site": name, "region": country} | row
    return Peer(**(values | {"id": PeerId(name), "country": country}))


def _policy(row: dict[str, Any]) -> Policy:
    where = f"policy {row.get('name')!r}"
    _table(where, row, _POLICY_KEYS)
    coding = row.get("coding")
    if ("copies" in row) == (coding is not None):
        raise UsageError(f"{where}: give copies or coding")
    if coding is not None and not (
        isinstance(coding, list) and len(coding) == 2 and all(type(number) is int for number in coding)
    ):
        raise UsageError(f"{where}: coding is {coding!r}", hint="write [4, 2] for any 4 of 6 shards")
    needed: Any = 1 if coding is None else coding[0]
    countries = row.get("only_countries")
    return Policy(
        name=_word(where, "name", row.get("name")),
        copies=row["copies"] if coding is None else sum(coding),
        minimum=row.get("minimum", needed),
        spread=frozenset(_words(where, "spread", row.get("spread", ["owner"]))),  # type: ignore[arg-type] # checked there
        max_per=_table(f"{where}: max_per", row.get("max_per", {}), None),  # type: ignore[arg-type] # likewise
        min_regions=row.get("min_regions", 1),
        only_countries=None if countries is None else residency(",".join(_words(where, "only_countries", countries))),
        count_own=row.get("count_own") is True,
        coding=None if coding is None else (coding[0], coding[1]),
    )


def _placements(value: object, peers: Sequence[Peer]) -> dict[PackId, Holders]:
    known = {peer.id for peer in peers}
    found: dict[PackId, Holders] = {}
    for name, holders in _table("placements", value, None).items():
        if not isinstance(holders, list) or not all(one is None or isinstance(one, str) for one in holders):
            raise UsageError(f"placements of {name!r}: not a list of peer ids and null")
        strange = next((one for one in holders if one is not None and one not in known), None)
        if strange is not None:
            raise UsageError(f"placements of {name}: unknown peer {strange!r}", hint="name one of `peers`")
        found[PackId(name)] = tuple(None if one is None else PeerId(one) for one in holders)
    return found


def _word(where: str, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where}: {key} is {value!r}, not text")
    return value


def _words(where: str, key: str, value: object) -> list[str]:
    if not isinstance(value, list):
        raise UsageError(f"{where}: {key} is {value!r}, not a list")
    return [_word(where, key, one) for one in value]


def _count(where: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{where}: count is {value!r}, not a whole number")
    return value


def _rows(where: str, value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise UsageError(f"{where} is {type(value).__name__}, not a list")
    return [_table(f"{where}[{number}]", row, None) for number, row in enumerate(value)]


def _table(where: str, value: object, known: set[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where} is {type(value).__name__}, not an object")
    strange = sorted(set(value) - known) if known is not None else []
    if strange:
        raise UsageError(
            f"{where}: unknown key {', '.join(strange)}", hint=f"known are {', '.join(sorted(known or ()))}"
        )
    return value
