"""The best admissible set of peers for one pack, found exactly.

Failure domains need not nest (a household may span regions), so this is an intersection of several
partition constraints and no greedy choice is safe. Peers that no binding limit tells apart form one class,
of which the cheapest are taken; the classes are walked in order of place, and a state is the number chosen
so far and the counts of those groups that a later class can still touch. Groups that are closed, or too
small to reach their limit, are forgotten. So the work grows with the number of households that span places,
not with the number of subsets: 50 peers cost milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Limit", "select"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most ``cap`` peers of one group, ``group[i]`` being that of peer i; a soft one only costs."""

    group: Sequence[int]
    cap: int
    hard: bool


_Trail = tuple["_Trail", tuple[int, ...]] | None
_State = tuple[int, int, tuple[int, ...]]  # chosen, regions met, counts of the open groups


@dataclass(slots=True)
class _Row:
    """One class of peers, and where its limits are found in the state before and after it."""

    peers: list[int]
    # per limit that can bind here: (its place in the state before or -1, cap, hard)
    limits: list[tuple[int, int, bool]]
    # place before of this class's region or -1; whether an earlier or later class shares it
    region: int
    counts_region: bool
    # the state after: (place before or -1, limit of this row or -1 for region, -2 for none)
    after: list[tuple[int, int]]


def select(
    candidates: Sequence[int],
    cost: Sequence[int],
    limits: Sequence[Limit],
    *,
    target: int,
    region: Sequence[int],
    min_regions: int = 1,
    regions_hard: bool = True,
    penalty: int,
) -> tuple[int, ...]:
    """As many of ``candidates`` as the hard limits allow, up to ``target``, at the least cost.

    ``cost[i]`` is that of peer i; every unit above a soft limit, and every region short of ``min_regions``
    when that is soft, adds ``penalty``. n chosen peers must lie in at least min(n, min_regions) regions when
    that is hard. Equal costs are settled by the order of ``candidates``. The answer is sorted by cost.
    """
    rows = _rows(candidates, cost, limits, region, count_regions=min_regions > 1)
    states: dict[_State, tuple[int, _Trail]] = {(0, 0, ()): (0, None)}
    for row in rows:
        states = _step(states, row, cost, target=target, min_regions=min_regions, penalty=penalty)
    best: tuple[int, int, _Trail] = (0, 0, None)
    for (chosen, met, _), (price, trail) in states.items():
        short = max(0, min(chosen, min_regions) - met) if min_regions > 1 else 0
        if short and regions_hard:
            continue
        price += short * penalty
        if chosen > best[0] or (chosen == best[0] and price < best[1]):
            best = (chosen, price, trail)
    picked: list[int] = []
    trail = best[2]
    while trail is not None:
        trail, some = trail
        picked.extend(some)
    return tuple(sorted(picked, key=lambda peer: cost[peer]))


def _rows(
    candidates: Sequence[int],
    cost: Sequence[int],
    limits: Sequence[Limit],
    region: Sequence[int],
    *,
    count_regions: bool,
) -> list[_Row]:
    binding = []
    for limit in limits:
        members: dict[int, int] = {}
        for peer in candidates:
            members[limit.group[peer]] = members.get(limit.group[peer], 0) + 1
        if any(size > limit.cap for size in members.values()):
            binding.append((limit, members))
    classes: dict[tuple[int, ...], list[int]] = {}
    for peer in candidates:
        marks = [region[peer]] if count_regions else []
        marks += [limit.group[peer] if members[limit.group[peer]] > limit.cap else -1 for limit, members in binding]
        classes.setdefault(tuple(marks), []).append(peer)
    keys = sorted(classes)
    # A group is named by its column in the key and its number; -1 is no group.
    groups = [[(column, number) for column, number in enumerate(key) if number >= 0] for key in keys]
    last = {group: at for at, row in enumerate(groups) for group in row}
    seats: dict[tuple[int, int], int] = {}
    rows = []
    for at, key in enumerate(keys):
        shift = 1 if count_regions else 0
        limit_of = {
            (column, key[column]): number
            for number, column in enumerate(column for column in range(shift, len(key)) if key[column] >= 0)
        }
        region_group = (0, key[0]) if count_regions else None
        after = [group for group in dict.fromkeys([*seats, *groups[at]]) if last[group] > at]
        here = set(groups[at])
        rows.append(
            _Row(
                peers=sorted(classes[key], key=lambda peer: cost[peer]),
                limits=[
                    (seats.get(group, -1), binding[group[0] - shift][0].cap, binding[group[0] - shift][0].hard)
                    for group in limit_of
                ],
                region=seats.get(region_group, -1) if region_group is not None else -1,
                counts_region=count_regions,
                after=[
                    (
                        seats.get(group, -1),
                        limit_of.get(group, -1) if group in here else -2,
                    )
                    for group in after
                ],
            )
        )
        seats = {group: seat for seat, group in enumerate(after)}
    return rows


def _step(
    states: dict[_State, tuple[int, _Trail]],
    row: _Row,
    cost: Sequence[int],
    *,
    target: int,
    min_regions: int,
    penalty: int,
) -> dict[_State, tuple[int, _Trail]]:
    out: dict[_State, tuple[int, _Trail]] = {}
    running = [0]
    for peer in row.peers[:target]:
        running.append(running[-1] + cost[peer])
    takes = [tuple(row.peers[:taken]) for taken in range(len(running))]
    for (chosen, met, counts), (price, trail) in states.items():
        had = [counts[seat] if seat >= 0 else 0 for seat, _, _ in row.limits]
        known = row.region >= 0 and counts[row.region] > 0
        room = min(target - chosen, len(running) - 1)
        for (_, cap, hard), count in zip(row.limits, had, strict=True):
            if hard:
                room = min(room, cap - count)
        for taken in range(room + 1):
            over = 0
            now = []
            for (_, cap, _), count in zip(row.limits, had, strict=True):
                total = count + taken
                over += max(0, total - cap)
                now.append(min(total, cap))
            seen = known or taken > 0
            regions = min(min_regions, met + (row.counts_region and taken > 0 and not known))
            state = (
                chosen + taken,
                regions,
                tuple(
                    counts[seat] if which == -2 else int(seen) if which == -1 else now[which]
                    for seat, which in row.after
                ),
            )
            total_price = price + running[taken] + over * penalty
            best = out.get(state)
            if best is None or total_price < best[0]:
                out[state] = (total_price, (trail, takes[taken]) if taken else trail)
    return out
