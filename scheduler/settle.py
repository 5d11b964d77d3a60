"""Packs that lie somewhere already: which shards must go elsewhere, and where to, with the fewest moves.

Nothing moves that need not. A shard must be placed anew when nobody holds it or its peer is lost, leaving, outside the
residency or over its grant, or when it breaks a limit together with others. Sets of equal packs are settled as one,
onto peers with room that later packs could not use, if there are such. A shard that finds no place stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from scheduler.laminar import Numbers
from scheduler.selection import Limit, select
from scheduler.shape import Field, Flags, Ints, Rule, Sets, Shape

__all__ = ["GONE", "Kind", "Row", "Settled", "Settler", "kept"]

GONE: Final = frozenset({"lost", "missing"})
"""Reasons that leave nothing to copy from at the old place."""

_LITTLE: Final = 16
"""Packs may take so small a part of a peer's room (one in 16) though later packs could have used it."""

_SWAPPED: Final = 16
"""Peers up to which a set that finds no place shard by shard is chosen anew as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Packs of one policy and one size: those that lie somewhere, and how many are new."""

    rule: Rule
    size: int
    held: Sets
    new: int = 0

    @property
    def shard(self) -> int:
        return self.rule.shard(self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The sets of one kind as they shall lie.

    ``origin`` is the held set each comes from, ``due`` marks the shards that found no place, and so are where they
    were, or nowhere. ``refused`` new packs have no place in ``fresh``.
    """

    sets: Sets
    origin: Ints
    due: Flags
    fresh: Sets
    refused: int


@dataclass(slots=True)
class Row:
    """Equal packs on the move: ``now`` is who holds each shard, ``due`` why some must be placed anew."""

    kind: int
    origin: int
    now: list[int]
    packs: int
    due: dict[int, str] = field(default_factory=dict)
    stuck: set[int] = field(default_factory=set)
    """Of the due shards those that found no place."""

    def split(self, packs: int) -> Row:
        """Take ``packs`` off as a row of their own."""
        self.packs -= packs
        return Row(
            kind=self.kind,
            origin=self.origin,
            now=list(self.now),
            packs=packs,
            due=dict(self.due),
            stuck=set(self.stuck),
        )


def kept(ground: Field, rule: Rule, holders: Sequence[int]) -> set[int]:
    """The places in ``holders`` that may stay together: as many as the limits allow, found exactly."""
    first: dict[int, int] = {}
    for at, peer in enumerate(holders):
        if peer >= 0:
            first.setdefault(peer, at)
    candidates = sorted(first)
    chosen = select(
        range(len(candidates)),
        [0 if ground.takes[peer] else 1 for peer in candidates],
        [
            Limit(group=[int(ground.place[domain][peer]) for peer in candidates], cap=cap, hard=True)
            for domain, cap in rule.caps.items()
        ],
        target=len(candidates),
        region=[int(ground.place["region"][peer]) for peer in candidates],
        penalty=1,
    )
    together = [candidates[at] for at in chosen]
    # Beyond the first shard in a region a pack has room for so many only.
    spare = rule.width - rule.min_regions
    stay: list[int] = []
    seen: set[int] = set()
    for peer in sorted(together, key=lambda peer: not ground.takes[peer]):
        region = int(ground.place["region"][peer])
        if region in seen:
            if spare == 0:
                continue
            spare -= 1
        seen.add(region)
        stay.append(peer)
    return {first[peer] for peer in stay}


class Settler:
    """One change of a federation. ``free`` is the room left on each peer, below zero where a grant was cut."""

    def __init__(self, ground: Field, free: Numbers, kinds: Sequence[Kind]) -> None:
        self.ground, self.free, self.kinds = ground, free, kinds
        self.rows: list[Row] = []
        self.still: list[npt.NDArray[np.int64]] = [kind.held.packs.copy() for kind in kinds]
        """Packs of each held set that no row has taken over."""
        self._admitted = [ground.admitted(kind.rule) for kind in kinds]
        self._spare: dict[int, Numbers] = {}
        self._due = 0

    # -- what must move -------------------------------------------------------------------------------

    def find(self) -> None:
        """Make rows of all sets with a shard that must be placed anew."""
        for number, kind in enumerate(self.kinds):
            for origin, due in self._faulty(kind, self._admitted[number]):
                self._take(number, origin, int(self.still[number][origin])).due = due
        for peer in np.flatnonzero(self.ground.holds & (self.free < 0)).tolist():
            self._evict(peer)

    def _take(self, kind: int, origin: int, packs: int) -> Row:
        self.still[kind][origin] -= packs
        row = Row(
            kind=kind, origin=origin, now=[int(peer) for peer in self.kinds[kind].held.tuples[origin]], packs=packs
        )
        self.rows.append(row)
        return row

    def _faulty(self, kind: Kind, admitted: Flags) -> list[tuple[int, dict[int, str]]]:
        tuples, ground = kind.held.tuples, self.ground
        if not len(tuples):
            return []
        fit = np.append(ground.holds & admitted, False)  # the last stands for nobody
        bad = ~fit[tuples].all(axis=1)
        bad |= _repeats(tuples, 1)
        for domain, cap in kind.rule.caps.items():
            if cap < kind.rule.width:
                bad |= _repeats(ground.place[domain][tuples], cap)
        if kind.rule.min_regions > 1:
            regions = np.sort(ground.place["region"][tuples], axis=1)
            bad |= (np.diff(regions, axis=1) != 0).sum(axis=1) + 1 < kind.rule.min_regions
        return [(int(at), self._reasons(kind, admitted, tuples[at].tolist())) for at in np.flatnonzero(bad)]

    def _reasons(self, kind: Kind, admitted: Flags, holders: list[int]) -> dict[int, str]:
        due: dict[int, str] = {}
        for at, peer in enumerate(holders):
            if peer < 0:
                due[at] = "missing"
            elif not self.ground.holds[peer]:
                due[at] = self.ground.state[peer]
            elif not admitted[peer]:
                due[at] = "residency"
        rest = [peer if at not in due else -1 for at, peer in enumerate(holders)]
        stay = kept(self.ground, kind.rule, rest)
        due.update({at: "limits" for at, peer in enumerate(rest) if peer >= 0 and at not in stay})
        return due

    def _evict(self, peer: int) -> None:
        """Let just so many shards leave a peer that it keeps to its grant: the largest that are no more than needed."""
        over = -int(self.free[peer])
        for row in self.rows:
            for at in row.due:
                if row.now[at] == peer:
                    over -= row.packs * self.kinds[row.kind].shard
        if over <= 0:
            return
        sources: list[tuple[int, int, int, int, Row | None]] = []
        for number, kind in enumerate(self.kinds):
            where = np.argwhere(kind.held.tuples == peer)
            sources += [
                (kind.shard, int(self.still[number][origin]), number, int(origin), None)
                for origin, _ in where.tolist()
                if self.still[number][origin]
            ]
        for row in self.rows:
            if any(holder == peer and at not in row.due for at, holder in enumerate(row.now)):
                sources.append((self.kinds[row.kind].shard, row.packs, row.kind, row.origin, row))
        # Large shards first, as long as they are needed whole; the last is the smallest that suffices.
        sources.sort(key=lambda source: (-source[0], -source[1]))
        for size, packs, number, origin, old in sources:
            take = min(packs, over // size)
            if take:
                over -= take * size
                self._expel(peer, number, origin, old, take)
        if over > 0:
            self._expel_last(peer, over, sources)

    def _expel(self, peer: int, kind: int, origin: int, old: Row | None, packs: int) -> None:
        if old is None:
            row = self._take(kind, origin, packs)
        elif packs < old.packs:
            row = old.split(packs)
            self.rows.append(row)
        else:
            row = old
        for at, holder in enumerate(row.now):
            if holder == peer:
                row.due.setdefault(at, "grant")

    def _expel_last(self, peer: int, over: int, sources: Sequence[tuple[int, int, int, int, Row | None]]) -> None:
        for size, _, number, origin, old in reversed(sources):
            if size < over:
                continue
            if old is None and self.still[number][origin]:
                self._expel(peer, number, origin, None, 1)
                return
            if old is not None and any(holder == peer and at not in old.due for at, holder in enumerate(old.now)):
                self._expel(peer, number, origin, old, 1)
                return

    # -- where to -------------------------------------------------------------------------------------

    def settle(self) -> bool:
        """Place what is due, as far as there is room; whether all of it found a place."""
        self._due = sum(len(row.due) * row.packs * self.kinds[row.kind].shard for row in self.rows)
        waiting = sorted(
            self.rows, key=lambda row: (sum(why in GONE for why in row.due.values()), row.packs)
        )  # the last is next
        self.rows = []
        while waiting:
            row = waiting.pop()
            # What only a grant drives away may have to stay, so it goes first and what follows minds it.
            left = sorted(set(row.due) - row.stuck, key=lambda at: (row.due[at] != "grant", at))
            if not left:
                self.rows.append(row)
                continue
            peer, packs = self._best(row, left[0])
            if peer >= 0:
                if packs < row.packs:
                    waiting.append(row.split(row.packs - packs))
                self._move(row, left[0], peer)
            elif row.stuck or not self._anew(row):
                row.stuck.add(left[0])
            waiting.append(row)
        return not any(row.stuck for row in self.rows)

    def _move(self, row: Row, at: int, peer: int) -> None:
        size = self.kinds[row.kind].shard * row.packs
        source = row.now[at]
        why = row.due.pop(at, "")
        if source >= 0 and why not in GONE:
            self.free[source] += size
        self.free[peer] -= size
        if row.kind in self._spare:
            self._spare[row.kind][peer] -= size
        row.now[at] = peer

    def _open(self, row: Row, at: int, *, leaving: bool) -> Flags:
        """The peers that may take shard ``at`` of a row beside its others; with ``leaving``, beside those to go too."""
        rule, ground = self.kinds[row.kind].rule, self.ground
        mask = ground.takes & self._admitted[row.kind] & (self.free >= self.kinds[row.kind].shard)
        there = [(place, peer) for place, peer in enumerate(row.now) if place != at and peer >= 0]
        others = [
            peer
            for place, peer in there
            if (why := row.due.get(place)) is None or why == "grant" or (leaving and why not in GONE)
        ]
        mask[[peer for peer in row.now if peer >= 0]] = False
        for domain, cap in rule.caps.items():
            places = [int(ground.place[domain][peer]) for peer in others]
            for place in set(places):
                if places.count(place) >= cap:
                    mask &= ground.place[domain] != place
        if rule.min_regions > 1:
            regions = {int(ground.place["region"][peer]) for peer in others}
            if len(others) - len(regions) >= rule.width - rule.min_regions:
                for place in regions:
                    mask &= ground.place["region"] != place
        return mask

    def _best(self, row: Row, at: int) -> tuple[int, int]:
        """The best peer for one shard of a row and for how many of its packs; -1 if there is none.

        Room that later packs could not use comes first, then the cheap, then the emptiest.
        """
        able = np.flatnonzero(self._open(row, at, leaving=True))
        if not len(able):
            able = np.flatnonzero(self._open(row, at, leaving=False))
        if not len(able):
            return -1, 0
        shard = self.kinds[row.kind].shard
        spare = self._spare_of(row.kind)[able]
        idle = spare >= shard
        if idle.any():
            able, spare = able[idle], spare[idle]
        cost = self.ground.cost[able]
        able, spare = able[cost == cost.min()], spare[cost == cost.min()]
        most = spare if idle.any() else self.free[able]
        best = int(most.argmax())
        peer = int(able[best])
        # A set is not torn apart for the sake of what is little beside the room of a peer.
        fits = max(int(most[best]) // shard, int(self.free[peer]) // shard // _LITTLE)
        return peer, min(row.packs, fits)

    def _spare_of(self, kind: int) -> Numbers:
        """Room that as many later packs of a kind as can fit beside all that is due leave unused."""
        if kind not in self._spare:
            rule, shard = self.kinds[kind].rule, self.kinds[kind].shard
            shape = Shape(self.ground, rule, self.ground.takes & (self.free >= shard))
            room = np.maximum(self.free, 0)
            spare = room.copy()
            if shape.tree is not None and len(shape.at):
                inner = room[shape.at] // shard
                later = (int(inner.sum()) - self._due // shard) // rule.width
                later = max(0, min(later, shape.tree.bound(inner)))
                spare[shape.at] -= shape.tree.share(inner, later).astype(spare.dtype) * shard
            self._spare[kind] = spare
        return self._spare[kind]

    def _anew(self, row: Row) -> bool:
        """Choose the peers of a row as a whole, its own first; whether every shard has a place then."""
        kind, ground = self.kinds[row.kind], self.ground
        if len(ground) > _SWAPPED:
            return False
        size = kind.shard * row.packs
        stay = [peer for at, peer in enumerate(row.now) if peer >= 0 and at not in row.due]
        able = ground.takes & self._admitted[row.kind] & (self.free >= size)
        able[[peer for peer in row.now if peer >= 0]] = False
        candidates = [*stay, *np.flatnonzero(able).tolist()]
        chosen = select(
            candidates,
            [0 if peer in stay else 1 for peer in range(len(ground))],
            [Limit(group=ground.place[domain].tolist(), cap=cap, hard=True) for domain, cap in kind.rule.caps.items()],
            target=kind.rule.width,
            region=ground.place["region"].tolist(),
            min_regions=kind.rule.min_regions,
            penalty=1,
        )
        if len(chosen) < kind.rule.width:
            return False
        fresh = [peer for peer in chosen if peer not in stay]
        for at, peer in enumerate(row.now):
            if at in row.due:
                continue
            if peer not in chosen:
                row.due[at] = "room"
        for at in sorted(row.due):
            self._move(row, at, fresh.pop())
        return True


def _repeats(rows: Ints, cap: int) -> Flags:
    """Rows in which some value occurs more than ``cap`` times."""
    ordered = np.sort(rows, axis=1)
    if cap >= rows.shape[1]:
        return np.zeros(len(rows), dtype=bool)
    same: Flags = (ordered[:, cap:] == ordered[:, : rows.shape[1] - cap]).any(axis=1)
    return same
