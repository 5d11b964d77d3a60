"""A placement problem as a tool writes it (docs/spec/placement.md), read with every slip named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np

from scheduler.errors import PolicyError, RosterError, SchedulerError
from scheduler.geography import Query, country_code, fold, households, queries, residency
from scheduler.hanging import Relays
from scheduler.model import MAX_BYTES
from scheduler.shape import Field, Ints, Rule

__all__ = ["DOMAINS", "Problem", "ProblemError", "parse", "read"]

DOMAINS: Final = ("owner", "site", "region", "country")
_PEER: Final = ("id", "capacity", "used", *DOMAINS, "state", "cost", "via")
_LIMITS: Final = (*DOMAINS, "household")
_STATES: Final = ("ok", "readonly", "draining", "lost")
_MAX_WIDTH: Final = 255  # shards of a Reed-Solomon code over bytes
_MAX_PACKS: Final = 10_000_000
_MAX_COST: Final = 1_000_000_000
_MAX_LIMIT: Final = 1_000_000
_MAX_TEXT: Final = 256


class ProblemError(SchedulerError):
    """A problem that cannot be planned: which part, what is wrong with it, what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What was asked: peers and policies as numbers, and for each pack its size, its policy and who holds it.

    ``room`` is each peer's capacity without what others take; ``held`` has the holders (by number, -1 for nobody) of
    those packs that lie somewhere, by the pack's place in ``packs``. ``asked`` is the policy and size of packs that
    were given by their count, which may be 0.
    """

    ground: Field
    room: tuple[int, ...]
    rules: tuple[Rule, ...]
    packs: Sequence[str]
    sizes: Ints
    policies: Ints
    asked: tuple[int, int] | None
    held: Mapping[int, tuple[int, ...]]
    relays: Relays[int]
    queries: tuple[Query, ...]


def read(text: str) -> Problem:
    """The problem in a JSON document.

    Raises:
        ProblemError: it is no JSON, or `parse` refuses it.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ProblemError(f"the key {twice!r} occurs twice in one object: write it once")
        return found

    def number(word: str) -> NoReturn:
        raise ProblemError(f"{word} is no number: use whole numbers")

    try:
        document = json.loads(text, object_pairs_hook=once, parse_constant=number)
    except json.JSONDecodeError as error:
        raise ProblemError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ProblemError("not a problem: nested too deeply") from error
    except ValueError as error:
        raise ProblemError(f"not JSON that can be read: {error}") from error
    return parse(document)


def parse(document: object) -> Problem:
    """The problem in a decoded JSON document.

    Raises:
        ProblemError: something in it is wrong; the message names what and where.
    """
    top = _object("the problem", document, ("peers", "policies", "packs", "placements"), ("peers", "policies"))
    peers = _peers(_list("peers", top["peers"]))
    found = tuple(queries([_Labels(**{name: peer[name] for name in DOMAINS}) for peer in peers]))
    ground = _ground(peers)
    rules = _policies(_list("policies", top["policies"]))
    names = {rule.name: at for at, rule in enumerate(rules)}
    given = top.get("packs", [])
    asked = _counted(given, names) if isinstance(given, dict) else None
    packs: Sequence[str]
    if asked is not None:
        count, *kind = asked
        packs, policies, sizes = [str(at) for at in range(count)], [kind[0]] * count, [kind[1]] * count
    else:
        packs, sizes, policies = _packs(given, names)
    held = _placements(top.get("placements", {}), packs, ground, rules, policies)
    return Problem(
        ground=ground,
        room=_room(peers, ground, rules, sizes, policies, held),
        rules=rules,
        packs=packs,
        sizes=np.array(sizes, dtype=np.int64),
        policies=np.array(policies, dtype=np.int64),
        asked=None if asked is None else asked[1:],
        held=held,
        relays=_relays(peers),
        queries=found,
    )


# -- peers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Labels:
    owner: str | None
    site: str | None
    region: str | None
    country: str | None


@dataclass(frozen=True, slots=True)
class _Housed:
    id: str
    owner: str
    site: str


