"""Alarms: what a person should know of, each with a code that stays the same from release to release.

What each means and what to do about it is in docs/operate/alarms.md, which a test holds to this table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from blake3 import blake3

from replicator.clock import HOUR_S

Weight = Literal["integrity", "red", "warning"]
"""``integrity``: something is not what was stored or signed. ``red``: act today. ``warning``: act this week."""
ORDER: Final[tuple[Weight, ...]] = ("integrity", "red", "warning")
LATE_S: Final = 36 * HOUR_S
STALE_S: Final = 72 * HOUR_S
BY_HAND: Final = frozenset({"restore", "export", "borg import", "borg export"})
"""Runs that somebody asked for and sees the end of: they are kept, and ring for damage alone."""
_ID_HEX: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What all alarms of one code have in common.

    ``patience_s``: it has to be there for so long before anybody is told, so that what comes and goes with a friend's
    router is no message. ``known``: a person may say that it is known (``ack``), and is then told no more of it.
    """

    weight: Weight
    patience_s: int = 0
    known: bool = False


CODES: Final[Mapping[str, Kind]] = {
    "data.damaged": Kind(weight="integrity", known=True),
    "data.integrity": Kind(weight="integrity"),
    "data.below-minimum": Kind(weight="red"),
    "data.below-promise": Kind(weight="warning", patience_s=LATE_S),
    "data.one-relay": Kind(weight="warning", patience_s=LATE_S),
    "data.unpublished": Kind(weight="warning", patience_s=LATE_S),
    "data.late": Kind(weight="warning"),
    "data.stale": Kind(weight="red"),
    "history.fork": Kind(weight="integrity", known=True),
    "history.rollback": Kind(weight="integrity", known=True),
    "history.lost": Kind(weight="integrity", known=True),
    "history.revoked": Kind(weight="integrity", known=True),
    "history.interleaved": Kind(weight="integrity", known=True),
    "history.continued": Kind(weight="warning", known=True),
    "root.announced": Kind(weight="red"),
    "deletion.large": Kind(weight="red"),
    "deletion.unbraked": Kind(weight="warning"),
    "peer.silent": Kind(weight="warning"),
    "peer.lost": Kind(weight="red"),
    "peer.leaving": Kind(weight="warning"),
    "peer.stuck": Kind(weight="red", patience_s=LATE_S),
    "peer.missing": Kind(weight="warning", patience_s=LATE_S),
    "drill.failed": Kind(weight="red"),
    "beside.failed": Kind(weight="warning"),
    "run.failed": Kind(weight="red"),
    "run.below-minimum": Kind(weight="warning", patience_s=LATE_S),
    "notify.failed": Kind(weight="warning"),
    "provider.unmounted": Kind(weight="red"),
    "provider.damaged": Kind(weight="integrity", known=True),
    "provider.full": Kind(weight="red"),
    "provider.filling": Kind(weight="warning", patience_s=LATE_S),
    "provider.clock": Kind(weight="red"),
    "provider.unreachable": Kind(weight="red"),
    "relay.lost": Kind(weight="warning"),
    "drain.stuck": Kind(weight="warning"),
    "drain.late": Kind(weight="red"),
    "tenant.silent": Kind(weight="warning"),
    "tenant.fork": Kind(weight="integrity", known=True),
    "tenant.root": Kind(weight="red"),
    "tenant.erased": Kind(weight="red"),
    "erasure.stuck": Kind(weight="red"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One thing that is so now. ``about`` is what it is about: a dataset, a provider, a tenant.

    ``extent`` is how much of it there is, where that can be counted: how many objects, for instance. ``what`` and
    ``todo`` are sentences without their full stop.
    """

    code: str
    about: str
    what: str
    todo: str
    extent: int = 1

    @property
    def kind(self) -> Kind:
        """What all alarms of this code have in common."""
        return CODES[self.code]

    @property
    def key(self) -> str:
        """The same for the same trouble, however often it is looked at."""
        return f"{self.code} {self.about}"

    @property
    def id(self) -> str:
        """What ``ack`` takes."""
        return alarm_id(self.key)


def alarm_id(key: str) -> str:
    """Return what people call an alarm."""
    return blake3(key.encode()).hexdigest()[:_ID_HEX]


def by_weight(alarms: Iterable[Alarm]) -> list[Alarm]:
    """Return alarms, the heaviest first."""
    return sorted(alarms, key=lambda one: (ORDER.index(one.kind.weight), one.code, one.about))
