"""Trial restores: what one came to, signed by the keeper that made it, and the commands that look at what came back."""

from typing import Annotated, Final, Literal

import msgspec

from replicator.format.charter import Count, Hash, Id16, Name
from replicator.format.codec import Part, Record, decode, version_of

MAX_CHECK: Final = 4096
"""Characters of a kept check: it is in the charter, which every member keeps. What is longer belongs in a script."""
DEFAULT_CHECK_S: Final = 3600
MAX_CHECK_S: Final = 7 * 86400

CheckCommand = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CHECK)]
CheckLimitS = Annotated[int, msgspec.Meta(ge=1, le=MAX_CHECK_S)]
Checked = Literal["none", "passed", "failed", "not run", "left out"]


class Drill(Record, frozen=True, kw_only=True, tag=2):
    """Signed by a keeper: it restored this snapshot to a scratch folder, and what came of it.

    ``whole`` is false if only a sample of its files was restored. ``problems`` counts what could not be restored as it
    was, but for what a user who is not root may not set, which is ``unset``. ``check`` is what the command said that
    looks at the restored data; "not run": what came back was not whole, "left out": it was not wanted.
    """

    tenant: Id16
    keeper: Hash
    dataset: Name
    snapshot: Hash
    started_ns: Count
    ended_ns: Count
    whole: bool
    files: Count
    bytes: Count
    problems: Count
    unset: Count
    check: Checked

    @property
    def passed(self) -> bool:
        """Whether everything came back, and the check was content wherever one was wanted."""
        return not self.problems and self.check not in ("failed", "not run")


class Drill1(Record, frozen=True, kw_only=True):
    """Version 1: what a user may not set is among the problems, and a check that could not be run is "none"."""

    tenant: Id16
    keeper: Hash
    dataset: Name
    snapshot: Hash
    started_ns: Count
    ended_ns: Count
    whole: bool
    files: Count
    bytes: Count
    problems: Count
    check: Literal["none", "passed", "failed"]


def read_drill(data: bytes) -> Drill:
    """Return a drill of any version, in the newest one's terms.

    Raises:
        FormatError: it is none.
    """
    if version_of(data) != 1:
        return decode(Drill, data)
    return Drill(**msgspec.structs.asdict(decode(Drill1, data)), unset=0)


class DrillCheck(Part, frozen=True, kw_only=True):
    """A command for the shell that looks at what came back of a dataset; it has ``limit_s`` seconds."""

    dataset: Name
    command: CheckCommand
    limit_s: CheckLimitS


class DrillChecks(Record, frozen=True, kw_only=True):
    """What a tenant's keepers keep in the charter, in a box, so that no node can read or change it; by dataset."""

    checks: list[DrillCheck]
