"""Placement problems in JSON form, a naive solver that tries everything, and a judge of plans.

Nothing here uses the package: it restates docs/spec/placement.md with loops.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from itertools import combinations
from typing import Any

DOMAINS = ("owner", "site", "region", "country")
COUNTRIES = ("SE", "NO", "DE")
Json = dict[str, Any]


def width(policy: Json) -> int:
    """Shards of a pack."""
    return int(policy["copies"]) if "copies" in policy else sum(policy["coding"])


def shard(policy: Json, size: int) -> int:
    """What one takes."""
    return size if "copies" in policy else -(-size // int(policy["coding"][0]))


def household(peers: Sequence[Json], peer: Json) -> frozenset[str]:
    """Who shares an owner or a site with the peer, over any number of steps."""
    reached = [peer]
    for near in reached:
        for far in peers:
            if far not in reached and any(near.get(d) is not None and near.get(d) == far.get(d) for d in DOMAINS[:2]):
                reached.append(far)
    return frozenset(far["id"] for far in reached)


def place(peers: Sequence[Json], peer: Json, domain: str) -> object:
    """What two peers in one domain have in common."""
    if domain == "household":
        return household(peers, peer)
    return peer.get(domain) or ("alone", peer["id"])


def together(peers: Sequence[Json], policy: Json, row: Collection[str]) -> bool:
    """Whether distinct peers may hold shards of one pack."""
    chosen = [peer for peer in peers if peer["id"] in row]
    limits = {**policy.get("max_per", {}), **dict.fromkeys(policy.get("spread", ()), 1)}
    for domain, most in limits.items():
        places = [place(peers, peer, domain) for peer in chosen]
        if any(places.count(there) > most for there in places):
            return False
    regions = {place(peers, peer, "region") for peer in chosen}
    return len(chosen) - len(regions) <= width(policy) - int(policy.get("min_regions", 1))


def admitted(peer: Json, policy: Json) -> bool:
    return policy.get("only_countries") is None or peer.get("country") in policy["only_countries"]


def greatest(peers: Sequence[Json], policy: Json, size: int) -> int:
    """How many packs fit from empty, by trying every way to place one after another."""
    able = [peer["id"] for peer in peers if peer.get("state", "ok") == "ok" and admitted(peer, policy)]
    rows = [
        row
        for row in combinations(range(len(able)), width(policy))
        if together(peers, policy, [able[at] for at in row])
    ]
    room = tuple(
        max(0, peer["capacity"] - peer.get("used", 0)) // shard(policy, size) for peer in peers if peer["id"] in able
    )

    @cache
    def best(room: tuple[int, ...], start: int) -> int:
        ceiling = sum(room) // width(policy)
        top = 0
        for at in range(start, len(rows)):
            if top == ceiling:
                break
            if all(room[peer] for peer in rows[at]):
                left = tuple(there - (peer in rows[at]) for peer, there in enumerate(room))
                top = max(top, 1 + best(left, at))
        return top

    return best(room, 0)


def least(problem: Json) -> tuple[int, int, int]:
    """(due shards without a place, new packs refused, shards moved), the least of each in that order.

    For one policy and one size; each pack's ways to lie are tried one after another. What finds no place is taken to be
    nowhere, so that a positive first number is only a lower bound for the second and third.
    """
    peers, policy = problem["peers"], problem["policies"][0]
    count = width(policy)
    state = {peer["id"]: peer.get("state", "ok") for peer in peers}
    able = [peer["id"] for peer in peers if admitted(peer, policy)]
    rows = [row for some in range(count + 1) for row in combinations(able, some) if together(peers, policy, row)]
    place_of = {peer["id"]: at for at, peer in enumerate(peers)}
    ways: list[list[tuple[tuple[int, ...], tuple[int, int, int]]]] = []
    for pack in problem["packs"]:
        held = problem.get("placements", {}).get(pack["id"])
        if held is None:
            found = [((), (0, 1, 0))] + [
                (row, (0, 0, 0)) for row in rows if len(row) == count and all(state[name] == "ok" for name in row)
            ]
        else:
            found = [
                (row, (count - len(row), 0, sum(name not in held for name in row)))
                for row in rows
                if all(state[name] == "ok" or (state[name] == "readonly" and name in held) for name in row)
            ]
        ways.append([(tuple(place_of[name] for name in row), price) for row, price in found])

    @cache
    def best(at: int, room: tuple[int, ...]) -> tuple[int, int, int]:
        if at == len(ways):
            return 0, 0, 0
        found = []
        for row, price in ways[at]:
            left = tuple(there - (peer in row) for peer, there in enumerate(room))
            if min(left) >= 0:
                found.append(tuple(map(sum, zip(price, best(at + 1, left), strict=True))))
        return min(found)  # type: ignore[return-value] # three sums of whole numbers

    size = shard(policy, problem["packs"][0]["size"])
    return best(0, tuple(peer["capacity"] // size for peer in peers))


def objections(problem: Json, plan: Json) -> list[str]:
    """What in a plan breaks docs/spec/placement.md §2; empty when nothing does."""
    found: list[str] = []
    peers = {peer["id"]: peer for peer in problem["peers"]}
    policies = {policy.get("name", "default"): policy for policy in problem["policies"]}
    packs = _packs(problem)
    before = problem.get("placements", {})
    refused = {row["pack"] for row in plan["refused"]}
    load, old = dict.fromkeys(peers, 0), dict.fromkeys(peers, 0)
    given: set[str] = set()
    moved: dict[tuple[str, int], tuple[str | None, str]] = {}
    for name, (size, policy_name) in packs.items():
        policy = policies[policy_name]
        was = list(before.get(name, ()))
        was += [None] * (width(policy) - len(was))
        row = plan["placements"].get(name)
        if row is None:
            if name not in refused or name in before:
                found.append(f"{name} is nowhere")
            continue
        if len(row) != width(policy):
            found.append(f"{name} has {len(row)} shards")
        for at, peer in enumerate(row):
            if was[at] is not None:
                old[was[at]] += shard(policy, size)
            if peer is not None:
                load[peer] += shard(policy, size)
                if peer != was[at]:
                    given.add(peer)
                    if name in before:
                        moved[name, at] = (was[at], peer)
                    if peers[peer].get("state", "ok") != "ok":
                        found.append(f"{name} is given to {peer}, which takes nothing")
            elif was[at] is not None and peers[was[at]].get("state", "ok") != "lost":
                found.append(f"{name} gives up what {was[at]} holds")
        if name not in refused:
            found += _wrong(problem["peers"], policy, name, row)
    for name, peer in peers.items():
        others = max(0, peer.get("used", 0) - old[name])
        if load[name] + others > peer["capacity"] and (name in given or load[name] > old[name]):
            found.append(f"{name} holds {load[name]} beside {others}, its capacity is {peer['capacity']}")
    told = {(move["pack"], move["shard"]): (move["from"], move["to"]) for move in plan["moves"]}
    if told != moved or len(told) != len(plan["moves"]):
        found.append(f"moves are {told}, not {moved}")
    if plan["feasible"] == bool(refused):
        found.append("feasible and refused contradict each other")
    return found


def _packs(problem: Json) -> dict[str, tuple[int, str]]:
    packs = problem["packs"]
    name = problem["policies"][0].get("name", "default")
    if isinstance(packs, dict):
        return {str(at): (packs["size"], packs.get("policy", name)) for at in range(packs["count"])}
    return {pack["id"]: (pack["size"], pack.get("policy", name)) for pack in packs}


def _wrong(peers: Sequence[Json], policy: Json, name: str, row: Sequence[str | None]) -> Iterable[str]:
    by_name = {peer["id"]: peer for peer in peers}
    there = [peer for peer in row if peer is not None]
    if len(there) < len(row) or len(set(there)) < len(row):
        yield f"{name} lies on {row}"
    if not together(peers, policy, there):
        yield f"{name} breaks a limit on {row}"
    for peer in there:
        if by_name[peer].get("state", "ok") not in ("ok", "readonly") or not admitted(by_name[peer], policy):
            yield f"{name} lies on {peer}, where it must not"


# -- random problems --------------------------------------------------------------------------------------


def federation(source: random.Random, count: int, *, nested: bool) -> list[Json]:
    """Peers whose places nest (but for two owners in one house), or cross freely."""
    country = [source.choice(COUNTRIES) for _ in range(4)]
    region = [source.randrange(4) for _ in range(6)]
    peers = []
    for at in range(count):
        site = source.randrange(6)
        where = region[site] if nested else source.randrange(4)
        peers.append(
            {
                "id": f"p{at}",
                "capacity": source.randint(0, 6) * 10 + source.randrange(10),
                "owner": f"o{2 * site + source.randrange(2) if nested else source.randrange(4)}",
                "site": f"s{site}",
                "region": f"r{where}",
                "country": country[where] if nested else source.choice(COUNTRIES),
            }
        )
    return peers


def promise(source: random.Random) -> Json:
    """A policy that some federation can meet."""
    count = source.randint(1, 4)
    policy: Json = {"name": "p"}
    if count > 1 and source.random() < 0.5:
        needed = source.randint(1, count - 1)
        policy["coding"] = [needed, count - needed]
    else:
        policy["copies"] = count
    policy["max_per"] = {domain: source.randint(1, count) for domain in DOMAINS if source.random() < 0.4}
    if source.random() < 0.3:
        policy["min_regions"] = source.randint(1, count)
    if source.random() < 0.2 and 2 * policy["max_per"].get("country", count) >= count:
        policy["only_countries"] = ["SE", "NO"]
    return policy


def problem(seed: int, *, nested: bool) -> Json:
    """Up to five packs of one size on up to six peers, half of the packs lying somewhere, well or badly."""
    source = random.Random(seed)
    peers = federation(source, source.randint(2, 6), nested=nested)
    for peer in peers:
        peer["state"] = source.choice(["ok"] * 6 + ["readonly", "draining", "lost"])
    policy = promise(source)
    size = 10 * (policy["coding"][0] if "coding" in policy else 1)
    packs = [{"id": f"k{at}", "size": size, "policy": "p"} for at in range(source.randint(1, 5))]
    names = [peer["id"] for peer in peers]
    placements = {}
    for pack in packs:
        if source.random() < 0.5:
            if source.random() < 0.85:
                row = source.sample(names, min(width(policy), len(names)))
                placements[pack["id"]] = [*row, *([None] * (width(policy) - len(row)))]
            else:
                placements[pack["id"]] = [source.choice([*names, None]) for _ in range(width(policy))]
    return {"peers": peers, "policies": [policy], "packs": packs, "placements": placements}
