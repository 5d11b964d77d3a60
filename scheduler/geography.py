"""Countries, residency, place labels, and which peers form one household.

A *household* is what shares an owner or a site. The two do not nest: one owner may have boxes in two
houses, and two owners may share one house. So households are the connected components of "same owner or
same site": a fire, a fibre cut or a falling-out reaches all of one at once.

Labels are compared folded (case, accents, spacing), so that "umea" and "Umeå" never count as two places.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from scheduler.errors import PolicyError, RosterError

__all__ = [
    "COUNTRIES",
    "EEA",
    "EU",
    "Query",
    "country_code",
    "default_residency",
    "fold",
    "households",
    "qualify",
    "queries",
    "residency",
]

# ISO 3166-1 alpha-2, the 249 officially assigned codes.
_ASSIGNED: Final = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW "
    "BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI "
    "FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN "
    "IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME "
    "MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF "
    "PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV "
    "SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE "
    "YT ZA ZM ZW"
)
COUNTRIES: Final = frozenset(_ASSIGNED.split())
_UNION: Final = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
EU: Final = frozenset(_UNION.split())
EEA: Final = EU | {"IS", "LI", "NO"}
_GROUPS: Final = {"EU": EU, "EEA": EEA}
_MISTAKEN: Final = {"UK": "GB", "EL": "GR"}  # in common use, but not the ISO code
# Letters that Unicode does not decompose into a base letter and an accent.
_LETTERS: Final = str.maketrans({"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})

_Id = TypeVar("_Id", bound=str)
_Id_co = TypeVar("_Id_co", bound=str, covariant=True)


class _Housed(Protocol[_Id_co]):
    @property
    def id(self) -> _Id_co: ...
    @property
    def owner(self) -> str: ...
    @property
    def site(self) -> str: ...


class _Located(Protocol):
    """Where a peer is; ``None`` where nobody said so."""

    @property
    def owner(self) -> str | None: ...
    @property
    def site(self) -> str | None: ...
    @property
    def region(self) -> str | None: ...
    @property
    def country(self) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Something in a roster that a person should look at; planning goes on, on the safe reading."""

    domain: str
    labels: tuple[str, ...]
    message: str


def country_code(text: str) -> str:
    """The upper-case ISO 3166-1 alpha-2 code.

    Raises:
        RosterError: no such code is assigned.
    """
    code = text.strip().upper()
    if code not in COUNTRIES:
        hint = f" (did you mean {_MISTAKEN[code]}?)" if code in _MISTAKEN else ""
        raise RosterError(f"unknown country {text!r}{hint}: use a two-letter ISO 3166 code such as SE")
    return code


def residency(text: str) -> frozenset[str]:
    """The countries that ``EEA``, ``EU`` or a comma-separated list of them and of codes allows.

    Raises:
        PolicyError: nothing is named, or something unknown.
    """
    allowed: set[str] = set()
    for part in text.split(","):
        name = part.strip().upper()
        if name in _GROUPS:
            allowed |= _GROUPS[name]
        elif name in COUNTRIES:
            allowed.add(name)
        else:
            hint = f" (did you mean {_MISTAKEN[name]}?)" if name in _MISTAKEN else ""
            raise PolicyError(
                f"unknown residency {part.strip()!r}{hint}: use EEA, EU or two-letter ISO 3166 codes, such as SE,NO"
            )
    return frozenset(allowed)


def default_residency(country: str) -> frozenset[str] | None:
    """The residency of a tenant who did not choose one: the EEA from inside the EEA, else no limit."""
    return EEA if country_code(country) in EEA else None


def fold(label: str) -> str:
    """The form in which two labels are compared: no case, accents, spacing or punctuation."""
    bare = "".join(
        char for char in unicodedata.normalize("NFKD", label.casefold()) if not unicodedata.combining(char)
    ).translate(_LETTERS)
    return "-".join("".join(char if char.isalnum() else " " for char in bare).split())


def _transliterated(label: str) -> str:
    """A looser form for questions only: the spellings without accents, as malmoe and umeaa."""
    loose = fold(label)
    for pair, single in (("aa", "a"), ("ae", "a"), ("oe", "o"), ("ue", "u")):
        loose = loose.replace(pair, single)
    return loose.replace("-", "")


def qualify(*, country: str, region: str, site: str) -> tuple[str, str]:
    """Region and site labels that carry where they lie.

    Planning takes labels at their word: one label is one place. People name their sites "cellar", and two
    cellars in two towns are not one household, so a roster of what people wrote is qualified first.
    """
    code = country_code(country)
    return f"{code}/{region}", f"{code}/{region}/{site}"


def households(peers: Iterable[_Housed[_Id]]) -> dict[_Id, _Id]:
    """For each peer the smallest peer id of its household: the components of "same owner or same site"."""
    parent: dict[_Id, _Id] = {}

    def root(item: _Id) -> _Id:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first: dict[tuple[str, str], _Id] = {}
    for peer in peers:
        parent[peer.id] = peer.id
        for key in (("owner", fold(peer.owner)), ("site", fold(peer.site))):
            low, high = sorted((root(first.setdefault(key, peer.id)), root(peer.id)))
            parent[high] = low
    return {item: root(item) for item in parent}


def _spellings(labels: Iterable[str | None], *, domain: str) -> list[Query]:
    by_fold: dict[str, set[str]] = {}
    for label in labels:
        if label is None:
            continue
        by_fold.setdefault(fold(label), set()).add(label)
    found = [
        Query(
            domain=domain,
            labels=tuple(sorted(same)),
            message=f"{domain} labels {_quoted(same)} differ only in spelling and count as one {domain}: "
            "write them alike, or name them apart",
        )
        for _, same in sorted(by_fold.items())
        if len(same) > 1
    ]
    by_sound: dict[str, set[str]] = {}
    for folded, same in by_fold.items():
        by_sound.setdefault(_transliterated(folded), set()).add(min(same))
    found.extend(
        Query(
            domain=domain,
            labels=tuple(sorted(alike)),
            message=f"{domain} labels {_quoted(alike)} look alike but count as different: "
            f"if they are one {domain}, write them alike",
        )
        for _, alike in sorted(by_sound.items())
        if len(alike) > 1
    )
    return found


def _torn(rows: Iterable[tuple[str | None, str | None]], *, inner: str, outer: str) -> list[Query]:
    """Labels of the smaller kind of place that lie in more than one of the larger."""
    inside: dict[str, tuple[str, dict[str, str]]] = {}
    for small, large in rows:
        if small is None or large is None:
            continue
        inside.setdefault(fold(small), (small, {}))[1].setdefault(fold(large), large)
    return [
        Query(
            domain=inner,
            labels=(small, *sorted(larges.values())),
            message=f"{inner} {small!r} is said to lie in more than one {outer} ({', '.join(sorted(larges.values()))}) "
            f"and counts as one {inner}: correct the labels, or name them apart",
        )
        for _, (small, larges) in sorted(inside.items())
        if len(larges) > 1
    ]


def queries(peers: Sequence[_Located]) -> list[Query]:
    """What in the labels looks like a slip: near-duplicates, and places in two larger places at once."""
    found: list[Query] = []
    for domain in ("owner", "site", "region"):
        found += _spellings((getattr(peer, domain) for peer in peers), domain=domain)
    found += _torn(((peer.site, peer.region) for peer in peers), inner="site", outer="region")
    found += _torn(((peer.region, peer.country) for peer in peers), inner="region", outer="country")
    return found


def _quoted(labels: Iterable[str]) -> str:
    return ", ".join(repr(label) for label in sorted(labels))
