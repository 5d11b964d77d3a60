"""Claim, mark, release, sweep as a machine of a few bits, with every step that anybody may take at any time.

One content ("c") lies in copies. A copy is a name at a provider; there is one name at each of several providers
(replicas), or several names at one (duplicates, as two packs with the same chunk). Two writers dedup against it,
publish, forget; two maintainers decide from what they read, and their marks may arrive late, twice or never.

There is no time in it: every wait may be over at any moment, as if each clock were the enemy's. So what is found
safe is safe without clocks. A crash of a writer or a maintainer is that it forgets (abort, lose). A crash of a
provider is no step of its own: each of its steps is one transaction, as tests/provider/test_crash.py shows.

States are 64-bit numbers and steps work on arrays of them, so that a million states take seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Step = Callable[[States], tuple[Flags, States]]

DEAD, DUPLICATE, SURPLUS = 0, 1, 2
"""Why a maintainer marks: nobody needs the content; another name here has it; another provider has it."""


@dataclass(frozen=True)
class Rules:
    """What makes it safe. Each can be left out, to see that the search finds what is lost then."""

    claim: bool = True
    """Writers claim what they rely on; without: they look whether it is there."""
    view: bool = True
    """A mark is refused when its view is not what was accepted."""
    compare: bool = True
    """A mark is refused when it is not the next in the chain."""
    refuse_claimed: bool = True
    """A mark of what somebody claims is refused."""
    clears: bool = True
    """A claim clears a mark."""
    adopt: bool = True
    """A maintainer claims the copy that stays before it gives up another provider's."""
    hold: bool = True
    """A copy is no surplus while another release may stand on its receipt; storing it anew clears its mark."""
    retired_heads: bool = True
    """A retired writer's head is refused until it claims anew."""
    anew_heads: bool = True
    """In a store that was put back, a writer's head is refused until it claims anew."""
    anew: bool = True
    """A store that was put back takes no mark until every writer claimed anew or is retired."""
    receipts: bool = True
    """A release stands on copies that were just seen; without: on what an old inventory says."""
    let_go: bool = True
    """A release waits until no writer claims the copy."""
    fence: bool = True
    """Who retires a writer fences off the claims of it that hang on their way."""


@dataclass(frozen=True)
class Bits:
    """A field of the state."""

    shift: int
    width: int = 1

    @property
    def mask(self) -> int:
        """The field's bits in place."""
        return ((1 << self.width) - 1) << self.shift

    def get(self, states: States) -> States:
        """Return the field's value in each state."""
        return (states & np.uint64(self.mask)) >> np.uint64(self.shift)

    def on(self, states: States) -> Flags:
        """Return where the field is not 0."""
        found: Flags = (states & np.uint64(self.mask)) != 0
        return found

    def set(self, states: States, value: int) -> States:
        """Return the states with the field set."""
        return (states & ~np.uint64(self.mask)) | np.uint64(value << self.shift)


@dataclass
class Layout:
    """Hands out bits."""

    used: int = 0
    names: dict[str, Bits] = field(default_factory=dict)

    def take(self, name: str, width: int = 1) -> Bits:
        """Return the next field."""
        bits = self.names[name] = Bits(self.used, width)
        self.used += width
        assert self.used <= 64, "the state fits 64 bits"
        return bits


@dataclass(frozen=True)
class Size:
    """How large the federation is.

    ``minimum``: how many claimed copies a writer wants before it publishes. ``shards``: each copy is another shard,
    of which ``needed`` must be there for the content to be read; so none stands in for another. ``copies`` are
    promised, no fewer than the minimum: a writer lets go of one, and maintenance releases it, with as many others.
    ``late``: claims may hang on their way, and arrive when nobody waits for an answer.
    """

    providers: int
    names: int = 1
    writers: int = 2
    maintainers: int = 2
    minimum: int = 1
    needed: int = 1
    shards: bool = False
    copies: int = 1
    late: bool = False

    @property
    def promised(self) -> int:
        """How many other copies one is surplus to."""
        return max(self.copies, self.minimum)