def _peers(rows: list[object]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for at, row in enumerate(rows):
        what = f"peers[{at}]"
        peer = _object(what, row, _PEER, ("id", "capacity"))
        name = _text(f"{what}: id", peer["id"])
        what = f"peer {name!r}"
        if name in found:
            raise ProblemError(f"{what} occurs twice: give every peer an id of its own")
        country = None if peer.get("country") is None else _text(f"{what}: country", peer["country"])
        found[name] = {
            "id": name,
            "capacity": _whole(f"{what}: capacity", peer["capacity"], 0, MAX_BYTES),
            "used": _whole(f"{what}: used", peer.get("used", 0), 0, MAX_BYTES),
            "state": _choice(f"{what}: state", peer.get("state", "ok"), _STATES),
            "cost": _whole(f"{what}: cost", peer.get("cost", 0), 0, _MAX_COST),
            "country": None if country is None else _country(what, country),
            "via": None if peer.get("via") is None else _text(f"{what}: via", peer["via"]),
            **{domain: _place(f"{what}: {domain}", peer.get(domain)) for domain in ("owner", "site", "region")},
        }
    return [found[name] for name in sorted(found)]


def _relays(peers: list[dict[str, Any]]) -> Relays[int]:
    """Who is reached through which machine alone; one that is no peer has a number that no peer has."""
    number = {peer["id"]: at for at, peer in enumerate(peers)}
    behind: dict[int, list[int]] = {}
    for at, peer in enumerate(peers):
        if peer["via"] is not None:
            behind.setdefault(number.setdefault(peer["via"], -1 - at), []).append(at)
    return Relays(behind)


def _country(what: str, text: str) -> str:
    try:
        return country_code(text)
    except RosterError as error:
        raise ProblemError(f"{what}: {error}") from error


def _place(what: str, value: object) -> str | None:
    if value is None:
        return None
    label = _text(what, value)
    if not fold(label):
        raise ProblemError(f"{what} is {label!r}, which has neither letters nor digits")
    return label


def _ground(peers: list[dict[str, Any]]) -> Field:
    place: dict[str, Ints] = {}
    label: dict[str, list[str]] = {}
    for domain in DOMAINS:
        # A peer without a label is a place of its own; the id cannot be taken for a label, as it is marked.
        marked = [(0, fold(peer[domain])) if peer[domain] is not None else (1, peer["id"]) for peer in peers]
        place[domain], label[domain] = _numbered(marked, [peer[domain] or peer["id"] for peer in peers])
    home = households(
        _Housed(
            peer["id"],
            f"o {fold(peer['owner'])}" if peer["owner"] is not None else f"id{at}",
            f"s {fold(peer['site'])}" if peer["site"] is not None else f"id{at}",
        )
        for at, peer in enumerate(peers)
    )
    place["household"], label["household"] = _numbered(
        [(0, home[peer["id"]]) for peer in peers], [home[peer["id"]] for peer in peers]
    )
    states = [peer["state"] for peer in peers]
    return Field(
        ids=tuple(peer["id"] for peer in peers),
        place=place,
        label=label,
        country=tuple(peer["country"] for peer in peers),
        takes=np.array([state == "ok" for state in states], dtype=bool),
        holds=np.array([state in ("ok", "readonly") for state in states], dtype=bool),
        cost=np.array([peer["cost"] for peer in peers], dtype=np.int64),
        state=tuple(states),
    )


def _numbered(keys: Sequence[tuple[int, str]], names: Sequence[str]) -> tuple[Ints, list[str]]:
    """Numbers for equal keys, in their order, and for each number the first of the names."""
    order = {key: at for at, key in enumerate(sorted(set(keys)))}
    label = [""] * len(order)
    for key, name in zip(reversed(keys), reversed(names), strict=True):
        label[order[key]] = name
    return np.array([order[key] for key in keys], dtype=np.int64), label


def _room(
    peers: list[dict[str, Any]],
    ground: Field,
    rules: Sequence[Rule],
    sizes: Sequence[int],
    policies: Sequence[int],
    held: Mapping[int, Sequence[int]],
) -> tuple[int, ...]:
    """Capacity without what others use: ``used`` counts all that lies there, the placements given among it."""
    ours = [0] * len(ground)
    for pack, holders in held.items():
        shard = rules[policies[pack]].shard(sizes[pack])
        for holder in holders:
            if holder >= 0:
                ours[holder] += shard
    room = []
    for at, peer in enumerate(peers):
        if 0 < peer["used"] < ours[at] and peer["state"] != "lost":
            raise ProblemError(
                f"peer {peer['id']!r}: used is {peer['used']}, less than the {ours[at]} that the placements put there: "
                "used counts everything on the peer, so correct it or leave it out"
            )
        room.append(max(0, peer["capacity"] - max(0, peer["used"] - ours[at])))
    return tuple(room)


# -- policies ---------------------------------------------------------------------------------------------


def _policies(rows: list[object]) -> tuple[Rule, ...]:
    if not rows:
        raise ProblemError("policies is empty: give at least one")
    found: dict[str, Rule] = {}
    for at, row in enumerate(rows):
        what = f"policies[{at}]"
        known = ("name", "copies", "coding", "max_per", "spread", "min_regions", "only_countries")
        policy = _object(what, row, known, ())
        name = _text(f"{what}: name", policy.get("name", "default"))
        if name in found:
            raise ProblemError(f"policy {name!r} occurs twice: give every policy a name of its own")
        found[name] = _policy(name, policy)
    return tuple(found.values())


def _policy(name: str, policy: dict[str, Any]) -> Rule:
    what = f"policy {name!r}"
    needed = 1
    if ("copies" in policy) == ("coding" in policy):
        raise ProblemError(f"{what}: give either copies, such as 3, or coding, such as [4, 2]")
    if "copies" in policy:
        width = _whole(f"{what}: copies", policy["copies"], 1, _MAX_WIDTH)
    else:
        coding = _list(f"{what}: coding", policy["coding"])
        if len(coding) != 2:
            raise ProblemError(f"{what}: coding has {len(coding)} numbers: give two, data and parity shards")
        needed = _whole(f"{what}: coding, data shards", coding[0], 1, _MAX_WIDTH)
        width = needed + _whole(f"{what}: coding, parity shards", coding[1], 1, _MAX_WIDTH)
        _whole(f"{what}: coding, all shards", width, 1, _MAX_WIDTH)
    caps: dict[str, int] = {}
    limits = policy.get("max_per", {})
    for domain, most in _object(f"{what}: max_per", limits, _LIMITS, ()).items():
        caps[domain] = _whole(f"{what}: max_per {domain}", most, 1, _MAX_LIMIT)
    for word in _list(f"{what}: spread", policy.get("spread", [])):
        caps[_choice(f"{what}: spread", word, _LIMITS)] = 1
    regions = _whole(f"{what}: min_regions", policy.get("min_regions", 1), 1, _MAX_WIDTH)
    if regions > width:
        raise ProblemError(
            f"{what}: no federation can meet it: {width} shards cannot lie in {regions} regions: lower min_regions"
        )
    countries = _countries(what, policy.get("only_countries"))
    per_country = caps.get("country", width)
    if countries is not None and per_country * len(countries) < width:
        raise ProblemError(
            f"{what}: no federation can meet it: {width} shards, at most {per_country} in a country, do not fit in "
            f"{', '.join(sorted(countries))}: allow more countries, or more shards in each"
        )
    return Rule(
        name=name,
        width=width,
        needed=needed,
        caps={domain: caps[domain] for domain in _LIMITS if domain in caps and caps[domain] < width},
        min_regions=regions,
        countries=countries,
    )


def _countries(what: str, value: object) -> frozenset[str] | None:
    if value is None:
        return None
    words = [_text(f"{what}: only_countries", word) for word in _list(f"{what}: only_countries", value)]
    if not words:
        raise ProblemError(f"{what}: only_countries names no country: leave it out to allow all")
    try:
        return residency(",".join(words))
    except PolicyError as error:
        raise ProblemError(f"{what}: only_countries: {error}") from error


# -- packs and placements ---------------------------------------------------------------------------------


def _policy_of(what: str, row: dict[str, Any], rules: Mapping[str, int]) -> int:
    if "policy" not in row:
        if len(rules) == 1:
            return 0
        raise ProblemError(f"{what}: policy is missing, and there are several: {', '.join(sorted(rules))}")
    return rules[_choice(f"{what}: policy", row["policy"], tuple(sorted(rules)))]


def _counted(value: object, rules: Mapping[str, int]) -> tuple[int, int, int]:
    """Count, policy and size of packs that are all alike."""
    row = _object("packs", value, ("count", "size", "policy"), ("count", "size"))
    count = _whole("packs: count", row["count"], 0, _MAX_PACKS)
    return count, _policy_of("packs", row, rules), _whole("packs: size", row["size"], 1, MAX_BYTES)


def _packs(value: object, rules: Mapping[str, int]) -> tuple[Sequence[str], list[int], list[int]]:
    names: dict[str, None] = {}
    sizes: list[int] = []
    policies: list[int] = []
    for at, item in enumerate(_list("packs", value, "an object with count and size, or a list of packs")):
        what = f"packs[{at}]"
        row = _object(what, item, ("id", "size", "policy"), ("id", "size"))
        name = _text(f"{what}: id", row["id"])
        if name in names:
            raise ProblemError(f"pack {name!r} occurs twice: give every pack an id of its own")
        names[name] = None
        sizes.append(_whole(f"pack {name!r}: size", row["size"], 1, MAX_BYTES))
        policies.append(_policy_of(f"pack {name!r}", row, rules))
    return list(names), sizes, policies


def _placements(
    value: object, packs: Sequence[str], ground: Field, rules: Sequence[Rule], policies: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    if not isinstance(value, dict):
        raise ProblemError(f"placements is {_kind(value)}: give an object, pack id to list of peer ids")
    number = {name: at for at, name in enumerate(packs)}
    peer_of: dict[str | None, int] = {name: at for at, name in enumerate(ground.ids)}
    peer_of[None] = -1
    held: dict[int, tuple[int, ...]] = {}
    for name, row in value.items():
        what = f"placements: pack {name!r}"
        if name not in number:
            raise ProblemError(f"{what} is not among the packs: add it there, with its size, or leave it out here")
        at = number[name]
        width = rules[policies[at]].width
        holders = _list(what, row)
        if len(holders) > width:
            raise ProblemError(
                f"{what} names {len(holders)} holders, where policy {rules[policies[at]].name!r} has {width} shards: "
                "name one for each shard"
            )
        found = []
        for peer in holders:
            if peer is not None and not isinstance(peer, str):
                raise ProblemError(f"{what}: {_shown(peer)} is no peer id: give text, or null for a missing shard")
            if peer not in peer_of:
                raise ProblemError(
                    f"{what} lies on {_shown(peer)}, which is not among the peers: add that peer, as lost if it is gone"
                )
            found.append(peer_of[peer])
        held[at] = (*found, *([-1] * (width - len(found))))
    return dict(sorted(held.items()))


# -- values -----------------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _object(what: str, value: object, known: Sequence[str], needed: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProblemError(f"{what} is {_kind(value)}: give an object with {', '.join(known)}")
    for name in value:
        if name not in known:
            raise ProblemError(f"{what}: unknown key {_shown(name)}: known are {', '.join(known)}")
    for name in needed:
        if name not in value:
            raise ProblemError(f"{what}: {name} is missing")
    return value


def _list(what: str, value: object, wanted: str = "a list") -> list[object]:
    if not isinstance(value, list):
        raise ProblemError(f"{what} is {_kind(value)}: give {wanted}")
    return value


def _text(what: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ProblemError(f"{what} is {_shown(value)}: give text that is not empty")
    if len(value) > _MAX_TEXT or not value.isprintable():
        raise ProblemError(f"{what} {_shown(value)} is over {_MAX_TEXT} characters or has some that do not print")
    return value


def _whole(what: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ProblemError(f"{what} is {_shown(value)}: give a whole number from {least} to {most}")
    return value


def _choice(what: str, value: object, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ProblemError(f"{what} is {_shown(value)}: use {', '.join(known)}")
    return value
