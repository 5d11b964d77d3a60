"""The trial restores that a home has made and signed, and what is to be said of them."""

import json
from collections.abc import Iterable
from typing import Final

from replicator.clock import DAY_S, NS
from replicator.config import counted
from replicator.crypto.sign import Context, verify
from replicator.engine.home import Half
from replicator.errors import ReplicatorError
from replicator.format.drill import Drill, read_drill

RUN: Final = "drill"
"""What the catalog's runs call it."""
DUE_AFTER_S: Final = 35 * DAY_S
"""A drill a month is the rule (docs/design.md): the longest month, and four days for a timer that comes late."""
_SEEN: Final = "datasets at the last drill"


def drills(half: Half) -> list[Drill]:
    """Return the newest drill of each dataset that this home has made, by name; what it did not sign does not count."""
    newest: dict[str, Drill] = {}
    for run in half.catalog.runs(RUN):
        try:
            signed = bytes.fromhex(str(run["signed"]))
            found = read_drill(verify(signed, Context.DRILL, [half.signing.public]))
        except (KeyError, ValueError, ReplicatorError):
            continue
        newest[found.dataset] = found
    return [newest[name] for name in sorted(newest)]


def is_due(one: Drill, now_ns: int) -> bool:
    """Return whether a dataset's newest drill is too long ago."""
    return now_ns - one.ended_ns > DUE_AFTER_S * NS


def remember_datasets(half: Half, names: Iterable[str]) -> None:
    """Keep which datasets there are, for whoever cannot open snapshots to see; those of drills are known anyway."""
    half.catalog.set_meta(_SEEN, json.dumps(sorted(set(names))).encode())


def known_datasets(half: Half) -> list[str]:
    """Return which datasets there were when the last drill was made."""
    return [str(name) for name in json.loads(half.catalog.meta(_SEEN) or b"[]")]


def drill_advice(made: list[Drill], undrilled: list[str], now_ns: int, has_snapshots: bool) -> list[str]:
    """Return what is to be done about drills: failed ones first, then old ones, then those that never were."""
    if not made:
        return ["nothing was ever restored for trial: run `replicator drill` on the keeper"] if has_snapshots else []
    advice = [
        f"the last trial restore of {one.dataset} failed: `replicator drill latest:{one.dataset}` shows what is wrong"
        for one in made
        if not one.passed
    ]
    advice += [
        f"the last trial restore of {one.dataset} is {counted((now_ns - one.ended_ns) // (DAY_S * NS), 'day')} old: "
        f"run `replicator drill latest:{one.dataset}`"
        for one in made
        if one.passed and is_due(one, now_ns)
    ]
    if undrilled:
        advice.append(f"never restored for trial: {', '.join(undrilled)}; run `replicator drill` on the keeper")
    return advice
