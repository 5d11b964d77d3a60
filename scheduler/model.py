"""The values that go into a plan and come out of it: frozen, and valid from birth.

Sizes and capacities are whole bytes. A failure domain is one of ``DOMAINS``; ``owner`` always means the
household (see `scheduler.geography`): what shares an owner or a site.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NewType, TypeAlias, get_args

from scheduler.errors import PolicyError, PolicyUnsatisfiableError, RosterError
from scheduler.geography import COUNTRIES, Query, country_code, fold

__all__ = [
    "DOMAINS",
    "MAX_BYTES",
    "Addition",
    "Debt",
    "Domain",
    "Gap",
    "Holders",
    "Pack",
    "PackId",
    "Peer",
    "PeerId",
    "PeerState",
    "Placement",
    "Plan",
    "Policy",
    "Refusal",
    "Relaxation",
    "Surplus",
    "Violation",
    "ViolationKind",
    "default_copies",
]

PeerId = NewType("PeerId", str)
PackId = NewType("PackId", str)

Domain: TypeAlias = Literal["owner", "site", "region", "country"]
DOMAINS: Final[tuple[Domain, ...]] = get_args(Domain)

# ok        holds and takes packs
# readonly  holds, takes nothing new
# suspect   silent for long; holds for now, takes nothing new
# draining  leaving in good order: what it holds is there, but must be placed elsewhere
# lost      what it held is gone
PeerState: TypeAlias = Literal["ok", "readonly", "draining", "lost", "suspect"]

Holders: TypeAlias = tuple[PeerId | None, ...]
"""Who holds a pack. For coded packs the position is the shard number and ``None`` a shard nobody holds."""

Placement: TypeAlias = Mapping[PackId, Holders]

ViolationKind: TypeAlias = Literal[
    "unknown-pack",
    "unknown-peer",
    "twice",
    "state",
    "residency",
    "own-household",
    "owner",
    "site",
    "region",
    "country",
    "min-regions",
    "capacity",
    "copies",
    "minimum",
    "account",
]

MAX_BYTES: Final = 2**60
"""1 EiB: a capacity or size above it is a slip of the pen, not a disk."""

_MAX_LABEL: Final = 256


def default_copies(peers: int) -> tuple[int, int]:
    """(copies, minimum) elsewhere for a tenant who did not choose, by the number of peers."""
    return (3, 2) if peers >= 5 else (2, 1)


def _whole(number: object, *, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def _label(what: str, text: object) -> None:
    if not isinstance(text, str) or not text.strip():
        raise RosterError(f"{what} is empty")
    if len(text) > _MAX_LABEL or any(unicodedata.category(char).startswith("C") for char in text):
        raise RosterError(f"{what} {text[:40]!r} is too long (over {_MAX_LABEL}) or has control characters")


def _amount(what: str, number: int, *, least: int) -> None:
    if not _whole(number, least=least) or number > MAX_BYTES:
        raise RosterError(
            f"{what} is {number!r}: it must be a whole number of bytes from {least} to {MAX_BYTES} (1 EiB)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Somewhere packs can lie.

    ``capacity`` is what was granted to this tenant; ``used`` is what of ours is counted there, released
    copies included until they are swept, and may exceed a grant that was cut. ``cost`` makes a peer less
    wanted: 10 weighs as much as being 1 % fuller. ``own`` marks the tenant's own household.

    Raises:
        RosterError: an empty label, an unknown country, a negative or absurd number of bytes.
    """

    id: PeerId
    capacity: int
    used: int = 0
    owner: str
    site: str
    region: str
    country: str
    state: PeerState = "ok"
    cost: int = 0
    own: bool = False

    def __post_init__(self) -> None:
        _label("peer id", self.id)
        for domain in ("owner", "site", "region"):
            text = getattr(self, domain)
            _label(f"peer {self.id}: {domain}", text)
            if not fold(text):
                raise RosterError(f"peer {self.id}: {domain} {text!r} has neither letters nor digits")
        if country_code(self.country) != self.country:
            raise RosterError(f"peer {self.id}: write country {self.country!r} as {country_code(self.country)}")
        _amount(f"peer {self.id}: capacity", self.capacity, least=0)
        _amount(f"peer {self.id}: used", self.used, least=0)
        if self.state not in get_args(PeerState):
            raise RosterError(f"peer {self.id}: unknown state {self.state!r}: use {', '.join(get_args(PeerState))}")
        if not _whole(self.cost, least=0):
            raise RosterError(f"peer {self.id}: cost is {self.cost!r}, not a whole number from 0 up")

    @property
    def free(self) -> int:
        """Bytes of the grant not used yet, never negative."""
        return max(0, self.capacity - self.used)

    @property
    def where(self) -> str:
        return f"{self.id} ({self.owner}, {self.region}, {self.country})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A promise about every pack that carries its name.

    ``copies`` are promised, ``minimum`` must be durable before anything is published. No two copies share a
    domain of ``spread``; at most ``max_per[d]`` lie in one domain d; at least ``min_regions`` regions hold
    one. ``only_countries`` (residency) and the exclusion of the tenant's own household (unless
    ``count_own``) hold without exception. With ``coding=(k, m)`` copies are shards and must be k+m.

    Raises:
        PolicyError: the numbers contradict each other, or a name is unknown.
    """

    name: str
    copies: int
    minimum: int
    spread: frozenset[Domain] = frozenset({"owner"})
    max_per: Mapping[Domain, int] = field(default_factory=dict, hash=False)
    min_regions: int = 1
    only_countries: frozenset[str] | None = None
    count_own: bool = False
    coding: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise PolicyError("a policy has no name")
        self._whole("copies", self.copies, least=1)
        self._whole("minimum", self.minimum, least=1)
        self._whole("min_regions", self.min_regions, least=1)
        if self.minimum > self.copies:
            raise self._wrong(f"minimum {self.minimum} is more than copies {self.copies}")
        if self.min_regions > self.copies:
            raise self._wrong(f"min_regions {self.min_regions} is more than copies {self.copies}")
        unknown = sorted({*self.spread, *self.max_per} - set(DOMAINS))
        if unknown:
            raise self._wrong(f"unknown failure domain {', '.join(unknown)}: use {', '.join(DOMAINS)}")
        for domain, most in self.max_per.items():
            self._whole(f"max_per {domain}", most, least=1)
        if self.only_countries is not None:
            if not self.only_countries:
                raise self._wrong("only_countries names no country: leave it out to allow all")
            strange = sorted(self.only_countries - COUNTRIES)
            if strange:
                raise self._wrong(f"unknown country {', '.join(strange)}: use two-letter ISO 3166 codes")
        if self.coding is not None:
            needed, parity = self.coding
            self._whole("coding k", needed, least=1)
            self._whole("coding m", parity, least=1)
            if needed + parity != self.copies:
                raise self._wrong(f"coding {needed}+{parity} makes {needed + parity} shards, copies says {self.copies}")
            if self.minimum < needed:
                raise self._wrong(f"minimum {self.minimum} is below the {needed} shards needed to read a pack")
        object.__setattr__(self, "spread", frozenset(self.spread))
        object.__setattr__(self, "max_per", dict(sorted(self.max_per.items())))

    def _wrong(self, what: str) -> PolicyError:
        return PolicyError(f"policy {self.name}: {what}")

    def _whole(self, what: str, number: int, *, least: int) -> None:
        if not _whole(number, least=least):
            raise self._wrong(f"{what} is {number!r}, not a whole number from {least} up")

    @property
    def needed(self) -> int:
        """How many holders suffice to read a pack."""
        return 1 if self.coding is None else self.coding[0]

    def most(self, domain: Domain) -> int | None:
        """The greatest number of copies in one such domain, ``None`` for no limit."""
        cap = self.max_per.get(domain)
        if domain in self.spread:
            return 1
        return cap

    def admits(self, country: str) -> bool:
        """Whether residency allows a copy in this country."""
        return self.only_countries is None or country in self.only_countries


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """What is placed; ``size`` is the bytes a copy takes on a peer, ``policy`` the name of its policy."""

    id: PackId
    size: int
    policy: str

    def __post_init__(self) -> None:
        _label("pack id", self.id)
        _amount(f"pack {self.id}: size", self.size, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """A copy to make."""

    pack: PackId
    peer: PeerId
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surplus:
    """A copy beyond what the policy needs; a plan names it and never removes it."""

    pack: PackId
    peer: PeerId
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Debt:
    """A pack that will have fewer copies than promised, though no fewer than the minimum."""

    pack: PackId
    have: int
    promised: int
    missing: tuple[str, ...]
    would_help: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A pack that cannot reach its minimum; one without any living copy gets no additions at all."""

    pack: PackId
    have: int
    minimum: int
    why: tuple[str, ...]
    would_help: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """The domains in which the copies of a pack lie closer together than its policy says."""

    pack: PackId
    domains: tuple[Domain, ...]
    would_help: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """All packs of a policy that fall short for one reason, and what would close it for all of them."""

    policy: str
    packs: int
    size: int
    have: int
    promised: int
    relaxed: tuple[Domain, ...]
    refused: bool
    why: tuple[str, ...]
    would_help: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One invariant that does not hold, of a pack, of a peer, or of a pack on a peer."""

    kind: ViolationKind
    pack: PackId | None = None
    peer: PeerId | None = None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do, and what is left undone and why. All sequences are in the order of pack ids.

    ``placement`` is the aim for every pack: first the kept copies, then the additions. ``kept`` are the
    copies already there that count. ``misplaced`` is what is wrong with the copies as they lie now. ``hanging`` are
    the packs that are out of reach with one relay by their aim, which breaks no promise.
    """

    placement: Placement
    additions: tuple[Addition, ...]
    kept: Mapping[PackId, tuple[PeerId, ...]]
    surplus: tuple[Surplus, ...]
    misplaced: tuple[Violation, ...]
    debts: tuple[Debt, ...]
    refused: tuple[Refusal, ...]
    relaxations: tuple[Relaxation, ...]
    gaps: tuple[Gap, ...]
    hanging: tuple[PackId, ...]
    queries: tuple[Query, ...]

    @property
    def met(self) -> bool:
        """Whether every pack gets all that its policy promises."""
        return not (self.debts or self.refused or self.relaxations)

    def demand_minimum(self) -> None:
        """Stop here unless every pack reaches its minimum.

        Raises:
            PolicyUnsatisfiableError: with the reasons of every gap that goes below a minimum.
        """
        reasons = [
            f"policy {gap.policy}, {gap.packs} packs: {'; '.join(gap.why + gap.would_help)}"
            for gap in self.gaps
            if gap.refused
        ]
        if reasons:
            raise PolicyUnsatisfiableError(reasons)
