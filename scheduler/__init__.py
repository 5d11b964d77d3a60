"""Decides which peers hold which packs, in pure functions that can explain themselves.

No I/O, no clock, no randomness: times and seeds are arguments, and equal arguments give equal answers.

`place` makes a plan from peers, policies, packs and who holds them now; `check` restates what must hold of
any plan or placement; `why` puts it in words; `survives` says what the worst single loss leaves;
`repair_queue` and `probes` say what to mend and what to look at first. Other programs ask `python -m scheduler
plan` (docs/spec/placement.md), which also says how much fits and moves what must move.
"""

from scheduler.audit import LEAF, Auditable, probes
from scheduler.check import check
from scheduler.durability import Loss, survives
from scheduler.errors import (
    PlacementInvalidError,
    PolicyError,
    PolicyUnsatisfiableError,
    RosterError,
    SchedulerError,
)
from scheduler.explain import why
from scheduler.geography import (
    COUNTRIES,
    EEA,
    EU,
    Query,
    country_code,
    default_residency,
    fold,
    households,
    qualify,
    queries,
    residency,
)
from scheduler.model import (
    DOMAINS,
    Addition,
    Debt,
    Domain,
    Gap,
    Holders,
    Pack,
    PackId,
    Peer,
    PeerId,
    PeerState,
    Placement,
    Plan,
    Policy,
    Refusal,
    Relaxation,
    Surplus,
    Violation,
    default_copies,
)
from scheduler.place import place
from scheduler.repairs import Repair, Urgency, repair_queue

__all__ = [
    "COUNTRIES",
    "DOMAINS",
    "EEA",
    "EU",
    "LEAF",
    "Addition",
    "Auditable",
    "Debt",
    "Domain",
    "Gap",
    "Holders",
    "Loss",
    "Pack",
    "PackId",
    "Peer",
    "PeerId",
    "PeerState",
    "Placement",
    "PlacementInvalidError",
    "Plan",
    "Policy",
    "PolicyError",
    "PolicyUnsatisfiableError",
    "Query",
    "Refusal",
    "Relaxation",
    "Repair",
    "RosterError",
    "SchedulerError",
    "Surplus",
    "Urgency",
    "Violation",
    "check",
    "country_code",
    "default_copies",
    "default_residency",
    "fold",
    "households",
    "place",
    "probes",
    "qualify",
    "queries",
    "repair_queue",
    "residency",
    "survives",
    "why",
]
