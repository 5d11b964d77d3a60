"""Years of a federation, month by month: what a plan says is carried out, and the next begins from there."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.problem import parse
from scheduler.report import plan
from tests.scheduler.oracle import Json, admitted, objections, shard, width

POLICIES: tuple[Json, ...] = (
    {"copies": 3, "max_per": {"site": 1}},
    {"copies": 3, "max_per": {"region": 1}},
    {"coding": [4, 2], "max_per": {"site": 1, "region": 2}},
    {"copies": 3, "max_per": {"owner": 1, "site": 1}},
    {"copies": 4, "min_regions": 3},
    {"copies": 2, "only_countries": ["SE", "NO"], "spread": ["household"]},
)
EVENTS = ("join", "join", "leave", "die", "cut", "raise", "readonly", "back", "relabel", "others", "quiet")


class Federation:
    """The state between two plans; ``crossing`` owners live anywhere, others in one house each."""

    def __init__(self, policy: Json, seed: int, *, peers: int, crossing: bool) -> None:
        self.source = random.Random(seed)
        self.policy = {"name": "p", **policy}
        self.crossing = crossing
        self.born = 0
        self.peers: list[Json] = []
        self.packs: list[Json] = []
        self.placements: dict[str, list[str | None]] = {}
        for _ in range(peers):
            self.join()
        self.moved = self.mandatory = self.refused = 0

    def join(self) -> None:
        self.born += 1
        site = self.source.randrange(30)
        self.peers.append(
            {
                "id": f"p{self.born:03d}",
                "capacity": int(40 * self.source.paretovariate(1.2)),
                "owner": f"o{self.source.randrange(12) if self.crossing else site}",
                "site": f"s{site}",
                "region": f"r{site % 7}",
                "country": ("SE", "NO", "FI")[site % 7 % 3],
            }
        )

    def happen(self, event: str) -> None:
        """One event on one peer, or a first peer where none is left."""
        if not self.peers:
            self.join()
        peer = self.source.choice(self.peers)
        if event == "join":
            self.join()
        elif event in ("leave", "die"):
            peer["state"] = "draining" if event == "leave" else "lost"
        elif event == "cut":
            peer["capacity"] //= 2
        elif event == "raise":
            peer["capacity"] *= 2
        elif event in ("readonly", "back"):
            if peer.get("state", "ok") in ("ok", "readonly"):
                peer["state"] = "readonly" if event == "readonly" else "ok"
        elif event == "relabel":
            peer["region"] = f"r{self.source.randrange(7)}"
        elif event == "others" and self.held(peer["id"]) == 0:
            peer["used"] = self.source.randrange(10)

    def held(self, name: str) -> int:
        return sum(row.count(name) for row in self.placements.values())

    def month(self, event: str, growth: int) -> Json:
        """An event, some new packs, a plan, and its execution."""
        self.happen(event)
        first = len(self.packs)
        self.packs += [{"id": f"k{first + at}", "size": 4, "policy": "p"} for at in range(growth)]
        for peer in self.peers:
            if peer.get("used") and self.held(peer["id"]):
                del peer["used"]
        question = {"peers": self.peers, "policies": [self.policy], "packs": self.packs, "placements": self.placements}
        answer = plan(parse(question))
        assert objections(question, answer) == []
        self.moved += len(answer["moves"])
        self.mandatory += self._mandatory()
        refused = {row["pack"] for row in answer["refused"]}
        self.refused += len(refused)
        self.placements = answer["placements"]
        self.packs = [pack for pack in self.packs if pack["id"] in self.placements]
        self.peers = [
            peer
            for peer in self.peers
            if not (peer.get("state") == "lost" or (peer.get("state") == "draining" and not self.held(peer["id"])))
        ]
        return answer

    def _mandatory(self) -> int:
        """Shards that cannot stay, each peer by itself: missing, on leaving peers, and above a capacity."""
        size = shard(self.policy, 4)
        total = sum(row.count(None) for row in self.placements.values())
        for peer in self.peers:
            held = self.held(peer["id"])
            stays = peer.get("state", "ok") in ("ok", "readonly") and admitted(peer, self.policy)
            total += held - min(held, peer["capacity"] // size) if stays else held
        return total


@settings(max_examples=12, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    seed=st.integers(min_value=0, max_value=10**6),
    peers=st.integers(min_value=4, max_value=14),
    crossing=st.booleans(),
    events=st.lists(st.sampled_from(EVENTS), min_size=6, max_size=18),
)
def test_no_month_breaks_a_promise_or_a_grant(
    policy: Json, seed: int, peers: int, crossing: bool, events: list[str]
) -> None:
    federation = Federation(policy, seed, peers=peers, crossing=crossing)
    for event in events:
        answer = federation.month(event, growth=federation.source.randrange(8))
        # Who joins may tie two households together, and then copies must part.
        if event in ("join", "quiet", "raise") and not federation.refused and "spread" not in policy:
            # Nothing has to go, so what moves does it for the new packs' sake.
            assert {move["why"] for move in answer["moves"]} <= {"makes room for other shards"}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    seed=st.integers(min_value=0, max_value=10**6),
    peers=st.integers(min_value=4, max_value=24),
    crossing=st.booleans(),
    events=st.lists(st.sampled_from(EVENTS), min_size=36, max_size=72),
)
def test_no_month_of_many_years_breaks_a_promise_or_a_grant(
    policy: Json, seed: int, peers: int, crossing: bool, events: list[str]
) -> None:
    federation = Federation(policy, seed, peers=peers, crossing=crossing)
    for event in events:
        federation.month(event, growth=federation.source.randrange(20))


def years(policy: Json, *, peers: int, months: int, growth: int, seed: int = 7) -> Federation:
    """Steady growth with leaves, joins and changed grants, on a federation with room to spare."""
    federation = Federation(policy, seed, peers=peers, crossing=False)
    calm: Any = ("join", "join", "leave", "die", "cut", "raise", "quiet", "quiet")
    for month in range(months):
        federation.month(calm[month % len(calm)], growth)
    return federation


@pytest.mark.parametrize("policy", [POLICIES[0], POLICIES[2]], ids=["copies", "coding"])
def test_where_there_is_room_only_what_must_move_moves(policy: Json) -> None:
    federation = years(policy, peers=30, months=16, growth=10)
    assert federation.refused == 0
    assert federation.moved == federation.mandatory > width(policy)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES[:3], ids=["sites", "regions", "coding"])
def test_over_many_years_only_what_must_move_moves(policy: Json) -> None:
    federation = years(policy, peers=60, months=120, growth=6)
    assert federation.refused == 0
    assert federation.moved == federation.mandatory > 500
