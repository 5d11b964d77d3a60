"""What a member's home has to tell a person: alarms from how things stand and how runs ended. No I/O."""

from collections.abc import Collection, Iterable
from typing import Final

from replicator.clock import DAY_S, moment_of
from replicator.config import format_size
from replicator.engine.findings import advice_for
from replicator.engine.freshness import age_in_words
from replicator.engine.status import DatasetStatus, PeerStatus, Status, severity, worst_of
from replicator.notify.alarms import BY_HAND, LATE_S, Alarm
from scheduler.standing import LOST_S

REPAIR: Final = "run `replicator repair`: it stores missing and damaged copies again and deletes nothing"
_FAILED: Final = (1, 6)
_UNPUBLISHED: Final = 5
_INTEGRITY: Final = 4


def alarms_of(found: Status, ended: Iterable[tuple[str, int, str]] = ()) -> list[Alarm]:
    """Return what a person should know. ``ended`` is how the last run of each kind did: kind, exit code, why."""
    alarms = [alarm for one in found.datasets for alarm in _of_dataset(one)]
    alarms += [alarm for one in found.peers for alarm in _of_peer(one)]
    alarms += [
        Alarm(
            code=f"history.{kept.finding.kind}",
            about=f"finding {kept.id}",
            what=f"{text}",
            todo=advice_for(kept.finding),
        )
        for kept, text in zip(found.findings, found.found, strict=True)
    ]
    alarms += [Alarm(code="data.integrity", about=about, what=text, todo=REPAIR) for about, text in _unexplained(found)]
    alarms += [
        Alarm(code="root.announced", about=f"root {one.fingerprint}", what=one.text, todo=one.advice)
        for one in found.roots
    ]
    for mark in found.deletions:
        if mark.bytes > mark.budget:
            alarms.append(
                Alarm(
                    code="deletion.large",
                    about=f"provider {mark.name}",
                    what=f"{mark.name}: {mark.objects} objects are marked for deletion, more than may go in a week; "
                    f"the first may go on {moment_of(mark.first_ns)[:10]}",
                    todo="if nobody of you pruned so much, the maintenance key was stolen: run `replicator backup` "
                    "on every node, which claims what it needs, and `replicator key rotate maintenance` there",
                    extent=mark.objects,
                )
            )
        if mark.unbraked:
            alarms.append(
                Alarm(
                    code="deletion.unbraked",
                    about=f"provider {mark.name}",
                    what=f"{mark.name}: no {' and no '.join(mark.unbraked)} on deletions, by root's word",
                    todo="if this is no test, the recovery sheet is in wrong hands: look at docs/operate/alarms.md",
                )
            )
    alarms += [
        Alarm(
            code="drill.failed",
            about=f"dataset {one.dataset}",
            what=f"{one.dataset}: its last trial restore did not bring everything back",
            todo="run `replicator drill` on the keeper, and `replicator repair` on the node",
            extent=max(1, one.problems),
        )
        for one in found.drills
        if not one.passed
    ]
    alarms += [
        Alarm(
            code="beside.failed",
            about=f"dataset {name}",
            what=what,
            todo="try `borg info` on that repository as the user who runs the backup; the next `backup` tries it again",
        )
        for name, what in found.late.items()
    ]
    integrity = any(one.kind.weight == "integrity" for one in alarms)
    for kind, code, why in ended:
        if kind not in BY_HAND:
            alarms += _of_run(kind, code, why)
        if code == _INTEGRITY and not integrity:
            text = f"the last `{kind}` found what is not as it was stored{f': {why}' if why else ''}"
            look = "`replicator runs show latest` says what"
            alarms.append(Alarm(code="data.integrity", about=f"run {kind}", what=text, todo=look))
    return alarms


def acknowledged_exit(found: Status, known: Collection[str]) -> int:
    """Return the exit code of a status whose alarms with these keys are known: 3 instead of 4 if that is all there is.

    Never 0: what is damaged is damaged, whoever knows of it.
    """
    if found.exit_code != _INTEGRITY:
        return found.exit_code
    quiet = {one.name for one in found.peers if one.damaged and f"data.damaged {_provider(one)}" in known}
    if any(one.damaged and one.name not in quiet for one in found.peers) or _unexplained(found):
        return _INTEGRITY
    if any(kept.open for kept in found.findings):
        return _INTEGRITY
    return worst_of([3, *(3 if one.state == "damaged" else severity(one.state) for one in found.datasets)])


def standing(found: Status) -> str:
    """Return in a sentence whether the data is safe and as of when."""
    when = moment_of(found.as_of_ns) or "never"
    good = [one for one in found.datasets if one.state == "safe"]
    if not found.datasets:
        return "Nothing is backed up from here."
    if len(good) == len(found.datasets):
        oldest = min(one.newest_ns for one in good)
        return f"Your data is safe as of {when}; the oldest backup is of {moment_of(oldest)}."
    lines = [f"Of {len(found.datasets)} datasets {len(good)} are safe as of {when}."]
    lines += [f"{one.name}: {one.state}; {_restorable(one)}" for one in found.datasets if one.state != "safe"]
    return "\n".join(lines)


