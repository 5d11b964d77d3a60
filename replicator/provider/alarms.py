"""What a provider's operator should know, of the disk and of the tenants whose data lies on it. No I/O.

A node that is dead or taken over tells nobody anything. Its providers see that it is silent, and what was marked for
deletion with its tenant's keys; so they say it.
"""

from typing import Final

from replicator.clock import DAY_S, HOUR_S, NS, moment_of
from replicator.config import counted, format_size
from replicator.notify.alarms import STALE_S, Alarm
from replicator.notify.metrics import Gauge
from replicator.provider.drain import Emptying
from replicator.provider.state import ErasedState, ProviderState, TenantState

FULL_PERCENT: Final = 1
FILLING_DAYS: Final = 30
RELAY_S: Final = HOUR_S
"""A relay that is started anew, with its machine and all, is back before; tenants notice after 36 hours."""
RELAY_TODO: Final = (
    "look whether this machine's own line works; ask the relay's operator whether it runs and still relays this "
    "provider (`replicator provider set --relay-for` there); `replicator provider serve --via` may name another relay "
    "beside it"
)
ERASING_S: Final = HOUR_S
"""The objects of most tenants are gone from a disk in minutes, and from a bucket within that."""
ERASING_TODO: Final = (
    "mount the disk with the objects and those with folders from before a move, which `replicator provider status` "
    "names, or say of one that is no more `replicator provider move --data DIR --forget-old`; then start the daemon "
    "anew, which goes on"
)
_ASK: Final = "ask whose it is, by another way than this program"


def alarms_of(state: ProviderState) -> list[Alarm]:
    """Return what is so now."""
    alarms = [alarm for tenant in state.tenants for alarm in _of_tenant(tenant, state.now_ns)]
    if not state.mounted:
        alarms.append(
            Alarm(
                code="provider.unmounted",
                about="data folder",
                what="the disk with the objects is not mounted, or their bucket does not answer; nothing is served, "
                "and nothing was lost by that",
                todo="mount it, or look at the bucket's server; the daemon takes it up by itself",
            )
        )
    if state.frozen:
        alarms.append(
            Alarm(
                code="provider.clock",
                about="clock",
                what=f"the clock leapt by {state.clock_leap_s} s; nothing is deleted for a day",
                todo="look whether it is right, and why it leapt",
            )
        )
    if state.damaged:
        alarms.append(
            Alarm(
                code="provider.damaged",
                about="data folder",
                what=(
                    f"{counted(state.damaged, 'object was', 'objects were')} damaged or gone when read; their "
                    "tenants store them again"
                ),
                todo="look at the disk (smartctl) and at the memory; `replicator provider status` says when",
                extent=state.damaged,
            )
        )
    if state.mounted:
        alarms += _of_room(state)
    alarms += _of_relays(state)
    alarms += [alarm for one in state.draining for alarm in _of_emptying(one, state.now_ns)]
    alarms += [alarm for one in state.erased for alarm in _of_erased(one, state.now_ns)]
    return alarms


def standing(state: ProviderState) -> str:
    """Return in a sentence how what is kept here stands, and as of when."""
    when = moment_of(state.now_ns)
    if not state.mounted:
        return f"What is kept here cannot be reached as of {when}; tenants go by their other copies."
    what = f"{format_size(state.used)} are kept here as of {when}"
    scrubbed = (
        f"; all of it was last read through on {moment_of(state.scrub_ended_ns)[:10]}" if state.scrub_ended_ns else ""
    )
    return f"{what}{scrubbed}."


def metrics_of(state: ProviderState) -> list[Gauge]:
    """Return the gauges of a provider."""
    gauges = [
        Gauge(name=f"provider_{name}", meaning=meaning, value=value)
        for name, meaning, value in (
            ("mounted", "1 if the disk with the objects is there, or their bucket answers.", int(state.mounted)),
            ("used_bytes", "Bytes that tenants' objects count.", state.used),
            ("capacity_bytes", "Bytes that are offered.", state.capacity),
            (
                "disk_free_bytes",
                "Bytes that the disk has left; of a bucket, of the offer.",
                state.disk_free,
            ),
            ("room_bytes", "Bytes that may still be stored.", state.room),
            ("growth_bytes_per_day", "By how much it grew a day, within the last 30.", state.growth),
            ("clock_leap_seconds", "By how much the clock last leapt.", state.clock_leap_s),
            ("damaged_objects", "Objects that were damaged or gone when they were read.", state.damaged),
            ("scrub_ended_seconds", "When all was last read through, since 1970.", state.scrub_ended_ns / NS),
            ("relays", "Relays that it waits at, or would.", len(state.relays)),
            ("relays_lost", "Of these, those that do not let it wait now.", sum(bool(r.lost_ns) for r in state.relays)),
        )
    ]
    if state.days_left is not None:
        gauges.append(
            Gauge(
                name="provider_full_in_days",
                meaning="Days until it is full, as of late.",
                value=round(state.days_left, 1),
            )
        )
    codes = [one.code for one in alarms_of(state)]
    gauges += [
        Gauge(name="alarms", meaning="Alarms now.", value=codes.count(code), labels={"code": code})
        for code in sorted(set(codes))
    ]
    for one in state.tenants:
        labels = {"tenant": one.id}
        gauges += [
            Gauge(name=f"provider_tenant_{name}", meaning=meaning, value=value, labels=labels)
            for name, meaning, value in (
                ("used_bytes", "Bytes that its objects count.", one.used),
                ("quota_bytes", "Bytes that it may store.", one.quota),
                ("heard_seconds", "When a node of it last published, since 1970.", one.heard_ns / NS),
                ("marked_bytes", "Bytes that are marked for deletion.", one.marked_bytes),
            )
        ]
    return gauges