class Protocol:
    """The machine. Copies are numbered; copy ``s`` is name ``s % names`` at provider ``s // names``."""

    def __init__(
        self,
        size: Size,
        rules: Rules | None = None,
    ) -> None:
        self.rules = rules or Rules()
        self.size = size
        self.writers = range(size.writers)
        self.maintainers = range(size.maintainers)
        self.providers = range(size.providers)
        self.names = size.names
        self.copies = range(size.providers * size.names)
        layout = self.layout = Layout()
        take = layout.take
        self.present = [take(f"present {s}") for s in self.copies]
        self.marked = [take(f"marked {s}") for s in self.copies]
        self.held = [take(f"held {s}") for s in self.copies]
        self.claimed = [[take(f"writer {w} claims {s}") for s in self.copies] for w in self.writers]
        self.adopted = [[take(f"maintainer {m} claims {s}") for s in self.copies] for m in self.maintainers]
        self.working = [take(f"writer {w} works") for w in self.writers]
        self.published = [take(f"writer {w} has published") for w in self.writers]
        self.relied = [[take(f"writer {w} relies on {s}") for s in self.copies] for w in self.writers]
        self.retired = [[take(f"writer {w} retired at {p}") for p in self.providers] for w in self.writers]
        self.current = [[take(f"writer {w} current at {p}") for p in self.providers] for w in self.writers]
        self.lost = [take(f"provider {p} was put back") for p in self.providers]
        width = len(self.copies).bit_length()
        self.target = [take(f"mark of {m} is about", width) for m in self.maintainers]
        self.release = [take(f"mark of {m} is a release") for m in self.maintainers]
        self.fresh = [take(f"view of {m} is current") for m in self.maintainers]
        self.next = [take(f"mark of {m} is the next") for m in self.maintainers]
        self.proven = [take(f"receipts of {m} count") for m in self.maintainers]
        self.late = [[take(f"late word of {w} to {p}") for p in self.providers] for w in self.writers if self.size.late]
        self.steps = dict(self._steps())

    def start(self) -> States:
        """Return the first state: all copies are there, nobody relies on them."""
        states = np.zeros(1, dtype=np.uint64)
        for s in self.copies:
            states = self.present[s].set(states, 1)
        for w in self.writers:
            for p in self.providers:
                states = self.current[w][p].set(states, 1)
        return states

    def broken(self, states: States) -> Flags:
        """Return where something was lost: a published snapshot has fewer copies than it was published with at least.

        Of shards, fewer than it takes to read them.
        """
        count = np.zeros(len(states), dtype=np.uint8)
        for s in self.copies:
            count += self.present[s].on(states)
        least = self.size.needed if self.size.shards else self.size.minimum
        return np.logical_and(self._live(states), count < least)

    def _live(self, states: States) -> Flags:
        """Return where a published snapshot needs the content."""
        live: Flags = np.any([bits.on(states) for bits in self.published], axis=0)
        return live

    def describe(self, state: int) -> str:
        """Return a state in words."""
        one = np.array([state], dtype=np.uint64)
        return ", ".join(
            name if bits.width == 1 else f"{name} {int(bits.get(one)[0]) - 1}"
            for name, bits in self.layout.names.items()
            if bits.on(one)[0]
        )

    def at(self, s: int) -> int:
        """Return the provider of a copy."""
        return s // self.names

    def here(self, p: int) -> range:
        """Return the copies at a provider."""
        return range(p * self.names, (p + 1) * self.names)

    def _steps(self) -> list[tuple[str, Step]]:
        steps: list[tuple[str, Step]] = []
        for w in self.writers:
            steps += [
                (f"open {w}", self._open(w)),
                (f"publish {w}", self._publish(w)),
                (f"abort {w}", self._abort(w)),
                (f"forget {w}", self._forget(w)),
            ]
            steps += [(f"claim {w} {s}", self._claim(w, s)) for s in self.copies]
            steps += [(f"put {w} {s}", self._put(w, s)) for s in self.copies]
            steps += [(f"drop {w} {s}", self._drop(w, s)) for s in self.copies]
            steps += [(f"retire {w} {p}", self._retire(w, p)) for p in self.providers]
            if self.size.late:
                steps += [(f"hang {w} {p}", self._hang(w, p)) for p in self.providers]
                steps += [(f"arrive {w} {p}", self._arrive(w, p)) for p in self.providers]
        for m in self.maintainers:
            steps += [(f"adopt {m} {s}", self._adopt(m, s)) for s in self.copies]
            steps += [(f"leave {m} {s}", self._leave(m, s)) for s in self.copies]
            for s in self.copies:
                steps.append((f"decide {m} {s} dead", self._decide(m, s, DEAD)))
                if self.size.shards:
                    continue
                for other in self.here(self.at(s)):
                    if other != s:
                        steps.append((f"decide {m} {s} duplicate of {other}", self._decide(m, s, DUPLICATE, other)))
                elsewhere = [other for other in self.copies if self.at(other) != self.at(s)]
                for others in combinations(elsewhere, self.size.promised):
                    if len({self.at(other) for other in others}) == len(others):
                        words = " ".join(map(str, others))
                        steps.append((f"decide {m} {s} surplus to {words}", self._decide(m, s, SURPLUS, *others)))
            steps += [(f"mark {m}", self._mark(m)), (f"lose {m}", self._lose(m))]
        for s in self.copies:
            steps += [
                (f"repair {s}", self._repair(s)),
                (f"expire {s}", self._expire(s)),
                (f"sweep {s}", self._sweep(s)),
            ]
        return steps + [(f"put back {p}", self._put_back(p)) for p in self.providers]

    # What a provider does inside the steps below.

    def _accepted(self, states: States, p: int) -> States:
        """Let every mark on its way to a provider be of an old view: it accepted a claim or a head."""
        for m in self.maintainers:
            about = self._about(states, m, p)
            states = np.where(about, self.fresh[m].set(states, 0), states)
        return states

    def _about(self, states: States, m: int, p: int) -> Flags:
        target = self.target[m].get(states)
        return (target > p * self.names) & (target <= (p + 1) * self.names)

    def _needed(self, states: States, s: int) -> Flags:
        """Return where somebody claims a copy who is not retired."""
        p = self.at(s)
        found: Flags = np.any([adopted[s].on(states) for adopted in self.adopted], axis=0)
        for w in self.writers:
            found |= self.claimed[w][s].on(states) & ~self.retired[w][p].on(states)
        return found

    def _stored(self, states: States, s: int) -> States:
        states = self.present[s].set(states, 1)
        if self.rules.hold:
            states = self.held[s].set(self.marked[s].set(states, 0), 1)
        return states

    # Writers.

    def _open(self, w: int) -> Step:
        def step(states: States) -> tuple[Flags, States]:
            return ~self.working[w].on(states) & ~self.published[w].on(states), self.working[w].set(states, 1)

        return step

    def _claim(self, w: int, s: int) -> Step:
        p = self.at(s)

        def step(states: States) -> tuple[Flags, States]:
            here = self.present[s].on(states)
            enabled = self.working[w].on(states) & ~self.relied[w][s].on(states)
            if not self.rules.claim:
                return enabled & here, self.relied[w][s].set(states, 1)
            after = self._late(self._claimed_anew(self.claimed[w][s].set(states, 1), w, p), w, p, 0)
            # The answer says of the whole set what is missing.
            for one in self.here(p):
                there = self.claimed[w][one].on(after) & self.present[one].on(after)
                after = np.where(there, self.relied[w][one].set(after, 1), self.relied[w][one].set(after, 0))
            return enabled, after

        return step

    def _claimed_anew(self, states: States, w: int, p: int) -> States:
        """Let a provider accept a claim of all that a writer claims there."""
        after = states
        if self.rules.clears:
            # A retired writer's whole set is taken up again, and so is one that a store had forgotten.
            marks = {one: self.claimed[w][one].on(after) for one in self.here(p)}
            for one, named in marks.items():
                after = np.where(named, self.marked[one].set(after, 0), after)
        after = self.current[w][p].set(self.retired[w][p].set(after, 0), 1)
        return self._accepted(after, p)

    def _late(self, states: States, w: int, p: int, value: int) -> States:
        return self.late[w][p].set(states, value) if self.size.late else states

    def _hang(self, w: int, p: int) -> Step:
        """Send a claim of the same set again, and hear no answer. Once retired, a writer's number is fenced off."""

        def step(states: States) -> tuple[Flags, States]:
            claimed = np.any([self.claimed[w][s].on(states) for s in self.here(p)], axis=0)
            enabled = self.working[w].on(states) & claimed & ~self.retired[w][p].on(states)
            return enabled & ~self.late[w][p].on(states), self.late[w][p].set(states, 1)

        return step

    def _arrive(self, w: int, p: int) -> Step:
        """Let a claim arrive that hung: it counts, and nobody hears what it is answered."""

        def step(states: States) -> tuple[Flags, States]:
            after = self._claimed_anew(self.late[w][p].set(states, 0), w, p)
            return self.late[w][p].on(states), after

        return step

    def _put(self, w: int, s: int) -> Step:
        def step(states: States) -> tuple[Flags, States]:
            after = self._stored(states, s)
            after = np.where(self.claimed[w][s].on(states), self.relied[w][s].set(after, 1), after)
            return self.working[w].on(states) & ~self.present[s].on(states), after

        return step

    def _publish(self, w: int) -> Step:
        def step(states: States) -> tuple[Flags, States]:
            count = np.zeros(len(states), dtype=np.uint8)
            enabled = self.working[w].on(states)
            after = self.published[w].set(self.working[w].set(states, 0), 1)
            for p in self.providers:
                heard = np.ones(len(states), dtype=np.bool_)
                if self.rules.retired_heads:
                    heard &= ~self.retired[w][p].on(states)
                if self.rules.anew_heads:
                    heard &= self.current[w][p].on(states)
                after = np.where(heard, self._accepted(after, p), after)
                for s in self.here(p):
                    relied = self.relied[w][s].on(states)
                    enabled &= ~relied | heard
                    count += relied
                    after = self.relied[w][s].set(after, 0)
            return enabled & (count >= self.size.minimum), after

        return step

    def _abort(self, w: int) -> Step:
        def step(states: States) -> tuple[Flags, States]:
            after = self.working[w].set(states, 0)
            for s in self.copies:
                after = self.relied[w][s].set(after, 0)
            return self.working[w].on(states), after

        return step

    def _forget(self, w: int) -> Step:
        def step(states: States) -> tuple[Flags, States]:
            return self.published[w].on(states), self.published[w].set(states, 0)

        return step

    def _drop(self, w: int, s: int) -> Step:
        """Claim without a copy: the snapshot is gone, or enough other copies are claimed."""
        p = self.at(s)

        def step(states: States) -> tuple[Flags, States]:
            others = np.zeros(len(states), dtype=np.uint8)
            for other in self.copies:
                if other != s:
                    claimed = self.claimed[w][other].on(states) & ~self.retired[w][self.at(other)].on(states)
                    others += claimed & self.present[other].on(states)
            enough = ~self.published[w].on(states) | (others >= self.size.promised)
            enabled = self.claimed[w][s].on(states) & ~self.working[w].on(states) & enough
            after = self.claimed[w][s].set(states, 0)
            if self.rules.clears:
                for one in self.here(p):
                    named = self.claimed[w][one].on(after) & self.retired[w][p].on(states)
                    after = np.where(named, self.marked[one].set(after, 0), after)
            after = self.current[w][p].set(self.retired[w][p].set(after, 0), 1)
            return enabled, self._late(self._accepted(after, p), w, p, 0)

        return step

    def _retire(self, w: int, p: int) -> Step:
        def step(states: States) -> tuple[Flags, States]:
            after = self._late(states, w, p, 0) if self.rules.fence else states
            return ~self.retired[w][p].on(states), self.retired[w][p].set(after, 1)

        return step

    # Maintainers.

    def _adopt(self, m: int, s: int) -> Step:
        p = self.at(s)

        def step(states: States) -> tuple[Flags, States]:
            after = self.adopted[m][s].set(states, 1)
            if self.rules.clears:
                after = self.marked[s].set(after, 0)
            return ~self.adopted[m][s].on(states) & self.present[s].on(states), self._accepted(after, p)

        return step

    def _leave(self, m: int, s: int) -> Step:
        def step(states: States) -> tuple[Flags, States]:
            after = self._accepted(self.adopted[m][s].set(states, 0), self.at(s))
            return self.adopted[m][s].on(states), after

        return step

    def _decide(self, m: int, s: int, kind: int, *others: int) -> Step:
        """Read a provider's claims and chain, then snapshots and copies, and send off a mark of a copy."""

        def step(states: States) -> tuple[Flags, States]:
            enabled = ~self.target[m].on(states) & self.present[s].on(states)
            after = self.target[m].set(states, s + 1)
            after = self.next[m].set(self.fresh[m].set(after, 1), 1)
            if kind == DEAD:
                return enabled & ~self._live(states), after
            if kind == DUPLICATE:
                [other] = others
                return enabled & self.present[other].on(states) & ~self.marked[other].on(states), after
            for other in others if self.rules.receipts else ():
                enabled &= self.present[other].on(states)
                if self.rules.adopt:
                    enabled &= self.adopted[m][other].on(states)
                if self.rules.hold:
                    enabled &= self.held[other].on(states)
            return enabled, self.proven[m].set(self.release[m].set(after, 1), 1)

        return step

    def _mark(self, m: int) -> Step:
        """Deliver a mark; it may come again until it is lost.

        One that stands is the next in the chain, also when the copy that it is about is refused.
        """

        def step(states: States) -> tuple[Flags, States]:
            enabled = np.zeros(len(states), dtype=np.bool_)
            after = states
            for s in self.copies:
                mine = self.target[m].get(states) == s + 1
                enabled |= mine & self._stands(states, m, self.at(s))
                changed = np.where(self._taken(states, m, s), self.marked[s].set(states, 1), states)
                for other in self.maintainers:
                    about = self._about(states, other, self.at(s))
                    changed = np.where(about, self.next[other].set(changed, 0), changed)
                after = np.where(mine, changed, after)
            return enabled, after

        return step

    def _stands(self, states: States, m: int, p: int) -> Flags:
        """Return where a provider accepts a maintainer's mark."""
        stands = np.ones(len(states), dtype=np.bool_)
        if self.rules.view:
            stands &= self.fresh[m].on(states)
        if self.rules.compare:
            stands &= self.next[m].on(states)
        if self.rules.anew:
            for w in self.writers:
                stands &= self.current[w][p].on(states) | self.retired[w][p].on(states)
        return stands

    def _taken(self, states: States, m: int, s: int) -> Flags:
        """Return where a mark that stands marks the copy that it is about."""
        taken = self.present[s].on(states)
        release = self.release[m].on(states)
        if self.rules.refuse_claimed:
            taken &= ~self._needed(states, s) | (release & (not self.rules.let_go))
        if self.rules.hold and self.rules.receipts:
            taken &= ~release | (self.proven[m].on(states) & ~self.held[s].on(states))
        return taken

    def _lose(self, m: int) -> Step:
        def step(states: States) -> tuple[Flags, States]:
            after = states
            for bits in (self.target, self.release, self.fresh, self.next, self.proven):
                after = bits[m].set(after, 0)
            return self.target[m].on(states), after

        return step

    # What happens to copies.

    def _repair(self, s: int) -> Step:
        """Store a copy again from another, or vouch for it."""

        def step(states: States) -> tuple[Flags, States]:
            others = np.zeros(len(states), dtype=np.uint8)
            for other in self.copies:
                others += self.present[other].on(states)
            return self.present[s].on(states) | (others >= self.size.needed), self._stored(states, s)

        return step

    def _expire(self, s: int) -> Step:
        """Let the time pass for which a receipt may stand for a copy: releases on it are too late."""

        def step(states: States) -> tuple[Flags, States]:
            after = self.held[s].set(states, 0)
            for m in self.maintainers:
                after = np.where(self._about(after, m, self.at(s)), after, self.proven[m].set(after, 0))
            return self.held[s].on(states), after

        return step

    def _sweep(self, s: int) -> Step:
        def step(states: States) -> tuple[Flags, States]:
            enabled = self.marked[s].on(states) & self.present[s].on(states)
            if self.rules.refuse_claimed and self.rules.let_go:
                enabled &= ~self._needed(states, s)
            return enabled, self.held[s].set(self.marked[s].set(self.present[s].set(states, 0), 0), 0)

        return step

    def _put_back(self, p: int) -> Step:
        """Lose what a provider knew, once; its copies stay, its store has a new incarnation."""

        def step(states: States) -> tuple[Flags, States]:
            after = self.lost[p].set(states, 1)
            for s in self.here(p):
                after = self.held[s].set(self.marked[s].set(after, 0), 0)
                for everybody in (*self.claimed, *self.adopted):
                    after = everybody[s].set(after, 0)
            for w in self.writers:
                after = self.current[w][p].set(self.retired[w][p].set(after, 0), 0)
                for s in self.here(p) if self.size.late else ():
                    # A witness names the life of its store: a writer counts none but of the one that it claimed in.
                    after = self.relied[w][s].set(after, 0)
            for m in self.maintainers:
                gone = self.next[m].set(self.fresh[m].set(after, 0), 0)
                after = np.where(self._about(after, m, p), gone, after)
            return ~self.lost[p].on(states), after

        return step
