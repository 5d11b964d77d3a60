"""Who is to be told what: from what is so now and what was told before. No I/O and no clock.

One message for each change of state. What stays as it is is told once, however many nights it stays; what comes back
after it was over is new.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from replicator.clock import NS
from replicator.notify.alarms import CODES, Alarm, by_weight
from replicator.notify.memory import Failed, Known, Memory

WORSE: Final = 2
"""What has grown to more than so many times what was told of it is told again."""
_SUBJECT: Final = 200
_HANDBOOK: Final = "docs/operate/alarms.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What one channel has to say: alarms that are new, and the keys of those that are over."""

    raised: tuple[Alarm, ...] = ()
    over: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.raised or self.over)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent. ``level`` is "red" if somebody should act today, "warning", or "good"."""

    subject: str
    text: str
    level: str
    codes: tuple[str, ...] = field(default=())


def look(memory: Memory, present: Sequence[Alarm], now_ns: int, *, whole: bool = True) -> Memory:
    """Return the memory after a look: since when each alarm is there, and what is still known.

    What is known stays so while it is there and does not grow; what has grown is told as if it were new. Unless the
    look was ``whole``, what it did not show may be there all the same.
    """
    extents = {one.key: one.extent for one in present}
    unseen = set() if whole else memory.seen.keys() - extents.keys()
    extents |= {key: memory.known[key].extent if key in memory.known else 0 for key in unseen}
    known = {key: one for key, one in memory.known.items() if extents.get(key, one.extent + 1) <= one.extent}
    grown = memory.known.keys() - known.keys()
    return msgspec.structs.replace(
        memory,
        seen={key: min(memory.seen.get(key, now_ns), now_ns) for key in extents},
        known=known,
        told={
            channel: {key: extent for key, extent in told.items() if key not in grown or key not in extents}
            for channel, told in memory.told.items()
        },
    )


def news(memory: Memory, channel: str, present: Sequence[Alarm], now_ns: int, *, whole: bool = True) -> News:
    """Return what a channel has to say after a look (:func:`look`); nothing is over if that was not ``whole``."""
    told = memory.told.get(channel, {})
    keys = {one.key for one in present}
    about = {one.about for one in present}
    raised = [
        one
        for one in present
        if one.key not in memory.known
        and now_ns - memory.seen.get(one.key, now_ns) >= one.kind.patience_s * NS
        and (one.key not in told or one.extent > WORSE * told[one.key])
    ]
    # Of what is still in trouble in another way it is not said that it is well.
    over = [key for key in told if whole and key not in keys and key.partition(" ")[2] not in about]
    return News(raised=tuple(by_weight(raised)), over=tuple(sorted(over)))


def after_telling(memory: Memory, channel: str, said: News, present: Sequence[Alarm], *, whole: bool = True) -> Memory:
    """Return the memory after a channel said its news; what was over is forgotten.

    What became another trouble of the same thing is kept with extent 0: over once nothing ails it, new if it returns.
    """
    keys = {one.key for one in present}
    about = {one.about for one in present}
    told = {
        key: extent if key in keys or not whole else 0
        for key, extent in memory.told.get(channel, {}).items()
        if key in keys or not whole or key.partition(" ")[2] in about
    }
    told |= {one.key: one.extent for one in said.raised}
    memory = after_success(memory, channel) if said else memory
    return msgspec.structs.replace(memory, told=memory.told | {channel: told})


def after_success(memory: Memory, channel: str) -> Memory:
    """Return the memory after a channel worked."""
    failed = {name: one for name, one in memory.failed.items() if name != channel}
    return msgspec.structs.replace(memory, failed=failed)


def after_failure(memory: Memory, channel: str, reason: str, now_ns: int) -> Memory:
    """Return the memory after a channel failed: it has told nobody anything, and will be asked again."""
    since_ns = memory.failed[channel].since_ns if channel in memory.failed else now_ns
    failed = memory.failed | {channel: Failed(since_ns=since_ns, reason=reason)}
    return msgspec.structs.replace(memory, failed=failed)


def only(memory: Memory, channels: Sequence[str]) -> Memory:
    """Return the memory without what was told to channels that are not there any more."""
    return msgspec.structs.replace(
        memory,
        told={name: told for name, told in memory.told.items() if name in channels},
        failed={name: failed for name, failed in memory.failed.items() if name in channels},
    )


def acknowledged(memory: Memory, alarm: Alarm, note: str, now_ns: int) -> Memory:
    """Return the memory after a person has said that an alarm is known, as large as it is now."""
    known = memory.known | {alarm.key: Known(extent=alarm.extent, noted_ns=now_ns, note=note)}
    return msgspec.structs.replace(memory, known=known)


def failing(memory: Memory) -> list[Alarm]:
    """Return an alarm for each channel that does not work: the others tell of it."""
    return [
        Alarm(
            code="notify.failed",
            about=f"channel {channel}",
            what=f"the channel '{channel}' tells nobody anything: {failed.reason}",
            todo="correct [notify] in config.toml; `replicator notify --test` tries it",
        )
        for channel, failed in sorted(memory.failed.items())
    ]


def write(said: News, *, who: str, standing: str) -> Message:
    """Return the message for a channel's news. ``standing`` says whether the data is safe and as of when."""
    lines = []
    for one in said.raised:
        lines += [f"{one.what}.", f"    To do: {one.todo}.", f"    Code: {one.code} (id {one.id})", ""]
    lines += [f"Over: {key.partition(' ')[2]} ({key.partition(' ')[0]})." for key in said.over]
    if said.over:
        lines.append("")
    lines += [standing, f"What each code means, and what to do: {_HANDBOOK}."]
    if said.raised:
        first, more = said.raised[0].what, len(said.raised) - 1
        subject = f"{who}: {first}" + (f" (and {more} more)" if more else "")
        level = "warning" if all(one.kind.weight == "warning" for one in said.raised) else "red"
    else:
        subject, level = f"{who}: over: {', '.join(key.partition(' ')[2] for key in said.over)}", "good"
    codes = tuple(dict.fromkeys([*(one.code for one in said.raised), *(key.partition(" ")[0] for key in said.over)]))
    return Message(subject=_plain(subject)[:_SUBJECT], text=_plain("\n".join(lines)), level=level, codes=codes)


def _plain(text: str) -> str:
    """Return text without what moves a cursor: parts of it are other people's machines' words."""
    return "".join(one if one.isprintable() or one == "\n" else "?" for one in text)


def waiting(memory: Memory, present: Sequence[Alarm], now_ns: int) -> Mapping[str, int]:
    """Return the seconds until somebody is told, by key, of alarms whose patience is not over yet."""
    left = {one.key: CODES[one.code].patience_s - (now_ns - memory.seen.get(one.key, now_ns)) // NS for one in present}
    return {key: seconds for key, seconds in left.items() if seconds > 0}
