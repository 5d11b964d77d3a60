"""Small placement problems, and a naive solver that tries every set of peers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Any

from hypothesis import strategies as st

from scheduler import DOMAINS, Domain, Pack, PackId, Peer, PeerId, Policy

COUNTRIES = ("SE", "NO", "US")


def peer(name: str, **changes: Any) -> Peer:
    """A peer alone in its household, site and region."""
    values: dict[str, Any] = {
        "capacity": 1000,
        "owner": f"owner {name}",
        "site": f"site {name}",
        "region": f"region {name}",
        "country": "SE",
    }
    return Peer(id=PeerId(name), **(values | changes))


def pack(name: str, size: int = 10, policy: str = "p") -> Pack:
    return Pack(id=PackId(name), size=size, policy=policy)


def policy(copies: int, minimum: int = 1, **changes: Any) -> Policy:
    values: dict[str, Any] = {"name": "p", "copies": copies, "minimum": minimum}
    return Policy(**(values | changes))


def ids(*names: str) -> tuple[PeerId, ...]:
    return tuple(PeerId(name) for name in names)


# -- random problems --------------------------------------------------------------------------------------

_few = st.integers(min_value=0, max_value=2)


@st.composite
def rosters(draw: st.DrawFn, most: int = 6) -> list[Peer]:
    """Peers whose labels nest nowhere in particular: owners, sites and regions cross freely."""
    return [
        Peer(
            id=PeerId(f"p{at}"),
            capacity=draw(st.integers(min_value=0, max_value=12)),
            used=draw(st.sampled_from([0, 0, 0, 3, 13])),
            owner=f"o{draw(st.integers(min_value=0, max_value=4))}",
            site=f"s{draw(st.integers(min_value=0, max_value=5))}",
            region=f"r{draw(_few)}",
            country=draw(st.sampled_from(COUNTRIES)),
            state=draw(st.sampled_from(["ok", "ok", "ok", "ok", "readonly", "draining", "lost", "suspect"])),
            cost=draw(st.sampled_from([0, 0, 50])),
            own=draw(st.sampled_from([False, False, False, False, True])),
        )
        for at in range(draw(st.integers(min_value=0, max_value=most)))
    ]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    copies = draw(st.integers(min_value=1, max_value=4))
    return Policy(
        name="p",
        copies=copies,
        minimum=draw(st.integers(min_value=1, max_value=copies)),
        spread=draw(st.frozensets(st.sampled_from(DOMAINS))),
        max_per=draw(st.dictionaries(st.sampled_from(DOMAINS), st.integers(min_value=1, max_value=2), max_size=2)),
        min_regions=draw(st.integers(min_value=1, max_value=copies)),
        only_countries=draw(st.sampled_from([None, None, frozenset({"SE", "NO"}), frozenset({"SE"})])),
        count_own=draw(st.booleans()),
    )


def holdings(roster: Sequence[Peer]) -> st.SearchStrategy[frozenset[PeerId]]:
    names = [row.id for row in roster]
    return st.frozensets(st.sampled_from(names)) if names else st.just(frozenset())


# -- the naive solver -------------------------------------------------------------------------------------


def one_household(one: Peer, other: Peer, roster: Sequence[Peer]) -> bool:
    """Whether a walk over shared owners and sites leads from one peer to the other."""
    reached, growing = {one.id}, True
    while growing:
        growing = False
        for near in roster:
            for far in roster:
                if near.id in reached and far.id not in reached and (near.owner == far.owner or near.site == far.site):
                    reached.add(far.id)
                    growing = True
    return other.id in reached


def at_home(one: Peer, roster: Sequence[Peer]) -> bool:
    return any(other.own and one_household(one, other, roster) for other in roster)


def may_hold(one: Peer, roster: Sequence[Peer], rule: Policy) -> bool:
    """Residency and the own household."""
    return (rule.only_countries is None or one.country in rule.only_countries) and (
        rule.count_own or not at_home(one, roster)
    )


def counted(held: Collection[PeerId], roster: Sequence[Peer], rule: Policy) -> set[PeerId]:
    """The held copies that count towards the promise."""
    fit = [row for row in roster if row.id in held and may_hold(row, roster, rule)]
    sure = {row.id for row in fit if row.state in ("ok", "readonly")}
    if len(sure) < min(rule.copies, max(rule.minimum, 2)):
        return sure
    return sure | {row.id for row in fit if row.state == "suspect"}


def obeys(chosen: Sequence[Peer], roster: Sequence[Peer], rule: Policy, bent: Collection[Domain]) -> bool:
    """The limits per domain, but for those that are bent."""
    for domain in DOMAINS:
        limits = [rule.max_per.get(domain, len(chosen) + 1), 1 if domain in rule.spread else len(chosen) + 1]
        if domain in bent:
            continue
        for one in chosen:
            if domain == "owner":
                together = [row for row in chosen if one_household(one, row, roster)]
            else:
                together = [row for row in chosen if getattr(row, domain) == getattr(one, domain)]
            if len(together) > min(limits):
                return False
    return "region" in bent or len({row.region for row in chosen}) >= min(len(chosen), rule.min_regions)


BENDS: tuple[tuple[Domain, ...], ...] = (
    (),
    ("country",),
    ("country", "region"),
    ("country", "region", "site"),
)


def best(
    size: int, room: dict[PeerId, int], held: Collection[PeerId], roster: Sequence[Peer], rule: Policy
) -> tuple[int, int, int]:
    """(copies, bends needed for as many, fewest additions for both), by trying every set of peers."""
    there = counted(held, roster, rule)
    usable = [
        row
        for row in roster
        if row.id in there
        or (row.id not in held and row.state == "ok" and may_hold(row, roster, rule) and room[row.id] >= size)
    ]
    for copies in range(rule.copies, 0, -1):
        for level, bent in enumerate(BENDS):
            fits = [
                sum(row.id not in there for row in chosen)
                for chosen in combinations(usable, copies)
                if obeys(chosen, roster, rule, bent)
            ]
            if fits:
                return copies, level, min(fits)
    return 0, 0, 0
