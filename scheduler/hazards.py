"""What strikes copies, how often, and how long a copy is missing then: the assumptions behind every figure of loss.

Rates are per year and are assumptions, not measurements of anybody's friends; every figure is shown beside
them. Sources: peer, the yearly loss of a machine that a private person runs for others, disk failure (1.4 %,
Backblaze 2023) being the smaller part and "does not want to any more" the larger; site, the fires and thefts
per dwelling and year of Nordic insurers; rot, checksum mismatches of Bairavasundaram et al., FAST 2008, per disk
and scaled up to whole copies; the others are judgement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Final, get_args

from scheduler.errors import RosterError
from scheduler.model import Domain

__all__ = ["YEAR_S", "Hazards", "assuming"]

YEAR_S: Final = 365.25 * 86400
_UNITS: Final = {"h": 3600, "d": 86400, "w": 7 * 86400}
_TIMES: Final = ("repair", "found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hazards:
    """Shocks per year, each in the domain it strikes, and times in seconds.

    Raises:
        RosterError: a rate below 0 or above 100 a year, a chance that is none, a time of 0 or beyond a year.
    """

    peer: float = 0.15
    """A disk or machine dies, or its owner gives up. All losses of one machine alone."""
    rot: float = 0.001
    """A copy is damaged where nobody notices at once."""
    owner: float = 0.01
    """A person loses all machines at once: a wrong command, a stolen key, a quarrel."""
    site: float = 0.003
    """A house burns, floods, or is broken into."""
    region: float = 0.002
    country: float = 0.0005
    common: float = 0.05
    """Something strikes every peer at the same time, each with ``common_hit``: a fault in the program, a worm, a
    group that falls apart."""
    common_hit: float = 0.05
    repair: float = 15 * 86400
    """From the loss of a copy until another one replaces it: 14 days of silence and a night."""
    found: float = 30 * 86400
    """From the damage of a copy until scrub or audit finds it."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            top = 1.0 if field.name == "common_hit" else YEAR_S if field.name in _TIMES else 100.0
            least = 1.0 if field.name in _TIMES else 0.0
            if not math.isfinite(value) or not least <= value <= top:
                raise RosterError(f"{_word(field.name)} is {value!r}: it must lie between {least:g} and {top:g}")

    @property
    def independent(self) -> Hazards:
        """The same peers with nothing that strikes several of them at once."""
        return replace(self, owner=0.0, site=0.0, region=0.0, country=0.0, common=0.0)

    def of(self, domain: Domain) -> float:
        """The yearly rate of shocks that take everything in one such domain."""
        return {"owner": self.owner, "site": self.site, "region": self.region, "country": self.country}[domain]

    def words(self) -> dict[str, str]:
        """Every assumption in the form in which :func:`assuming` reads it."""
        return {
            _word(field.name): f"{getattr(self, field.name) / 86400:g}d"
            if field.name in _TIMES
            else f"{getattr(self, field.name) * 100:g}%"
            for field in fields(self)
        }


def _word(name: str) -> str:
    return name.replace("_", "-")


def assuming(words: Iterable[str], hazards: Hazards | None = None) -> Hazards:
    """``hazards`` with some replaced: ``peer=20%`` (a year), ``common-hit=10%`` (of the peers), ``repair=3d``.

    Raises:
        RosterError: a word that is none of these, a number that cannot be one, or one thing said twice.
    """
    known = {_word(field.name): field.name for field in fields(Hazards)}
    said: dict[str, float] = {}
    for word in words:
        name, _, text = (part.strip() for part in word.partition("="))
        if name not in known:
            raise RosterError(f"unknown assumption {name!r}: use {', '.join(known)}")
        if name in said:
            raise RosterError(f"assumption {name!r} is made twice")
        said[name] = _time(name, text) if name in _TIMES else _share(name, text)
    return replace(hazards or Hazards(), **{known[name]: value for name, value in said.items()})


def _share(name: str, text: str) -> float:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise RosterError(f"{name}={text}: write a share such as {name}=2% or {name}=0.02") from None


def _time(name: str, text: str) -> float:
    try:
        return float(text[:-1]) * _UNITS[text[-1:]]
    except (ValueError, KeyError):
        raise RosterError(f"{name}={text}: write a time such as {name}=3d or {name}=12h") from None


assert set(get_args(Domain)) <= {field.name for field in fields(Hazards)}, "every failure domain has its rate"