def _of_room(state: ProviderState) -> list[Alarm]:
    advice = "make room: `replicator provider set --capacity`, a larger disk, or smaller quotas"
    if state.room <= state.capacity * FULL_PERCENT // 100:
        text = f"{format_size(state.room)} of {format_size(state.capacity)} are left; uploads are refused"
        return [Alarm(code="provider.full", about="capacity", what=text, todo=advice)]
    if state.days_left is not None and state.days_left < FILLING_DAYS:
        text = (
            f"as it grew of late, {format_size(state.room)} of room are full in "
            f"{counted(round(state.days_left), 'day')}"
        )
        return [Alarm(code="provider.filling", about="capacity", what=text, todo=advice)]
    return []


def _of_relays(state: ProviderState) -> list[Alarm]:
    """Return what is so of the ways in: one thing, so that a second relay that is lost ends no trouble of the first."""
    lost = [one for one in state.relays if one.lost_ns and state.now_ns - one.lost_ns >= RELAY_S * NS]
    if not lost:
        return []
    named = "; ".join(f"its relay {one.address} at {moment_of(one.lost_ns)} ({one.reason})" for one in lost)
    if len(lost) == len(state.relays) and not state.dialled:
        text = f"nobody can reach this provider, and nothing is lost by that: it has lost {named}"
        return [Alarm(code="provider.unreachable", about="ways in", what=text, todo=RELAY_TODO)]
    text = f"who comes to this provider through a relay does not get here, other ways in stay: it has lost {named}"
    return [Alarm(code="relay.lost", about="ways in", what=text, todo=RELAY_TODO, extent=len(lost))]


def _of_erased(one: ErasedState, now_ns: int) -> list[Alarm]:
    """Return that a tenant was ordered away, and whether something of it is still left after it should be gone."""
    about, day, alarms = f"tenant {one.id[:12]}", moment_of(one.began_ns)[:10], []
    if now_ns - one.began_ns < FILLING_DAYS * DAY_S * NS:
        text = f"{about} {'was' if one.done else 'is being'} erased by its root's order of {day}"
        todo = f"nothing here, if they know of it: {_ASK}"
        alarms.append(Alarm(code="tenant.erased", about=about, what=text, todo=todo))
    if not one.done and now_ns - one.began_ns >= ERASING_S * NS:
        text = f"{about} is not erased yet, and has no receipt: its root ordered that on {day}, and some of it is left"
        alarms.append(Alarm(code="erasure.stuck", about=about, what=text, todo=ERASING_TODO))
    return alarms


def _of_emptying(one: Emptying, now_ns: int) -> list[Alarm]:
    """Return what hinders a tenant from being gone by the day that was said, and what would be lost after it."""
    if not one.left:
        return []
    name, day = one.label or one.tenant.hex()[:12], moment_of(one.by_ns)[:10]
    about = f"leaving {name}"
    if now_ns >= one.by_ns:
        text = (
            f"{name}: the day that it was told, {day}, is over; {format_size(one.left)} are not elsewhere as promised"
        )
        todo = (
            "delete nothing and keep serving until `replicator provider drain` says that nothing is left, or ask them"
        )
        return [Alarm(code="drain.late", about=about, what=text, todo=todo, extent=max(1, one.left >> 20))]
    if one.stuck:
        text = f"{name}: {format_size(one.stuck)} of what lies here has no other place, and {day} was told"
        todo = "ask them to find another provider, or give them more time: `replicator provider drain --by`"
        return [Alarm(code="drain.stuck", about=about, what=text, todo=todo, extent=max(1, one.stuck >> 20))]
    return []


def _of_tenant(one: TenantState, now_ns: int) -> list[Alarm]:
    about = f"tenant {one.name}"
    alarms = []
    silent_s = (now_ns - max(one.heard_ns, one.since_ns)) / NS
    if silent_s > STALE_S and one.stores:
        days = round(silent_s / DAY_S)
        alarms.append(
            Alarm(
                code="tenant.silent",
                about=about,
                what=f"{one.name}: none of its machines has backed up to here for {counted(days, 'day')}",
                todo=f"{_ASK}: its machine may be dead, and then it tells nobody",
            )
        )
    if one.marked_bytes > one.budget:
        alarms.append(
            Alarm(
                code="deletion.large",
                about=about,
                what=f"{one.name}: {counted(one.marked, 'object is', 'objects are')} marked for deletion "
                f"({format_size(one.marked_bytes)}), "
                f"more than may go in a week; the first may go on {moment_of(one.first_ns)[:10]}",
                todo=f"{_ASK}; nothing goes before that day",
                extent=one.marked,
            )
        )
    if one.unbraked:
        text = f"{one.name}: no {' and no '.join(one.unbraked)} on deletions, by its root's word"
        alarms.append(Alarm(code="deletion.unbraked", about=about, what=text, todo=f"{_ASK}: it is meant for tests"))
    if one.root_changes:
        text = f"{one.name}: another root is announced to follow its own"
        alarms.append(
            Alarm(
                code="tenant.root", about=about, what=text, todo=f"{_ASK}: who did not do it has thirty days to object"
            )
        )
    if one.forks:
        text = f"{one.name}: the history of a machine of it parts in two: two write with one key"
        alarms.append(Alarm(code="tenant.fork", about=about, what=text, todo=_ASK, extent=one.forks))
    return alarms