def _restorable(one: DatasetStatus) -> str:
    if not one.newest_ns:
        return "nothing of it can be restored yet."
    if one.state == "unknown" or one.unasked:
        return f"who holds its backup of {moment_of(one.newest_ns)} was not asked yet from here."
    if one.copies:
        return f"its backup of {moment_of(one.newest_ns)} can be restored, from {one.copies} of {one.promised} copies."
    return f"parts of its backup of {moment_of(one.newest_ns)} have NO copy that counts."


def _of_dataset(one: DatasetStatus) -> list[Alarm]:
    about = f"dataset {one.name}"

    def alarm(code: str, what: str, todo: str, extent: int = 1) -> list[Alarm]:
        return [Alarm(code=code, about=about, what=f"{one.name}: {what}", todo=todo, extent=extent)]

    age = f"the newest backup is {age_in_words(one.age_s)} old"
    look = "look on its node why no backup ran: `replicator runs list`"
    if one.state == "stale":
        return alarm("data.stale", age, look)
    late = alarm("data.late", age, look) if one.late else []
    if one.relays:
        what = f"some of its newest backup is reached through {' and through '.join(one.relays)} alone"
        todo = (
            "nothing is lost while that is away; add a provider that can be dialled itself, or let those behind it "
            "wait at a second relay (docs/operate/behind-a-router.md)"
        )
        late += alarm("data.one-relay", what, todo, len(one.relays))
    if one.state == "waiting":
        todo = "let providers answer, or add one; then run `replicator backup`"
        return [*late, *alarm("data.unpublished", "no backup of it could be published yet", todo)]
    short = f"{one.debt} objects have fewer copies that count than promised"
    if one.state == "below minimum" and one.copies < one.minimum:
        what = f"{short}, one of them {one.copies} where {one.minimum} are the least"
        todo = f"let silent providers answer, or add one; then {REPAIR}"
        return [*late, *alarm("data.below-minimum", what, todo, max(1, one.debt))]
    if one.state in ("below minimum", "below promise"):
        what = short if one.debt else "; ".join(one.gaps[:1])
        todo = f"{REPAIR}; `replicator why {one.name}` says what it lacks"
        return [*late, *alarm("data.below-promise", what, todo, max(1, one.debt))]
    return late


def _of_peer(one: PeerStatus) -> list[Alarm]:
    about = _provider(one)
    alarms = []
    # Who said that he would be away, or will not come back, is missed by nobody.
    if one.silent_s > LATE_S and one.stands not in ("away", "gone"):
        since = f"{one.name}: has not answered for {age_in_words(one.silent_s)}"
        if one.stands == "lost":
            alarms.append(
                Alarm(
                    code="peer.lost",
                    about=about,
                    what=f"{since}; its copies do not count any more",
                    todo="ask its operator; if it will not come back, `replicator peer remove` it on the keeper",
                )
            )
        else:
            days = max(1, round((LOST_S - one.silent_s) / DAY_S))
            todo = f"ask its operator; in {days} days its copies will count as lost"
            alarms.append(Alarm(code="peer.silent", about=about, what=since, todo=todo))
    if one.leaves_ns and not one.stuck:
        todo = (
            f"nothing, if there is room elsewhere: the nights make its copies there; {format_size(one.left)} are left"
        )
        if one.keeps:
            todo = "nothing, if there is room elsewhere: the nights move what is more than that"
        alarms.append(Alarm(code="peer.leaving", about=about, what=one.leaving, todo=todo))
    if one.stuck:
        text = f"{one.leaving}, and {format_size(one.stuck)} there have no other place"
        todo = "add a provider, or room at one (`replicator peer add`), then `replicator repair`"
        alarms.append(Alarm(code="peer.stuck", about=about, what=text, todo=todo, extent=max(1, one.stuck >> 20)))
    if one.damaged:
        alarms.append(
            Alarm(
                code="data.damaged",
                about=about,
                what=f"{one.name}: {one.damaged} objects there are damaged",
                todo=REPAIR + "; ask its operator to look at the disk",
                extent=one.damaged,
            )
        )
    if one.missing:
        alarms.append(
            Alarm(
                code="peer.missing",
                about=about,
                what=f"{one.name}: {one.missing} objects that it had receipted are gone",
                todo=REPAIR,
                extent=one.missing,
            )
        )
    return alarms


def _provider(one: PeerStatus) -> str:
    return f"provider {one.name}"


def _unexplained(found: Status) -> list[tuple[str, str]]:
    """Return integrity failures that no other alarm stands for: what each is about, and its text.

    Damage at a provider and findings have alarms of their own.
    """
    texts = set(found.found)
    damaged = {one.name: one for one in found.peers if one.damaged and not one.spoilt}
    rest = []
    for text in found.integrity:
        name = text.partition(": ")[0]
        if name not in damaged and not any(text.startswith(one) for one in texts):
            rest.append((name[:64], text))
    return rest


def _of_run(kind: str, code: int, why: str) -> list[Alarm]:
    about, said = f"run {kind}", f": {why}" if why else ""
    look = "`replicator runs show latest` says more"
    if code in _FAILED:
        return [Alarm(code="run.failed", about=about, what=f"the last `{kind}` failed{said}", todo=look)]
    if code == _UNPUBLISHED:
        text = f"the last `{kind}` could not publish: too few providers took copies{said}"
        todo = "nothing is lost, it waits in the spool; let providers answer, or add one"
        return [Alarm(code="run.below-minimum", about=about, what=text, todo=todo)]
    return []
