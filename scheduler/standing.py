"""How a peer stands, by what its tenant said of it and how long it has been silent.

Silence is not loss. A friend's outage lasts hours, now and then weeks: at 14 days one verdict in sixty peer-years is
wrong, at one day three in a year (bench of research, uptime 95 %). So a plan counts on a silent peer for two weeks, and
for one where its copy is one of the last; it takes nothing new meanwhile. A peer that comes and goes starts anew with
each answer, and makes no traffic at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from scheduler.model import PeerState

__all__ = ["LOST_S", "SUSPECT_S", "URGENT_S", "Contact", "Said", "Standing", "standing"]

SUSPECT_S: Final = 86400.0
"""Silence after which a person should ask after a peer."""
URGENT_S: Final = 7 * 86400.0
"""Silence after which a copy there is made again if one copy is left (or the minimum is not met)."""
LOST_S: Final = 14 * 86400.0
"""Silence after which all that lay there is made again."""

Said: TypeAlias = Literal["", "away", "readonly", "draining", "leaving", "gone"]
"""What was said. away: for a time that was announced. readonly: keeps what it has. draining: is to be emptied. leaving:
said so itself, for a day. gone: will not come back."""

Word: TypeAlias = Literal[
    "answers", "offline", "suspect", "unmounted", "away", "late", "readonly", "draining", "leaving", "lost", "gone"
]
"""late: it was away, and is not back although the time is over. Of one that was leaving, and is silent after its day,
nobody expects it back: it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """What is known of a peer now. ``silent_s``: how long nothing could be read there, 0 while all is well.

    ``unmounted``: it answers and says that its disk is not there, which says nothing about what is on it. ``left_s``:
    until an absence that was announced ends, or until the day from which it keeps nothing; negative, for how long that
    has been over.
    """

    answers: bool
    unmounted: bool = False
    silent_s: float = 0.0
    said: Said = ""
    left_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """``word`` is for people, ``state`` for plans."""

    word: Word
    state: PeerState


def standing(contact: Contact, *, by_hand: bool = False) -> Standing:
    """How plans take a peer. ``by_hand``: somebody says that whoever does not answer now is lost.

    That is not said of a peer whose absence was announced, nor of one that answers without its disk: both are known
    not to be lost, and ``gone`` says otherwise of either.
    """
    said = contact.said
    if said == "gone":
        return Standing(word="gone", state="lost")
    if contact.answers and not contact.unmounted:
        if said in ("draining", "leaving"):
            return Standing(word=said, state="draining")
        if said == "readonly":
            return Standing(word="readonly", state="readonly")
        if said == "away" and contact.left_s > 0:
            return Standing(word="away", state="readonly")
        return Standing(word="answers", state="ok")
    if said == "leaving" and contact.left_s <= 0:
        return Standing(word="gone", state="lost")
    announced = said == "away" and contact.left_s > 0
    if by_hand and not announced and not contact.unmounted:
        return Standing(word="lost", state="lost")
    counted = min(contact.silent_s, -contact.left_s) if said == "away" else contact.silent_s
    if counted > LOST_S:
        return Standing(word="lost", state="lost")
    if said in ("draining", "leaving"):
        return Standing(word=said, state="draining")
    state: PeerState = "suspect" if contact.silent_s > URGENT_S else "readonly"
    if contact.unmounted:
        return Standing(word="unmounted", state=state)
    if said == "away":
        return Standing(word="away" if announced else "late", state=state)
    return Standing(word="suspect" if counted > SUSPECT_S else "offline", state=state)
