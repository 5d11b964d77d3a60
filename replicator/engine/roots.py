"""What a home has heard of another root that is to follow its own: since when, and whether root has objected.

A home counts the thirty days by itself, from the day that it heard, however old the change says that it is: who stole
the owner key can write any date and name any provider.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from replicator.charter.verify import ROOT_WAIT_NS, Handover, signed_hash, verify_change, verify_objection
from replicator.clock import day_of
from replicator.engine.home import HEARD_FILE, OBJECTION_FILE, Half
from replicator.errors import IntegrityError, ReplicatorError
from replicator.fs import write_atomic
from replicator.ids import Identity, root_fingerprint
from replicator.wire.messages import Succession


def heard(half: Half) -> dict[bytes, tuple[int, Handover]]:
    """Return the changes of root that this home has heard of, by hash, with the day since when it counts (ns)."""
    path = half.file(HEARD_FILE)
    if half.fs.size(path) is None:
        return {}
    try:
        rows = json.loads(half.fs.read(path))
        changes = [(int(row["heard_ns"]), verify_change(bytes.fromhex(row["change"]))) for row in rows]
    except (ValueError, TypeError, KeyError, ReplicatorError):
        return {}  # counted anew: a wait gets longer by that, never shorter
    return {change.hash: (since, change) for since, change in changes}


def hear(half: Half, change: Handover, now_ns: int) -> None:
    """Begin to count for a change, if this home has not heard of it before."""
    known = heard(half)
    if change.hash in known:
        return
    # A clock that stands at 1970 must not let the wait pass when it is set right.
    known[change.hash] = (max(now_ns, half.charter.charter.created_ns), change)
    rows = [{"heard_ns": since, "change": one.signed.hex()} for since, one in known.values()]
    write_atomic(half.fs, half.file(HEARD_FILE), json.dumps(rows).encode())


def passed(half: Half, now_ns: int) -> list[bytes]:
    """Return the hashes of the changes for which this home has waited, and to which root has not objected."""
    return [
        digest
        for digest, (since, change) in heard(half).items()
        if now_ns >= since + ROOT_WAIT_NS and not objection_to(half, change.former_hash)
    ]


def objection_to(half: Half, statement: bytes) -> bytes:
    """Return root's objection to any successor of the root statement with this hash, empty if none is known here."""
    path = half.file(OBJECTION_FILE)
    if half.fs.size(path) is None:
        return b""
    signed = half.fs.read(path)
    try:
        objection = verify_objection(signed, root_key=half.member.root_key, tenant=half.tenant)
    except ReplicatorError:
        return b""  # of the root before this one, or damaged: providers keep it too
    return signed if objection.statement == statement else b""


def take_objection(half: Half, signed: bytes) -> None:
    """Keep root's objection to successors of the root statement in force.

    Raises:
        IntegrityError: it is not this tenant's root's, or about another statement.
    """
    objection = verify_objection(signed, root_key=half.member.root_key, tenant=half.tenant)
    if objection.statement != signed_hash(half.charter.charter.root):
        raise IntegrityError("objection: about another root statement than the one in force")
    write_atomic(half.fs, half.file(OBJECTION_FILE), signed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """Another root that is to follow. ``due_ns`` is when it counts in this home, ``heard_ns`` since when it waits here.

    ``counted`` are the providers that have waited long enough, ``asked`` those that said how far they are.
    """

    fingerprint: str
    announced_ns: int
    heard_ns: int
    due_ns: int
    objected: bool
    over: bool
    counted: int
    asked: int

    @property
    def text(self) -> str:
        """What people are told, in one line."""
        begin = f"another root ({self.fingerprint}) was announced with the owner key on {day_of(self.announced_ns)}"
        if self.objected:
            return f"{begin}; root has objected, so it never counts. Whoever announced it has the owner key"
        state = "its wait is over here" if self.over else f"it counts here from {day_of(self.due_ns)} on"
        told = f" ({self.counted} of {self.asked} providers have waited for it)" if self.asked else ""
        return f"{begin}; {state}{told}, and then the recovery sheet so far is worth nothing"

    @property
    def advice(self) -> str:
        """What to do about it."""
        if self.objected:
            return "name another owner: `replicator key rotate owner --sheet -` on the keeper"
        finish = "`replicator key rotate root --finish` on the keeper completes it; " if self.over else ""
        return f"{finish}if nobody of you announced another root, object now: `replicator key object --sheet -`"


def announced(half: Half, successions: Mapping[Identity, Succession], now_ns: int) -> list[Announced]:
    """Return the changes of root that wait in this home, with what providers said of them."""
    known = heard(half)
    pending = half.charter.pending
    if pending is not None and pending.hash not in known:
        known[pending.hash] = (now_ns, pending)
    found = []
    for digest, (since, change) in known.items():
        told = [one for one in successions.values() if one.change == digest]
        found.append(
            Announced(
                fingerprint=root_fingerprint(change.successor.root_key),
                announced_ns=change.announced_ns,
                heard_ns=since,
                due_ns=since + ROOT_WAIT_NS,
                objected=bool(objection_to(half, change.former_hash)),
                over=now_ns >= since + ROOT_WAIT_NS,
                counted=sum(one.passed for one in told),
                asked=len(told),
            )
        )
    return found
