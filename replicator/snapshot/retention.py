"""Which snapshots to keep: the rules that people know from restic, borg and Proxmox, decided from values alone.

Snapshots fall into series, one for each dataset and node. Within a series each rule picks by itself, what any rule
picks is kept, and every reason is told. So another rule, or a larger number, never drops more; and what is kept once is
kept again when the same rules are applied to what is left (docs/guide/retention.md has a table of examples).
"""

import datetime
import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from replicator.clock import NS, SKEW_S
from replicator.errors import UsageError

KEEP_TAG: Final = "keep"
"""A snapshot with this tag is never dropped by a rule."""
MOST: Final = 1_000_000
"""Of any number in a rule; more than anyone's snapshots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One snapshot as rules see it. ``number`` orders a series, and ``at_ns`` must not fall where it rises.

    ``partial``: published while the first upload was still going on. ``gaps``: something could not be read. Not
    ``sure``: nobody knows when it was taken.
    """

    name: bytes
    series: Hashable
    number: int
    at_ns: int
    tags: frozenset[str] = frozenset()
    partial: bool = False
    gaps: bool = False
    sure: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRules:
    """How many to keep of each kind; ``within_s`` seconds before the newest of a series; any of ``tags``.

    Raises:
        UsageError: a number below 0 or beyond all measure, or no rule at all: that would drop everything.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within_s: int = 0
    tags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name, value in self._numbers().items():
            limit = MOST if name != "within_s" else MOST * 86400
            if not 0 <= value <= limit:
                raise UsageError(f"to keep {name.removesuffix('_s')} {value} is not possible", hint="0 switches it off")
        if not any(self._numbers().values()) and not self.tags:
            raise UsageError(
                "no rule says what to keep, so everything would be dropped",
                hint="give at least one, such as --keep-daily 14; to drop certain snapshots, name them",
            )

    def _numbers(self) -> dict[str, int]:
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "tags"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one snapshot. ``reasons`` are the rules that keep it, in words; none: it is dropped."""

    candidate: Candidate
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


def decide(candidates: Iterable[Candidate], rules: KeepRules) -> list[Decision]:
    """Return a decision on each snapshot, by series and then oldest first.

    Whatever the rules, each series keeps its newest snapshot, its newest whole one, its newest whole one without gaps,
    and all that are tagged ``keep``. What was taken nobody knows when stays too: a clock that is wrong must not
    cost data.
    """
    series: dict[Hashable, list[Candidate]] = {}
    for one in sorted(candidates, key=lambda one: (repr(one.series), one.number, one.name)):
        series.setdefault(one.series, []).append(one)
    found = []
    for members in series.values():
        reasons = _reasons(members, rules)
        found += [Decision(candidate=one, reasons=tuple(reasons[one.name])) for one in members]
    return found


def _reasons(members: Sequence[Candidate], rules: KeepRules) -> dict[bytes, list[str]]:
    """Return why each snapshot of one series, oldest first, is kept."""
    reasons: dict[bytes, list[str]] = {one.name: [] for one in members}
    newest_first = members[::-1]
    whole = [one for one in newest_first if not one.partial]
    timed = [one for one in whole if one.sure]

    def keep(picked: Iterable[Candidate], why: str) -> None:
        for one in picked:
            reasons[one.name].append(why)

    keep(whole[: rules.last], "last")
    for word, count, period in (
        ("hourly", rules.hourly, _hour),
        ("daily", rules.daily, _day),
        ("weekly", rules.weekly, _week),
        ("monthly", rules.monthly, _month),
        ("yearly", rules.yearly, _year),
    ):
        keep(_newest_of_periods(timed, count, period), word)
    if rules.within_s and timed:
        keep((one for one in timed if one.at_ns > timed[0].at_ns - rules.within_s * NS), "within")
    keep((one for one in whole if not one.sure), "time in doubt")
    keep((one for one in members if one.tags & rules.tags), "tag")
    keep((one for one in members if KEEP_TAG in one.tags), "tagged keep")
    keep(newest_first[:1], "newest")
    # Only where the rules would lose it: for a dataset that always has gaps this is one old snapshot more.
    for good, why in ((whole, "newest whole"), ([one for one in whole if not one.gaps], "newest without gaps")):
        if good and not reasons[good[0].name]:
            keep(good[:1], why)
    return reasons


def _newest_of_periods(
    newest_first: Iterable[Candidate], count: int, period: Callable[[int], Hashable]
) -> list[Candidate]:
    """Return the newest snapshot of each of the last ``count`` periods that have one."""
    found: dict[Hashable, Candidate] = {}
    for one in newest_first:
        key = period(one.at_ns)
        if key not in found and len(found) == count:
            break
        found.setdefault(key, one)
    return list(found.values())


def _utc(at_ns: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at_ns // NS, datetime.UTC)


def _hour(at_ns: int) -> Hashable:
    return at_ns // (3600 * NS)


def _day(at_ns: int) -> Hashable:
    return at_ns // (86400 * NS)


def _week(at_ns: int) -> Hashable:
    return _utc(at_ns).isocalendar()[:2]  # Monday to Sunday, and the year that the week counts to


def _month(at_ns: int) -> Hashable:
    moment = _utc(at_ns)
    return moment.year, moment.month


def _year(at_ns: int) -> Hashable:
    return _utc(at_ns).year


def clamped(
    created: Mapping[int, int], *, now_ns: int, witnessed: Mapping[int, int] | None = None
) -> tuple[dict[int, int], frozenset[int]]:
    """Return the times that rules go by for one chain, by number, and those numbers whose time nobody can know.

    ``created`` has what the writer says, ``witnessed`` the median of what witnesses say of those that are known; all
    in ns. A time is never before that of the snapshot before it in the chain. One that is later than its witnesses
    counts as theirs. One without witnesses that is later than now, by more than clocks may differ, is not believed: it
    counts as the snapshot before it, so that one leap of a clock does not move all that follow.
    """
    believed: dict[int, int | None] = {}
    for number, at in sorted(created.items()):
        seen = witnessed.get(number) if witnessed else None
        believed[number] = min(at, seen) if seen is not None else at if at <= now_ns + SKEW_S * NS else None
    floor = next((at for at in believed.values() if at is not None), now_ns)  # a chain may begin with a leap
    found: dict[int, int] = {}
    for number, believable in believed.items():
        found[number] = floor = max(floor, believable or 0)
    return found, frozenset(number for number, at in believed.items() if at is None)


def stalled(created: Mapping[int, int]) -> frozenset[int]:
    """Return the numbers of a series, in one chain, at which the writer's time did not go on.

    A writer whose clock went back behind the snapshot before counts on by a nanosecond a snapshot; that tells nothing
    of when they were taken. Snapshots of other series may lie between.
    """
    found = set()
    for (before, earlier), (number, at) in itertools.pairwise(sorted(created.items())):
        if at - earlier <= number - before:
            found.add(number)
    return frozenset(found)
