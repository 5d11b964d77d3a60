"""What can be wrong with a scheduling problem or its answer.

SchedulerError
├── RosterError               a peer list, a pack list or a label is not usable; the caller corrects it
├── PolicyError               a policy contradicts itself or names what does not exist
├── PolicyUnsatisfiableError  the policy is sound, but these peers cannot reach its minimum
└── PlacementInvalidError     a plan breaks an invariant: a bug in the planner, nothing was done

Trying again with the same arguments never helps: every function here is pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.model import Violation

__all__ = [
    "PlacementInvalidError",
    "PolicyError",
    "PolicyUnsatisfiableError",
    "RosterError",
    "SchedulerError",
]


class SchedulerError(Exception):
    """Anything this package refuses."""


class RosterError(SchedulerError):
    """Peers, packs or labels that cannot be planned with."""


class PolicyError(SchedulerError):
    """A policy that no set of peers could give a meaning to."""


class PolicyUnsatisfiableError(SchedulerError):
    """Packs below their minimum; each reason says what is in the way and what would help."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("the minimum cannot be met: " + "; ".join(self.reasons))


class PlacementInvalidError(SchedulerError):
    """The planner's own result failed its check; it must not be carried out."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        shown = "; ".join(violation.message for violation in self.violations[:5])
        more = f" (and {len(self.violations) - 5} more)" if len(self.violations) > 5 else ""
        super().__init__(f"the plan breaks {len(self.violations)} invariants: {shown}{more}")
